import type { FastifyReply, FastifyRequest } from 'fastify'
import { Type } from 'typebox'
import type { RoutePlugin, Server } from '#api/api-context.ts'
import {
  MediaTypeUnsupportedError,
  RequestInvalidError,
  TusVersionError,
} from '#api/problems/errors.ts'
import { idParam, strict } from '#api/schemas/shared.ts'
import { requireStillAllowed } from '#api/http/identity.ts'
import {
  bodyStream,
  transferTimeoutMs,
  withoutIdleLimit,
  withUploadBody,
} from '#api/http/upload-body.ts'
import { checksumAlgorithms } from '#media/media.ts'
import type { Alt, Checksum, Media, UploadState } from '#media/media.ts'

/** tus resumable upload protocol, https://tus.io/protocols/resumable-upload */
const tusVersion = '1.0.0'
const extensions = 'creation,creation-with-upload,expiration,termination,checksum'
const bodyType = 'application/offset+octet-stream'
const metadataLengthMax = 8_192

const writing = { permission: 'assets.write' } as const
const errors = [
  'E_TUS_VERSION',
  'E_UPLOAD_OFFSET',
  'E_UPLOAD_CHECKSUM',
  'E_UPLOAD_TOO_LARGE',
  'E_UPLOAD_REFUSED',
  'E_ASSET_INPUT',
  'E_IMAGE_LIBRARY',
  'E_MEDIA_BUSY',
  'E_FILE_STORE_UNAVAILABLE',
] as const
const header = (description: string) => Type.Optional(Type.String({ description }))
const tusHeaders = { 'tus-resumable': header('`1.0.0`') }
const params = strict({ id: idParam() })
const querystring = strict({})
const octets = { body: { content: { [bodyType]: { schema: Type.String({ format: 'binary' }) } } } }

/**
 * Resumable uploads by tus 1.0: any tus client speaks to these routes. The asset made by the last
 * byte is named in `Stoa-Asset`. An upload may be continued on any node, because its parts are in
 * the file store of all.
 */
export const uploadRoutes: RoutePlugin = async (server, { media, config }) => {
  await server.register(async (scope) => {
    const routes = scope as unknown as Server
    // Passed on as the stream it is.
    routes.addContentTypeParser(bodyType, (_request, _payload, done) => done(null, undefined))
    routes.addHook('onRequest', async (request, reply) => {
      reply.headers({ 'tus-resumable': tusVersion, 'cache-control': 'no-store' })
      if (request.method === 'OPTIONS' || request.routeOptions.config.generated === true) return
      if (request.headers['tus-resumable'] !== tusVersion) {
        reply.header('tus-version', tusVersion)
        throw new TusVersionError(tusVersion)
      }
    })
    optionsRoute(routes, config.uploadBytesMax)
    createRoute(routes, media)
    oneUploadRoutes(routes, media)
  })
}

function optionsRoute(server: Server, uploadBytesMax: number): void {
  server.route({
    method: 'OPTIONS',
    url: '/api/uploads',
    config: { access: 'public', idempotent: false },
    schema: {
      operationId: 'getUploadOptions',
      summary: 'What this tus server can do',
      tags: ['uploads'],
      response: { 204: Type.Null() },
    },
    handler: async (_request, reply) =>
      reply
        .code(204)
        .headers({
          allow: 'POST, OPTIONS',
          'tus-version': tusVersion,
          'tus-extension': extensions,
          'tus-max-size': String(uploadBytesMax),
          'tus-checksum-algorithm': checksumAlgorithms.join(','),
        })
        .send(),
  })
}

function createRoute(server: Server, media: Media): void {
  server.route({
    method: 'POST',
    url: '/api/uploads',
    handlerTimeout: transferTimeoutMs,
    config: { access: writing, idempotent: false, errors },
    schema: {
      operationId: 'createUpload',
      summary: 'Begin a resumable upload (tus 1.0)',
      description:
        '`Upload-Metadata` may have `filename`, and `alt`: JSON, alternative texts by locale. ' +
        'A body, if any, is the first of the bytes.',
      tags: ['uploads'],
      querystring,
      headers: Type.Object({
        ...tusHeaders,
        'upload-length': header('Bytes in all'),
        'upload-metadata': header('Pairs of a key and a Base64 value, comma-separated'),
      }),
      response: { 201: { description: 'Begun; `Location` says where it goes on', type: 'null' } },
    },
    handler: async (request, reply) => {
      const bytes = countOf(request, 'upload-length')
      const metadata = metadataOf(request)
      const { actor } = request.identity.authority
      const upload = await media.uploads.create(actor, {
        name: metadata.get('filename') ?? metadata.get('name') ?? '',
        bytes,
        alt: altOf(metadata.get('alt')),
      })
      reply.header('location', `/api/uploads/${upload.id}`)
      const begun = hasBody(request) ? await append(request, media, upload.id, 0) : upload
      return response(reply, 201, begun)
    },
  })
}

function oneUploadRoutes(server: Server, media: Media): void {
  stateRoutes(server, media)
  continueRoute(server, media)
}

function stateRoutes(server: Server, media: Media): void {
  server.route({
    method: 'HEAD',
    url: '/api/uploads/:id',
    // Where the node of an upload died before the asset was made, this makes it.
    handlerTimeout: transferTimeoutMs,
    config: { access: writing },
    schema: {
      operationId: 'getUpload',
      summary: 'How much of an upload is here',
      tags: ['uploads'],
      params,
      querystring,
      response: { 200: Type.Null() },
    },
    handler: async (request, reply) => {
      withoutIdleLimit(request)
      const upload = await media.uploads.status(request.identity.authority.actor, request.params.id)
      return response(reply.header('upload-length', String(upload.bytes)), 200, upload)
    },
  })
}

function continueRoute(server: Server, media: Media): void {
  server.route({
    method: 'PATCH',
    url: '/api/uploads/:id',
    handlerTimeout: transferTimeoutMs,
    config: { access: writing, idempotent: false, errors },
    schema: {
      operationId: 'continueUpload',
      summary: 'Send the next bytes of an upload',
      description:
        'What arrives is kept, also when the connection breaks. With `Upload-Checksum` it is ' +
        'all or nothing.',
      tags: ['uploads'],
      params,
      querystring,
      headers: Type.Object({
        ...tusHeaders,
        'upload-offset': header('Where these bytes begin'),
        'upload-checksum': header(`${checksumAlgorithms.join(', ')}; then the digest in Base64`),
      }),
      documented: octets,
      response: { 204: Type.Null() },
    },
    handler: async (request, reply) => {
      if (!(request.headers['content-type'] ?? '').startsWith(bodyType))
        throw new MediaTypeUnsupportedError(`Send ${bodyType}.`)
      return response(
        reply,
        204,
        await append(request, media, request.params.id, countOf(request, 'upload-offset')),
      )
    },
  })
  server.route({
    method: 'DELETE',
    url: '/api/uploads/:id',
    config: { access: writing, idempotent: false, errors: ['E_TUS_VERSION'] },
    schema: {
      operationId: 'endUpload',
      summary: 'Give up an upload, and what is here of it',
      tags: ['uploads'],
      params,
      querystring,
      headers: Type.Object(tusHeaders),
      response: { 204: Type.Null() },
    },
    handler: async (request, reply) => {
      await media.uploads.terminate(request.identity.authority.actor, request.params.id)
      return reply.code(204).send()
    },
  })
}

async function append(
  request: FastifyRequest,
  media: Media,
  id: string,
  offset: number,
): Promise<UploadState> {
  const checksum = checksumOf(request)
  return withUploadBody(request, () =>
    media.uploads.append(request.identity.authority.actor, id, {
      offset,
      source: bodyStream(request),
      checksum,
      confirm: () => requireStillAllowed(request),
    }),
  )
}

function response(reply: FastifyReply, status: number, upload: UploadState): FastifyReply {
  reply.headers({
    'upload-offset': String(upload.received),
    'upload-expires': new Date(upload.expiresAt).toUTCString(),
  })
  if (upload.assetId !== null) reply.header('stoa-asset', upload.assetId)
  return reply.code(status).send()
}

function hasBody(request: FastifyRequest): boolean {
  const type = request.headers['content-type']
  if (type === undefined) return false
  if (!type.startsWith(bodyType))
    throw new MediaTypeUnsupportedError(`Send ${bodyType}, or nothing.`)
  return request.headers['content-length'] !== '0'
}

function fault(name: string, message: string): RequestInvalidError {
  return new RequestInvalidError({ in: 'headers', path: `/${name}`, message })
}

function countOf(request: FastifyRequest, name: 'upload-length' | 'upload-offset'): number {
  const value = request.headers[name]
  if (typeof value !== 'string' || !/^\d{1,15}$/.test(value))
    throw fault(name, 'must be a number of bytes')
  return Number(value)
}

function metadataOf(request: FastifyRequest): ReadonlyMap<string, string> {
  const value = request.headers['upload-metadata'] ?? ''
  if (typeof value !== 'string' || value.length > metadataLengthMax)
    throw fault('upload-metadata', `must have at most ${metadataLengthMax} characters`)
  const pairs = value.split(',').map((pair) => pair.trim().split(' '))
  return new Map(
    pairs
      .filter(([key]) => key !== '')
      .map(([key = '', text = '']) => [key, Buffer.from(text, 'base64').toString('utf8')]),
  )
}

function altOf(text: string | undefined): Alt {
  if (text === undefined) return {}
  try {
    const alt: unknown = JSON.parse(text)
    if (typeof alt === 'object' && alt !== null && !Array.isArray(alt)) return alt as Alt
  } catch {
    // Said below, as for any other value that is no object.
  }
  throw fault('upload-metadata', 'has an alt that is not a JSON object of texts by locale')
}

function checksumOf(request: FastifyRequest): Checksum | null {
  const value = request.headers['upload-checksum']
  if (value === undefined) return null
  const [name = '', digest = ''] = String(value).trim().split(' ')
  const algorithm = checksumAlgorithms.find((known) => known === name)
  if (algorithm === undefined || digest === '')
    throw fault(
      'upload-checksum',
      `must be one of ${checksumAlgorithms.join(', ')} and a digest in Base64`,
    )
  return { algorithm, digest: Buffer.from(digest, 'base64') }
}
