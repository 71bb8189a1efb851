import { connect, createServer } from 'node:net'
import type { Socket } from 'node:net'

export type Proxy = AsyncDisposable & {
  readonly url: string
  /** The server's responses are lost, for good. */
  swallowResponses(): void
  /**
   * Nothing gets through in either direction, as when packets are dropped; what was sent arrives
   * after `heal`.
   */
  silence(): void
  /** Every connection breaks, and so does each new one. */
  refuse(): void
  /** Responses are late by so much. */
  delay(ms: number): void
  /** Every connection breaks, once; new ones work. */
  cut(): void
  heal(): void
}

/**
 * A network between node and server that can lose, hold up or delay what goes through it, and break
 * every connection.
 */
export async function startProxy(url: string): Promise<Proxy> {
  const target = new URL(url)
  const port = Number(target.port)
  const sockets = new Set<Socket>()
  let mode: 'open' | 'swallowing' | 'silent' | 'refusing' = 'open'
  let delayMs = 0
  const server = createServer((near) => {
    if (mode === 'refusing') return void near.resetAndDestroy()
    const far = connect(port, target.hostname)
    for (const socket of [near, far]) {
      sockets.add(socket)
      socket.setNoDelay(true)
      socket.on('error', () => undefined)
      socket.on('close', () => sockets.delete(socket))
      if (mode === 'silent') socket.pause()
    }
    const response = (data: Buffer): void => void (near.destroyed || near.write(data))
    near.on('data', (data) => far.write(data))
    far.on('data', (data) => {
      if (mode === 'swallowing') return
      if (delayMs === 0) response(data)
      else setTimeout(() => response(data), delayMs)
    })
    near.on('close', () => far.end())
    far.on('close', () => near.end())
    // Listening for data makes a socket flow.
    if (mode === 'silent') for (const socket of [near, far]) socket.pause()
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const address = server.address()
  target.port = String(typeof address === 'object' ? address?.port : 0)
  const cut = (): void => sockets.forEach((socket) => socket.destroy())
  const heal = (): void => {
    mode = 'open'
    delayMs = 0
    for (const socket of sockets) socket.resume()
  }
  return {
    url: target.toString(),
    swallowResponses: () => (mode = 'swallowing'),
    silence: () => {
      mode = 'silent'
      for (const socket of sockets) socket.pause()
    },
    refuse: () => {
      mode = 'refusing'
      for (const socket of sockets) socket.resetAndDestroy()
    },
    delay: (ms) => (delayMs = ms),
    heal,
    cut: () => {
      heal()
      cut()
    },
    [Symbol.asyncDispose]: async () => {
      cut()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}
