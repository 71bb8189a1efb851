import { createServer } from 'node:http'
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { originEpoch } from '#http-cache/contract.ts'
import type { OriginResponse, TestOrigin } from '#http-cache/contract.ts'
import type { HttpCache } from '#http-cache/http-cache.ts'

/**
 * A server in the place of the nodes, behind the HTTP cache of a test: it says what a node says of
 * its responses, and lets the test hold a response back at each of its phases.
 */
export class EdgeOrigin implements AsyncDisposable, TestOrigin {
  readonly #server = createServer((request, response) => void this.#respond(request, response))
  readonly responses = new Map<string, () => OriginResponse>()
  /** The paths that were asked for, and the headers of each request. */
  readonly requests: { readonly path: string; readonly headers: IncomingMessage['headers'] }[] = []
  cache: HttpCache | null = null
  down = false

  async listen(): Promise<this> {
    await new Promise<void>((resolve) => this.#server.listen(0, '127.0.0.1', resolve))
    return this
  }

  get host(): string {
    return `127.0.0.1:${(this.#server.address() as AddressInfo).port}`
  }

  asked(path: string): number {
    return this.requests.filter((request) => request.path === path).length
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.closeAllConnections()
    await new Promise((resolve) => this.#server.close(resolve))
  }

  async #respond(request: IncomingMessage, response: ServerResponse): Promise<void> {
    if (this.down) {
      request.socket.destroy()
      return
    }
    const path = request.url ?? ''
    if (path === '/healthz/ready') {
      response.end()
      return
    }
    this.requests.push({ path, headers: request.headers })
    const found = this.responses.get(path)?.()
    if (found === undefined) {
      response.writeHead(404).end()
      return
    }
    await found.beforeHeaders
    response.writeHead(found.status ?? 200, this.#headersOf(found))
    if (found.beforeBody !== undefined) {
      response.flushHeaders()
      await found.beforeBody
    }
    const half = found.body.length >> 1
    response.write(found.body.slice(0, half))
    await found.beforeEnd
    response.end(found.body.slice(half))
  }

  #headersOf({ tags, count, epoch = originEpoch, headers }: OriginResponse): string[] {
    const edge = tags === null ? this.cache?.notKept : this.cache?.kept(tags)
    return [
      'cache-control',
      'public, max-age=0, s-maxage=1',
      'vary',
      'Authorization, Cookie, Stoa-Token',
      'stoa-as-of',
      `${epoch} ${count} ${count}`,
      ...(edge ?? []),
      ...Object.entries(headers ?? {}).flat(),
    ]
  }
}
