import type { FastifyRequest } from 'fastify'
import { networkOf } from '#access/throttle.ts'
import { isAnonymous } from '#api/http/identity.ts'

/** Returns the actor or network whose share of bounded work a request counts against. */
export function callerOf(request: FastifyRequest): string {
  const { actor } = request.identity.authority
  return isAnonymous(request.identity) ? networkOf(request.ip) : `${actor.kind} ${actor.id ?? ''}`
}
