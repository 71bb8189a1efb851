import { createServer, request } from 'node:http'

/**
 * `reset`: the connection breaks before the request is sent on. `lost`: the request takes effect,
 * and the connection breaks instead of a response. `error`: status 500. `slow`: 2 s late.
 */
export type HttpFault = 'reset' | 'lost' | 'error' | 'slow'

export type FaultProxy = AsyncDisposable & {
  readonly url: string
  /** Requests since the last `failFrom` or `heal`. */
  readonly requests: number
  /** From this request on, counted from 1, each one fails in that way. */
  failFrom(request: number, fault: HttpFault): void
  heal(): void
}

const slowMs = 2_000

/** An HTTP proxy in front of a server, whose requests fail from a certain one on. */
export async function startFaultProxy(target: string): Promise<FaultProxy> {
  const { hostname, port } = new URL(target)
  let requests = 0
  let failing: { readonly from: number; readonly fault: HttpFault } | null = null
  const server = createServer((near, response) => {
    requests += 1
    const fault = failing !== null && requests >= failing.from ? failing.fault : null
    near.on('error', () => undefined)
    if (fault === 'reset') return void near.socket.resetAndDestroy()
    if (fault === 'error') {
      near.resume()
      return void response.writeHead(500).end()
    }
    const { method, url, headers } = near
    const far = request({ hostname, port, method, path: url, headers }, (reply) => {
      if (fault === 'lost') {
        reply.resume()
        return void near.socket.resetAndDestroy()
      }
      const send = (): void => {
        response.writeHead(reply.statusCode ?? 500, reply.headers)
        reply.pipe(response)
      }
      if (fault === 'slow') setTimeout(send, slowMs)
      else send()
    })
    far.on('error', () => near.socket.destroy())
    near.pipe(far)
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const address = server.address()
  return {
    url: `http://127.0.0.1:${typeof address === 'object' ? address?.port : 0}`,
    get requests() {
      return requests
    },
    failFrom: (from, fault) => {
      requests = 0
      failing = { from, fault }
    },
    heal: () => {
      requests = 0
      failing = null
    },
    [Symbol.asyncDispose]: async () => {
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}
