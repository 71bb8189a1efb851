import fc from 'fast-check'

type Schema = { readonly [keyword: string]: unknown }

/**
 * Random values of a JSON Schema, mostly valid ones: `junk` sometimes takes the place of any part.
 */
export class SchemaValues {
  readonly #components: Readonly<Record<string, Schema>>
  readonly #known: readonly string[]

  /** `known` are texts that name something which exists: ids, names of types, roles, locales. */
  constructor(components: Readonly<Record<string, Schema>>, known: readonly string[]) {
    this.#components = components
    this.#known = known
  }

  /** `damage`: how often, of 100, a part is replaced by something else. */
  of(schema: Schema, damage: number, depth = 5): fc.Arbitrary<unknown> {
    const valid = this.#valid(schema, damage, depth)
    return damage === 0
      ? valid
      : fc.oneof({ weight: 100 - damage, arbitrary: valid }, { weight: damage, arbitrary: junk })
  }

  #valid(schema: Schema, damage: number, depth: number): fc.Arbitrary<unknown> {
    const { $ref, anyOf, oneOf, enum: options, type } = schema
    // Schemas that contain themselves end here, validly or not.
    if (depth < -3) return fc.constant(type === 'array' ? [] : {})
    if (typeof $ref === 'string')
      return this.of(this.#components[$ref.split('/').at(-1)!] ?? {}, damage, depth - 1)
    const choices = (anyOf ?? oneOf) as readonly Schema[] | undefined
    if (choices !== undefined)
      return fc.oneof(...choices.map((choice) => this.of(choice, damage, depth - 1)))
    if ('const' in schema) return fc.constant(schema['const'])
    if (Array.isArray(options)) return fc.constantFrom(...(options as unknown[]))
    switch (type) {
      case 'string':
        return this.#text(schema)
      case 'integer':
        return fc.integer({
          min: (schema['minimum'] as number | undefined) ?? -1_000,
          max: (schema['maximum'] as number | undefined) ?? 1_000_000,
        })
      case 'number':
        return fc.double({
          noNaN: true,
          noDefaultInfinity: true,
          min: (schema['minimum'] as number | undefined) ?? -1e300,
          max: (schema['maximum'] as number | undefined) ?? 1e300,
        })
      case 'boolean':
        return fc.boolean()
      case 'null':
        return fc.constant(null)
      case 'array':
        return fc.array(this.of((schema['items'] ?? {}) as Schema, damage, depth - 1), {
          minLength: Math.min(Number(schema['minItems'] ?? 0), 2),
          maxLength: depth <= 0 ? 1 : 3,
        })
      case 'object':
        return this.#object(schema, damage, depth)
      default:
        return fc.jsonValue({ maxDepth: 2 })
    }
  }

  #text(schema: Schema): fc.Arbitrary<string> {
    if (schema['format'] === 'date-time')
      return fc
        .date({ min: new Date('0001-01-01'), max: new Date('9999-12-31'), noInvalidDate: true })
        .map((date) => date.toISOString())
    const known = fc.constantFrom(...this.#known)
    if (schema['format'] === 'uuid') return fc.oneof(known, fc.uuid())
    return fc.oneof(
      { weight: 3, arbitrary: known },
      { weight: 1, arbitrary: fc.string({ maxLength: 20 }) },
      { weight: 1, arbitrary: fc.string({ unit: 'binary', maxLength: 10 }) },
    )
  }

  #object(schema: Schema, damage: number, depth: number): fc.Arbitrary<unknown> {
    const properties = (schema['properties'] ?? {}) as Record<string, Schema>
    const required = (schema['required'] ?? []) as string[]
    const names = Object.keys(properties).filter((name) => depth > 0 || required.includes(name))
    const record = fc.record(
      Object.fromEntries(
        names.map((name) => [name, this.of(properties[name]!, damage, depth - 1)]),
      ),
      { requiredKeys: required.filter((name) => names.includes(name)) },
    )
    if (damage === 0 || schema['additionalProperties'] !== false) return record
    return fc.oneof(
      { weight: 20, arbitrary: record },
      {
        weight: 1,
        arbitrary: fc
          .tuple(record, fc.string({ maxLength: 8 }), junk)
          .map(([value, key, extra]) => ({ ...value, [key]: extra })),
      },
    )
  }
}

/** Values that no schema expects, and that have broken servers before. */
export const junk: fc.Arbitrary<unknown> = fc.oneof(
  fc.constantFrom<unknown>(
    null,
    true,
    0,
    -1,
    1e308,
    2 ** 53,
    '',
    ' ',
    '\u0000',
    '\ud800',
    '\ufeff',
    '../../etc/passwd',
    "' or 1=1 --",
    '%00',
    'null',
    'undefined',
    '__proto__',
    'constructor',
    'a'.repeat(5_000),
    [],
    [[]],
    {},
    { length: 1 },
    { toString: 1 },
    '9999-99-99T99:99:99Z',
    '0000-01-01T00:00:00Z',
    '{',
    '-0',
    'NaN',
    '1e400',
  ),
  fc.jsonValue({ maxDepth: 3 }),
)
