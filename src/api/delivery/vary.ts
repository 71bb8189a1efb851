import type { FastifyReply } from 'fastify'

/** Adds a name to `Vary`, once. */
export function addVary(reply: FastifyReply, name: string): void {
  const before = reply.getHeader('vary')
  if (before === undefined) reply.header('vary', name)
  else if (!String(before).toLowerCase().includes(name.toLowerCase()))
    reply.header('vary', `${String(before)}, ${name}`)
}
