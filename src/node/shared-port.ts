import type { Socket } from 'node:net'
import type { Server } from '#api/api-context.ts'

export type SharedPort = {
  /** From now on only those connections come that no other process can have. */
  leave(): void
  /** No connection comes this way any more; those that are there go on. */
  stopAccepting(): void
  /** When all of them have ended, after `stopAccepting`. */
  readonly ended: Promise<void>
}

/**
 * How often a node reports that it is alive: so its supervisor can distinguish one that takes long
 * to start, as with a migration, from one that hangs.
 */
export const aliveEveryMs = 1_000

/**
 * Between a supervisor and its nodes: connections go down, and the word on each comes back, so that
 * none is lost with a node that dies before it took it.
 */
export type DownMessage = { readonly kind: 'connection'; readonly id: number }
export type UpMessage =
  | { readonly kind: 'open' | 'leaving' | 'closed' }
  | { readonly kind: 'took' | 'refused'; readonly id: number }

/** Serves the connections that the supervisor hands down to this process, from now on. */
export function takeConnections(server: Server): SharedPort {
  const { promise: ended, resolve: end } = Promise.withResolvers<void>()
  const sockets = new Set<Socket>()
  let open = true
  const send = (message: UpMessage, then: () => void = () => undefined): void => {
    if (process.connected) process.send?.(message, undefined, undefined, then)
  }
  const onMessage = (message: DownMessage, socket: Socket | undefined): void => {
    if (message.kind !== 'connection') return
    if (!open) {
      send({ kind: 'refused', id: message.id })
      socket?.destroy()
      return
    }
    // Sent before anything is read: no other node could serve what was read here.
    send({ kind: 'took', id: message.id }, () => {
      // The client may have left on the way.
      if (socket === undefined || socket.destroyed) return
      sockets.add(socket)
      socket.once('close', () => {
        sockets.delete(socket)
        if (!open && sockets.size === 0) end()
      })
      server.server.emit('connection', socket)
      socket.resume()
    })
  }
  process.on('message', onMessage)
  send({ kind: 'open' })
  return {
    ended,
    leave: () => send({ kind: 'leaving' }),
    stopAccepting: () => {
      if (!open) return
      open = false
      send({ kind: 'closed' })
      if (sockets.size === 0) end()
    },
  }
}
