/** JSON Schema, in the dialect of OpenAPI 3.1. */
export type Schema = { readonly [keyword: string]: unknown }

/**
 * Collects the components of a document. A schema with `$id`, and each of `$defs`, becomes a
 * component of that name, with a `$ref` in its place. Two components of one name must be equal.
 */
export class Components {
  readonly schemas: Record<string, Schema> = {}

  add(schema: unknown): Schema {
    return this.#walk(schema) as Schema
  }

  #walk(value: unknown): unknown {
    if (Array.isArray(value)) return value.map((inner) => this.#walk(inner))
    if (typeof value !== 'object' || value === null) return value
    const { $id, $defs, ...rest } = value as { $id?: unknown; $defs?: Record<string, unknown> }
    for (const [name, definition] of Object.entries($defs ?? {})) this.#define(name, definition)
    if (typeof $id === 'string') {
      this.#define($id, rest)
      return { $ref: `#/components/schemas/${$id}` }
    }
    const result: Record<string, unknown> = {}
    for (const [key, inner] of Object.entries(rest)) {
      if (key.startsWith('~') || key === 'x-checked-by') continue
      result[key] = this.#walkKeyword(key, inner)
    }
    return result
  }

  #walkKeyword(key: string, value: unknown): unknown {
    if (key === 'examples' || key === 'default') return value
    if (key === '$ref' && typeof value === 'string')
      return value.replace(/^#\/\$defs\//, '#/components/schemas/')
    return this.#walk(value)
  }

  #define(name: string, schema: unknown): void {
    const before = this.schemas[name]
    // A schema may refer to itself, so its name is taken before its parts are walked.
    if (before === undefined) this.schemas[name] = {}
    const walked = this.#walk(schema) as Schema
    if (
      before !== undefined &&
      Object.keys(before).length > 0 &&
      JSON.stringify(before) !== JSON.stringify(walked)
    ) {
      throw new Error(`two different schemas are named ${name}`)
    }
    this.schemas[name] = walked
  }
}
