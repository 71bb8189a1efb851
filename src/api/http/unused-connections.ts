import type { Server } from 'node:http'
import type { Socket } from 'node:net'

/** Whoever is about to send the first request has so long. */
const graceMs = 1_000

/**
 * Browsers and load balancers open connections ahead of need. Node counts one on which nothing was
 * sent as a request that has begun, and so closing waits for it as for slow headers. The returned
 * function ends those that are still unused a moment after.
 */
export function closeUnused(server: Server): () => void {
  const sockets = new Set<Socket>()
  server.on('connection', (socket: Socket) => {
    sockets.add(socket)
    socket.once('close', () => sockets.delete(socket))
  })
  return () => {
    setTimeout(() => {
      for (const socket of sockets) if (socket.bytesRead === 0) socket.destroy()
    }, graceMs).unref()
  }
}
