import plugin from 'fastify-plugin'
import type { Server } from '#api/api-context.ts'
import { parseJson } from '#api/http/json-body.ts'
import { MediaTypeUnsupportedError } from '#api/problems/errors.ts'

/**
 * Reads bodies of `application/json`; every other media type is refused unless a route reads it.
 */
export const jsonBodies = plugin(
  async (server: Server) => {
    const { jsonDepthMax } = server.api.config
    server.removeAllContentTypeParsers()
    server.addContentTypeParser(
      'application/json',
      { parseAs: 'buffer' },
      (request, bytes, done) => {
        const type = request.headers['content-type'] ?? ''
        const charset = /charset\s*=\s*"?([^\s";]+)/i.exec(type)?.[1]
        if (charset !== undefined && charset.toLowerCase() !== 'utf-8') {
          done(new MediaTypeUnsupportedError('Send JSON in UTF-8.'))
          return
        }
        try {
          done(null, bytes.length === 0 ? undefined : parseJson(bytes as Buffer, jsonDepthMax))
        } catch (error) {
          done(error as Error)
        }
      },
    )
  },
  { name: 'json-bodies' },
)
