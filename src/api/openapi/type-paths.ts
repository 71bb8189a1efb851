import type { Identity } from '#access/access.ts'
import type { Schema } from '#api/openapi/components.ts'
import type { OpenApi, Operation } from '#api/openapi/document.ts'
import { fieldsSchema } from '#api/openapi/type-schemas.ts'
import { contentActions } from '#content/authority.ts'
import type { ContentType } from '#content/content-type.ts'
import { readableSchema } from '#content/query/readable-schema.ts'
import { testsOf } from '#content/query/validate-query.ts'
import type { ReadableType } from '#content/query/readable-type.ts'
import type { QueryField } from '#content/query/normal-form.ts'

type Parameter = { readonly name: string; readonly in: string; readonly [key: string]: unknown }
type KnownOperation = Operation & {
  readonly operationId: string
  readonly parameters?: readonly Parameter[]
  readonly responses: Record<string, object>
}

/** The document for one reader, with a path for each content type on which they have a grant. */
export function describeTypes(
  base: OpenApi,
  types: readonly ContentType[],
  identity: Identity,
): OpenApi {
  const paths = { ...base.paths }
  const schemas = { ...base.components.schemas }
  const entryCreate = schemas['EntryCreate'] as BodySchema
  const entrySave = schemas['EntrySave'] as BodySchema
  for (const type of types) {
    const grants = new Map(
      contentActions.map((action) => [action, identity.authority.grant(action, type.name)]),
    )
    if ([...grants.values()].every((grant) => grant === null)) continue
    const seen = grants.get('readDraft') ?? grants.get('read') ?? { filter: null, fields: [] }
    const written = [...grants].flatMap(([action, grant]) =>
      grant !== null && (action === 'create' || action === 'update') ? [grant.fields] : [],
    )
    const writable = written.some((fields) => fields === null)
      ? null
      : [...new Set(written.flatMap((fields) => fields ?? []))]
    const names = namesOf(type)
    schemas[names.entry] = entryOf(
      base.components.schemas['Entry']!,
      fieldsSchema(type, 'value', seen.fields),
      type,
    )
    schemas[names.input] = fieldsSchema(type, 'input', writable)
    const list = `/api/content/${type.name}`
    const one = `${list}/{id}`
    const of = (path: string, method: string) => base.paths[path]![method] as KnownOperation
    // A spelt-out path hides the general one from readers of the document, so it has all of the
    // general one's methods.
    paths[list] = {
      get: listOperation(of('/api/content/{type}', 'get'), { type, grant: seen }, names),
      post: writeOperation(of('/api/content/{type}', 'post'), type, names, entryCreate),
    }
    paths[one] = {
      get: readOperation(of('/api/content/{type}/{id}', 'get'), type, names),
      patch: writeOperation(of('/api/content/{type}/{id}', 'patch'), type, names, entrySave),
      put: writeOperation(of('/api/content/{type}/{id}', 'put'), type, names, entrySave),
      delete: narrowed(of('/api/content/{type}/{id}', 'delete'), type, names),
    }
  }
  return { ...base, paths, components: { ...base.components, schemas } }
}

type Names = { readonly entry: string; readonly input: string; readonly suffix: string }

/** Names of types have no `_`, so two types never get the same name here. */
function namesOf(type: ContentType): Names {
  const suffix = type.name.replaceAll('-', '_')
  return { suffix, entry: `Entry_${suffix}`, input: `Fields_${suffix}` }
}

function entryOf(entry: Schema, fields: Schema, type: ContentType): Schema {
  const properties = entry['properties'] as Record<string, Schema>
  return {
    ...entry,
    description: type.label,
    properties: { ...properties, type: { const: type.name }, fields },
  }
}

function reference(name: string): Schema {
  return { $ref: `#/components/schemas/${name}` }
}

/** The same operation, without the parameter that the path now spells out. */
function narrowed(operation: KnownOperation, type: ContentType, names: Names): KnownOperation {
  return {
    ...operation,
    operationId: `${operation.operationId}_${names.suffix}`,
    tags: [`content: ${type.name}`],
    parameters: (operation.parameters ?? []).filter(
      (parameter) => !(parameter.in === 'path' && parameter.name === 'type'),
    ),
  }
}

function withResponse(
  operation: KnownOperation,
  status: string,
  properties: Record<string, Schema>,
): KnownOperation {
  const response = operation.responses[status] as {
    content: { 'application/json': { schema: { properties: object } } }
  }
  const { schema } = response.content['application/json']
  const typed = { ...schema, properties: { ...schema.properties, ...properties } }
  return {
    ...operation,
    responses: {
      ...operation.responses,
      [status]: { ...response, content: { 'application/json': { schema: typed } } },
    },
  }
}

function readOperation(operation: KnownOperation, type: ContentType, names: Names): KnownOperation {
  return withResponse(narrowed(operation, type, names), '200', { data: reference(names.entry) })
}

function listOperation(
  operation: KnownOperation,
  readable: ReadableType,
  names: Names,
): KnownOperation {
  const own = narrowed(operation, readable.type, names)
  const filters = [...readableSchema(readable).values()].flatMap(filterParameters)
  return withResponse({ ...own, parameters: [...(own.parameters ?? []), ...filters] }, '200', {
    data: { type: 'array', items: reference(names.entry) },
  })
}

type BodySchema = { readonly properties: object }

function writeOperation(
  operation: KnownOperation,
  type: ContentType,
  names: Names,
  body: BodySchema,
): KnownOperation {
  const own = narrowed(operation, type, names)
  const schema = { ...body, properties: { ...body.properties, fields: reference(names.input) } }
  const status = operation.responses['201'] === undefined ? '200' : '201'
  return withResponse(
    { ...own, requestBody: { required: true, content: { 'application/json': { schema } } } },
    status,
    { data: reference(names.entry) },
  )
}

const lists: ReadonlySet<string> = new Set(['in', 'nin'])

/** `where[field][op]` for each comparison that a field takes. */
function filterParameters(field: QueryField): Parameter[] {
  return testsOf(field).map((test) => ({
    name: `where[${field.name}][${test}]`,
    in: 'query',
    schema: testSchema(field, test),
  }))
}

function testSchema(field: QueryField, test: string): Schema {
  if (lists.has(test)) return { type: 'string', description: 'Values, separated by commas.' }
  return test === 'exists' ? { type: 'boolean' } : valueOf(field)
}

function valueOf(field: QueryField): Schema {
  if (field.type === 'number') return { type: 'number' }
  if (field.type === 'boolean') return { type: 'boolean' }
  if (field.type === 'instant') return { type: 'string', format: 'date-time' }
  return field.type === 'id' ? { type: 'string', format: 'uuid' } : { type: 'string' }
}
