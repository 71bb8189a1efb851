import { connect, createServer } from 'node:net'
import type { Socket } from 'node:net'

export type Proxy = AsyncDisposable & { readonly url: string; swallowAnswers(): void; heal(): void; cut(): void }

/** A network between node and server that can lose what the server answers, and every connection. */
export async function startProxy(url: string): Promise<Proxy> {
  const target = new URL(url)
  const port = Number(target.port)
  const sockets = new Set<Socket>()
  let swallowing = false
  const server = createServer((near) => {
    const far = connect(port, target.hostname)
    for (const socket of [near, far]) {
      sockets.add(socket)
      socket.on('error', () => undefined)
      socket.on('close', () => sockets.delete(socket))
    }
    near.on('data', (data) => far.write(data))
    far.on('data', (data) => void (swallowing || near.write(data)))
    near.on('close', () => far.end())
    far.on('close', () => near.end())
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const address = server.address()
  target.port = String(typeof address === 'object' ? address?.port : 0)
  const cut = (): void => sockets.forEach((socket) => socket.destroy())
  return {
    url: target.toString(),
    swallowAnswers: () => (swallowing = true),
    heal: () => (swallowing = false),
    cut: () => {
      swallowing = false
      cut()
    },
    [Symbol.asyncDispose]: async () => {
      cut()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}
