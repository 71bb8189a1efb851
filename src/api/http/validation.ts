import { Ajv } from 'ajv'
import type { AnySchemaObject, ErrorObject, ValidateFunction } from 'ajv'

/**
 * Formats that schemas of the API may name. Shapes only: the parts say what is wrong with a date
 * that does not exist.
 */
const formats: Readonly<Record<string, RegExp>> = {
  'date-time': /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)$/i,
  uuid: /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i,
  email: /^[^\s@]{1,64}@[^\s@]{1,255}$/,
}

const integer = /^-?(0|[1-9]\d{0,15})$/
const decimal = /^-?(0|[1-9]\d*)(\.\d+)?$/

/** The argument that `setValidatorCompiler` passes. */
export type CompileRequest = { readonly schema: unknown; readonly httpPart?: string | undefined }

/**
 * Compiles the schemas of routes. Nothing is coerced, removed or defaulted in a body: what a client
 * sent is what a part sees. The texts of a query string become numbers and booleans where the
 * schema wants them, and only in their plain form.
 */
export function validatorCompiler(): (
  request: CompileRequest,
) => (data: unknown) => boolean | { error: Error } {
  const ajv = new Ajv({
    strict: false,
    allErrors: false,
    // A refusal names every property that is missing, which the parent schema lists.
    verbose: true,
    coerceTypes: false,
    removeAdditional: false,
    useDefaults: false,
    validateFormats: true,
    addUsedSchema: false,
  })
  for (const [name, pattern] of Object.entries(formats)) ajv.addFormat(name, pattern)
  return ({ schema, httpPart }) => {
    const check = ajv.compile(withoutIds(schema) as AnySchemaObject)
    const fromText =
      httpPart === 'querystring' || httpPart === 'params' ? textProperties(schema) : null
    return (data) => {
      if (fromText !== null) convert(fromText, data as Record<string, unknown>)
      return check(data) ? true : { error: failure(check) }
    }
  }
}

/** The first thing that is wrong; of missing properties all, so that one try is enough. */
function failure({ errors }: ValidateFunction): Error {
  const first = errors?.[0]
  const validation = first?.keyword === 'required' ? missingIn(first) : (errors ?? [])
  return Object.assign(new Error('invalid'), { validation })
}

function missingIn(error: ErrorObject): object[] {
  const { required = [] } = (error.parentSchema ?? {}) as { readonly required?: readonly string[] }
  const present: object = error.data ?? {}
  return required
    .filter((name) => !Object.hasOwn(present, name))
    .map((missingProperty) => ({ ...error, params: { missingProperty } }))
}

/**
 * `$id` names a schema for the API's document; inlined here, so that one schema may stand in many
 * routes. What a part checks by itself, with better words, only has to be an object.
 */
function withoutIds(schema: unknown): unknown {
  if (Array.isArray(schema)) return schema.map(withoutIds)
  if (typeof schema !== 'object' || schema === null) return schema
  if ('x-checked-by' in schema) return { type: 'object' }
  return Object.fromEntries(
    Object.entries(schema)
      .filter(([key, value]) => !(key === '$id' && typeof value === 'string'))
      .map(([key, value]) => [key, withoutIds(value)]),
  )
}

type TextProperty = { readonly name: string; readonly kind: 'integer' | 'number' | 'boolean' }

function textProperties(schema: unknown): TextProperty[] {
  const properties = (schema as { properties?: Record<string, { type?: string }> }).properties ?? {}
  return Object.entries(properties).flatMap(([name, { type }]) =>
    type === 'integer' || type === 'number' || type === 'boolean' ? [{ name, kind: type }] : [],
  )
}

function convert(properties: readonly TextProperty[], data: Record<string, unknown>): void {
  for (const { name, kind } of properties) {
    const text = data[name]
    if (typeof text !== 'string') continue
    if (kind === 'boolean') {
      if (text === 'true' || text === 'false') data[name] = text === 'true'
    } else if ((kind === 'integer' ? integer : decimal).test(text)) data[name] = Number(text)
  }
}
