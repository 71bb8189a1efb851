import type { FastifyRequest } from 'fastify'
import { isAnonymous } from '#api/http/identity.ts'

/** Whose share of bounded work a request counts against. */
export function callerOf(request: FastifyRequest): string {
  const { actor } = request.identity.authority
  return isAnonymous(request.identity) ? request.ip : `${actor.kind} ${actor.id ?? ''}`
}
