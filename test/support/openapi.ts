import assert from 'node:assert/strict'
import { Ajv2020 } from 'ajv/dist/2020.js'
import type { ValidateFunction } from 'ajv/dist/2020.js'
import addFormats from 'ajv-formats'
import type { OpenApi } from '#api/openapi/document.ts'

export type ApiResponse = {
  readonly statusCode: number
  readonly headers: Readonly<Record<string, number | string | string[] | undefined>>
  readonly body: string
}
type Responses = Readonly<
  Record<string, { readonly content?: Readonly<Record<string, { readonly schema: object }>> }>
>
type Operation = { readonly operationId: string; readonly responses: Responses }

/** Compares responses with the API's own document: status, media type and schema. */
export class ResponseChecker {
  readonly #document: OpenApi
  readonly #ajv = new Ajv2020({ strict: false, allErrors: false, addUsedSchema: false })
  readonly #checks = new Map<object, ValidateFunction>()
  readonly #paths: readonly {
    readonly pattern: RegExp
    readonly path: string
    readonly variables: number
  }[]

  constructor(document: OpenApi) {
    this.#document = document
    // ajv-formats is CommonJS whose default export TypeScript sees as a module.
    ;(addFormats as unknown as (ajv: Ajv2020) => void)(this.#ajv)
    this.#ajv.addSchema({ $id: 'document', components: document.components })
    this.#paths = Object.keys(document.paths)
      .map((path) => ({
        path,
        variables: path.split('{').length,
        pattern: new RegExp(
          `^${path.replace(/[.*+?^$()|[\]\\]/g, '\\$&').replace(/\{[^}]+\}/g, '[^/]+')}$`,
        ),
      }))
      .sort((a, b) => a.variables - b.variables)
  }

  /**
   * The operation that a request belongs to; null: the path or the method is not in the document.
   */
  operation(method: string, url: string): Operation | null {
    const pathname = url.split('?')[0]!
    const found = this.#paths.find(({ pattern }) => pattern.test(pathname))
    return found === undefined
      ? null
      : ((this.#document.paths[found.path]?.[method.toLowerCase()] as Operation | undefined) ??
          null)
  }

  /** Throws when the document does not promise this response. */
  check(method: string, url: string, response: ApiResponse): void {
    const what = `${method} ${url}: ${response.statusCode} ${response.body.slice(0, 500)}`
    assert.ok(response.statusCode < 500 || response.statusCode === 503, what)
    const operation = this.operation(method, url)
    if (operation === null) {
      assert.ok(
        [404, 405].includes(response.statusCode) ||
          (method === 'OPTIONS' && response.statusCode === 204) ||
          method === 'HEAD' ||
          [400, 414].includes(response.statusCode),
        `not in the document: ${what}`,
      )
      return
    }
    const documented = operation.responses[response.statusCode]
    assert.ok(
      documented !== undefined,
      `${operation.operationId} does not document the status: ${what}`,
    )
    if (documented.content === undefined) {
      assert.equal(response.body, '', what)
      return
    }
    const type = String(response.headers['content-type'] ?? '').split(';')[0]!
    // A file is of any kind, and the document does not describe its contents.
    if (documented.content['*/*'] !== undefined) return
    const media = documented.content[type]
    assert.ok(media !== undefined, `${operation.operationId} does not document ${type}: ${what}`)
    if (!type.endsWith('json')) return
    const check = this.#compiled(media.schema)
    assert.ok(
      check(JSON.parse(response.body)),
      `${what}\nis not what the document says: ${this.#ajv.errorsText(check.errors)}`,
    )
  }

  #compiled(schema: object): ValidateFunction {
    let check = this.#checks.get(schema)
    if (check === undefined) {
      const text = JSON.stringify(schema).replaceAll('"#/components/', '"document#/components/')
      check = this.#ajv.compile(JSON.parse(text) as object)
      this.#checks.set(schema, check)
    }
    return check
  }
}
