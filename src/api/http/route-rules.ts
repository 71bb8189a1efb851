import type { preValidationHookHandler, RouteOptions } from 'fastify'
import plugin from 'fastify-plugin'
import { allMethods } from '#api/api-context.ts'
import type { Server } from '#api/api-context.ts'
import { MethodNotAllowedError } from '#api/problems/errors.ts'
import { deadlineError } from '#api/problems/problem.ts'

/**
 * Every route names who may use it and documents itself; a route that does not stops the server.
 * Deadlines follow from what a route is.
 */
export const routeRules = plugin(
  async (server: Server) => {
    const { handlerTimeoutMs } = server.api.config
    server.addHook('onRoute', (route: RouteOptions) => {
      const methods = [route.method].flat()
      const known = server.routeMethods.get(route.url) ?? new Set()
      server.routeMethods.set(route.url, known)
      for (const method of methods) known.add(method)
      const isMadeHead = methods.length === 1 && methods[0] === 'HEAD'
      if (route.config?.generated === true || isMadeHead) return
      requireDocumented(route, methods)
      server.documented.push(route)
      setDeadline(route, methods, handlerTimeoutMs)
    })
  },
  { name: 'route-rules' },
)

function requireDocumented(route: RouteOptions, methods: readonly string[]): void {
  const name = `${methods.join(',')} ${route.url}`
  if (route.config?.access === undefined)
    throw new Error(`${name} does not say in config.access who may use it`)
  if (route.schema?.operationId === undefined || route.schema.response === undefined)
    throw new Error(`${name} has no operationId or no responses in its schema`)
}

/**
 * Reads of content wait for nothing but the database, whose every wait has a deadline: a second one
 * would cost more than the routing. Writes wait for their bodies too.
 */
function setDeadline(
  route: RouteOptions,
  methods: readonly string[],
  handlerTimeoutMs: number,
): void {
  const isRead = methods.every((method) => method === 'GET' || method === 'HEAD')
  if (route.config?.access !== 'content' || !isRead) route.handlerTimeout ??= handlerTimeoutMs
  if (!isRead && route.handlerTimeout !== undefined)
    route.preValidation = [
      respondWithin(route.handlerTimeout),
      ...[route.preValidation ?? []].flat(),
    ]
}

/**
 * Fastify forgets the deadline of a request with the last byte of its body; this one holds from
 * there on.
 */
function respondWithin(timeoutMs: number): preValidationHookHandler {
  return (_request, reply, done) => {
    const timer = setTimeout(() => {
      if (!reply.sent) void reply.send(deadlineError())
    }, timeoutMs)
    reply.raw.once('close', () => clearTimeout(timer))
    done()
  }
}

/** Registered last: the methods that a path lacks get 405, and OPTIONS names those that it has. */
export const otherMethods = plugin(
  async (server: Server) => {
    for (const [url, present] of server.routeMethods) {
      const allow = allMethods.filter((method) => present.has(method) || method === 'OPTIONS')
      server.route({
        method: allMethods.filter((method) => !present.has(method)),
        url,
        config: { generated: true },
        // Before the body is read: its kind does not matter.
        onRequest: (request, _reply, done) =>
          done(
            request.method === 'OPTIONS'
              ? undefined
              : new MethodNotAllowedError(request.method, allow),
          ),
        handler: (_request, reply) => reply.code(204).header('allow', allow.join(', ')).send(),
      })
    }
  },
  { name: 'other-methods' },
)
