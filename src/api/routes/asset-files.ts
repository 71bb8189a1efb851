import type { FastifyReply, FastifyRequest } from 'fastify'
import { Type } from 'typebox'
import { networkOf } from '#access/throttle.ts'
import type { RoutePlugin } from '#api/api-context.ts'
import { cachedRead } from '#api/delivery/cached-read.ts'
import { rangeOf } from '#api/delivery/byte-range.ts'
import { notModified } from '#api/delivery/entity-tag.ts'
import { RangeNotSatisfiableError } from '#api/problems/errors.ts'
import { idParam, strict } from '#api/schemas/shared.ts'
import { transferTimeoutMs } from '#api/http/upload-body.ts'
import { addVary } from '#api/delivery/vary.ts'
import { tagsOfResponse } from '#http-cache/tags.ts'
import type { Delivery, RenditionOptions } from '#media/media.ts'

/**
 * The bytes under an asset's URL never change; a crop does when its focal point moves, unless the
 * URL names the revision.
 */
const forEver = 'public, max-age=31536000, immutable'
const whileItHolds = 'public, max-age=60, stale-while-revalidate=86400'

/**
 * What downloads can run nothing, should a browser show it after all. A drawing keeps its own
 * styles in an <img>.
 */
const sandbox = "sandbox; default-src 'none'; style-src 'unsafe-inline'"
/**
 * Pictures, sound, film and PDF hold no script of ours; a stricter policy would stop the browser's
 * own players.
 */
const inlinePolicy = "script-src 'none'; frame-ancestors 'self'"

const query = strict({
  width: Type.Optional(
    Type.Integer({
      minimum: 1,
      maximum: 100_000,
      description: 'Raised to the next of a fixed set of widths; never larger than the original.',
    }),
  ),
  height: Type.Optional(Type.Integer({ minimum: 1, maximum: 100_000 })),
  fit: Type.Optional(
    Type.Union([Type.Literal('cover'), Type.Literal('contain')], {
      description: '`cover`, the default when both sides are given, crops around the focal point.',
    }),
  ),
  quality: Type.Optional(
    Type.Integer({
      minimum: 1,
      maximum: 100,
      description: 'Goes to the nearest of 50, 80 and 95.',
    }),
  ),
  format: Type.Optional(
    Type.Union(
      ['auto', 'avif', 'webp', 'jpeg', 'png'].map((format) => Type.Literal(format)),
      { description: '`auto`: the best that `Accept` names.' },
    ),
  ),
  v: Type.Optional(
    Type.Integer({
      minimum: 1,
      description: "The asset's revision: makes the URL of a crop one that never changes.",
    }),
  ),
})

const bytes = (description: string) => ({
  description,
  content: { '*/*': { schema: Type.String({ format: 'binary' }) } },
})

/** The files themselves, for everyone who knows the id: no session, no cookie, cached for ever. */
export const assetFileRoutes: RoutePlugin = (server, { media, httpCache }) => {
  // A HEAD of its own: the one that Fastify makes would say that the length is 0.
  for (const method of ['GET', 'HEAD'] as const)
    server.route({
      method,
      exposeHeadRoute: false,
      // Ends with the last byte of the file, not with the handler: a client with a slow line gets
      // all of it.
      handlerTimeout: transferTimeoutMs,
      url: '/assets/:id/:name',
      config: {
        access: 'public',
        ifNoneMatch: true,
        errors: [
          'E_RANGE',
          'E_RENDITION',
          'E_IMAGE_LIBRARY',
          'E_MEDIA_BUSY',
          'E_FILE_STORE_UNAVAILABLE',
        ],
      },
      schema: {
        operationId: 'getAssetFile',
        summary: 'The file of an asset, or a rendition of it',
        description:
          'The name is for people and decides nothing. With any of `width`, `height`, `fit`, ' +
          '`quality` and `format` it is a rendition.',
        tags: ['assets'],
        params: strict({ id: idParam(), name: Type.String({ maxLength: 1_000 }) }),
        querystring: query,
        response: {
          200: bytes('The file'),
          206: bytes('The range of it that was asked for'),
          304: Type.Null(),
        },
      },
      handler: async (request, reply) => {
        const { v, ...rest } = request.query
        // The schema lets only these values pass; Static cannot say so for a mapped union.
        const options = rest as RenditionOptions
        const isRendition = Object.keys(options).length > 0
        const id = request.params.id.toLowerCase()
        const asset = await cachedRead(request, reply, `asset ${id}`, (db, load) => {
          load.row('asset', id)
          return media.find(db, id)
        })
        const tags = tagsOfResponse([{ kind: 'row', collection: 'asset', key: id }])
        if (httpCache !== null && tags !== null) request.edge = httpCache.kept(tags)
        const reader = { accept: request.headers.accept ?? '', caller: networkOf(request.ip) }
        const delivery = isRendition
          ? await media.rendition(asset, options, reader)
          : media.original(asset)
        if (isRendition && (options.format ?? 'auto') === 'auto') addVary(reply, 'Accept')
        reply.header(
          'cache-control',
          delivery.revision === null || delivery.revision === v ? forEver : whileItHolds,
        )
        return sendDelivery(request, reply, delivery)
      },
    })
}

async function sendDelivery(
  request: FastifyRequest,
  reply: FastifyReply,
  delivery: Delivery,
): Promise<FastifyReply> {
  const isInline = delivery.disposition.startsWith('inline')
  reply.headers({
    etag: delivery.etag,
    'accept-ranges': 'bytes',
    'content-disposition': delivery.disposition,
    'content-security-policy': isInline ? inlinePolicy : sandbox,
    // Sites on other origins show these files; that is what they are for.
    'cross-origin-resource-policy': 'cross-origin',
  })
  if (notModified(request, delivery.etag)) return reply.code(304).send()
  const range = rangeFor(request, reply, delivery)
  reply.type(delivery.contentType)
  reply.header('content-length', range === null ? delivery.bytes : range.end - range.start + 1)
  if (range !== null)
    reply.code(206).header('content-range', `bytes ${range.start}-${range.end}/${delivery.bytes}`)
  if (request.method === 'HEAD') return reply.send()
  return reply.send(await delivery.open(range ?? undefined))
}

function rangeFor(
  request: FastifyRequest,
  reply: FastifyReply,
  delivery: Delivery,
): ReturnType<typeof rangeOf> {
  try {
    return request.method === 'GET' ? rangeOf(request, delivery.bytes, delivery.etag) : null
  } catch (error) {
    if (error instanceof RangeNotSatisfiableError)
      reply.header('content-range', `bytes */${delivery.bytes}`)
    throw error
  }
}
