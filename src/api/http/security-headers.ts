import plugin from 'fastify-plugin'
import type { ApiConfig, Server } from '#api/api-context.ts'

/** Data needs no script, style or frame; pages and files bring policies of their own. */
const dataPolicy = "default-src 'none'; frame-ancestors 'none'"

/** The security headers of a response that is data, in pairs. */
export function securityHeadersOf({ hstsS }: ApiConfig): string[] {
  return [
    'x-content-type-options',
    'nosniff',
    'content-security-policy',
    dataPolicy,
    'referrer-policy',
    'no-referrer',
    ...(hstsS > 0 ? ['strict-transport-security', `max-age=${hstsS}`] : []),
  ]
}

/** The headers that every response has, unless its route has set them. */
export const securityHeaders = plugin(
  async (server: Server) => {
    const { config, state } = server.api
    const headers = securityHeadersOf(config)
    server.addHook('onSend', (request, reply, payload, done) => {
      reply.header('x-request-id', request.id)
      for (let at = 0; at < headers.length; at += 2)
        if (!reply.hasHeader(headers[at]!)) reply.header(headers[at]!, headers[at + 1]!)
      if (state.draining) reply.header('connection', 'close')
      done(null, payload)
    })
  },
  { name: 'security-headers' },
)
