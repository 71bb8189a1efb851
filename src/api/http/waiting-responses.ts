import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Socket } from 'node:net'

/** The responses that wait behind another one on their connection. */
const waiting = new WeakMap<Socket, Set<ServerResponse>>()

/**
 * To be called with each request as it comes. Of several that a client sends at once, only the
 * first response has the connection. When that ends by a CONNECT, Node forgets to tell the others:
 * whoever waits for their `close`, to close a file or to free a place, would wait for ever. So they
 * are told here.
 */
export function announceClose({ socket }: IncomingMessage, response: ServerResponse): void {
  if (response.socket !== null) return
  const responses = waiting.get(socket) ?? watched(socket)
  responses.add(response)
  response.once('close', () => responses.delete(response))
}

function watched(socket: Socket): Set<ServerResponse> {
  const responses = new Set<ServerResponse>()
  waiting.set(socket, responses)
  socket.once('close', () => {
    // One that has got the connection meanwhile is told by Node.
    for (const response of responses) if (response.socket === null) response.destroy()
  })
  return responses
}
