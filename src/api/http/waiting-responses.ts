import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Socket } from 'node:net'

/** The answers that wait behind another one on their connection. */
const waiting = new WeakMap<Socket, Set<ServerResponse>>()

/**
 * To be called with each request as it comes. Of several that a client sends at once, only the
 * first answer has the connection. When that ends by a CONNECT, Node forgets to tell the others:
 * whoever waits for their `close`, to close a file or to free a place, would wait for ever. So they
 * are told here.
 */
export function tellWhenClosed({ socket }: IncomingMessage, response: ServerResponse): void {
  if (response.socket !== null) return
  const answers = waiting.get(socket) ?? watched(socket)
  answers.add(response)
  response.once('close', () => answers.delete(response))
}

function watched(socket: Socket): Set<ServerResponse> {
  const answers = new Set<ServerResponse>()
  waiting.set(socket, answers)
  socket.once('close', () => {
    // One that has got the connection meanwhile is told by Node.
    for (const response of answers) if (response.socket === null) response.destroy()
  })
  return answers
}
