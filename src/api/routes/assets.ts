import multipart from '@fastify/multipart'
import { assetUrl } from '#api/delivery/asset-url.ts'
import type { Multipart, MultipartFile } from '@fastify/multipart'
import type { FastifyRequest } from 'fastify'
import { Type } from 'typebox'
import type { ApiContext, RoutePlugin, Server } from '#api/api-context.ts'
import { audited } from '#api/writes/audited.ts'
import { expectedRevisions, versionTag } from '#api/delivery/entity-tag.ts'
import {
  MediaTypeUnsupportedError,
  RequestInvalidError,
  RequestMalformedError,
} from '#api/problems/errors.ts'
import { write } from '#api/writes/idempotency.ts'
import {
  dataOf,
  idParam,
  nullable,
  pageOf,
  pageQuery,
  strict,
  text,
  timestamp,
} from '#api/schemas/shared.ts'
import { requireStillAllowed } from '#api/http/identity.ts'
import { transferTimeoutMs, withUploadBody } from '#api/http/upload-body.ts'
import type { Queryable } from '#database/database.ts'
import type { Actor } from '#lib/actor.ts'
import { StoaError } from '#lib/stoa-error.ts'
import { checkAlt } from '#media/alt.ts'
import { AssetInUseError, UploadTooLargeError } from '#media/errors.ts'
import type { Alt, Asset, Media, Received } from '#media/media.ts'

/** Files of one request. More are more requests. */
const filesMax = 100
const altBytesMax = 256 * 1024

const alt = () =>
  Type.Record(Type.String(), text(2_000), {
    description: 'By locale. Empty: the image is decoration.',
  })
const focalPoint = () =>
  nullable(
    strict({
      x: Type.Number({ minimum: 0, maximum: 1 }),
      y: Type.Number({ minimum: 0, maximum: 1 }),
    }),
  )

const assetSchema = strict(
  {
    id: Type.String({ format: 'uuid' }),
    name: Type.String(),
    contentType: Type.String({ description: 'Found from the bytes.' }),
    bytes: Type.Integer(),
    blob: Type.String({ pattern: '^[0-9a-f]{64}$', description: 'SHA-256 of the bytes.' }),
    width: nullable(Type.Integer()),
    height: nullable(Type.Integer()),
    alt: alt(),
    focalPoint: focalPoint(),
    createdAt: timestamp(),
    createdBy: strict({ kind: Type.String(), id: nullable(Type.String()), name: Type.String() }),
    revision: Type.Integer(),
    url: Type.String({
      description:
        'Where the file is, for everyone. Takes `width`, `height`, `fit`, `quality`, `format`.',
    }),
  },
  { $id: 'Asset' },
)

const reading = { permission: 'assets.read' } as const
const writing = { permission: 'assets.write' } as const
const uploadErrors = [
  'E_IMAGE_LIBRARY',
  'E_MEDIA_BUSY',
  'E_UPLOAD_TOO_LARGE',
  'E_UPLOAD_REFUSED',
  'E_ASSET_INPUT',
  'E_FILE_STORE_UNAVAILABLE',
] as const

/** An asset as the API shows it. */
export function assetJson(asset: Asset): Asset & { readonly url: string } {
  return { ...asset, url: assetUrl(asset) }
}

const id = { params: strict({ id: idParam() }), querystring: strict({}) }

export const assetRoutes: RoutePlugin = async (server, context) => {
  readRoutes(server, context)
  changeRoutes(server, context)
  await formRoute(server, context)
}

function readRoutes(server: Server, { media, config }: ApiContext): void {
  server.route({
    method: 'GET',
    url: '/api/assets',
    config: { access: reading, errors: ['E_ASSET_INPUT'] },
    schema: {
      operationId: 'listAssets',
      summary: 'Assets, newest first',
      tags: ['assets'],
      querystring: strict({
        ...pageQuery(config.pageSizeMax),
        search: Type.Optional(
          Type.String({ maxLength: 200, description: 'Part of a name or of an alternative text.' }),
        ),
      }),
      response: { 200: pageOf(assetSchema) },
    },
    handler: async (request, reply) => {
      const { limit = 20, after = null, search = null } = request.query
      const page = await media.list({ limit, after, search })
      return reply
        .header('cache-control', 'private, no-cache')
        .send({ data: page.data.map(assetJson), meta: { after: page.after } })
    },
  })
  server.route({
    method: 'GET',
    url: '/api/assets/:id',
    config: { access: reading },
    schema: {
      operationId: 'getAsset',
      summary: 'One asset',
      tags: ['assets'],
      ...id,
      response: { 200: dataOf(assetSchema) },
    },
    handler: async (request, reply) => {
      const asset = await media.get(request.params.id)
      return reply
        .headers({ etag: versionTag(asset.revision), 'cache-control': 'private, no-cache' })
        .send({ data: assetJson(asset) })
    },
  })
}

function changeRoutes(server: Server, { content, media }: ApiContext): void {
  server.route({
    method: 'PATCH',
    url: '/api/assets/:id',
    config: { access: writing, ifMatch: true, errors: ['E_ASSET_INPUT'] },
    schema: {
      operationId: 'updateAsset',
      summary: 'Change name, alternative texts or focal point',
      tags: ['assets'],
      ...id,
      body: strict(
        {
          name: Type.Optional(text(1_000, 1)),
          alt: Type.Optional(alt()),
          focalPoint: Type.Optional(focalPoint()),
        },
        { $id: 'AssetChange' },
      ),
      response: { 200: dataOf(assetSchema) },
    },
    handler: (request, reply) =>
      write(request, reply, async (db) => {
        const asset = await media.update(
          db,
          request.params.id,
          request.body,
          expectedRevisions(request),
        )
        return {
          status: 200,
          headers: { etag: versionTag(asset.revision) },
          body: { data: assetJson(asset) },
        }
      }),
  })
  server.route({
    method: 'DELETE',
    url: '/api/assets/:id',
    config: { access: writing, ifMatch: true, errors: ['E_ASSET_IN_USE', 'E_DELETE_TOO_WIDE'] },
    schema: {
      operationId: 'deleteAsset',
      summary:
        'Delete an asset; fields that say `unset` let go of it, any other reference stops it',
      tags: ['assets'],
      ...id,
      response: { 204: Type.Null() },
    },
    handler: (request, reply) =>
      write(request, reply, async (db) => {
        await removeAsset({ content, media }, request, db, request.params.id)
        return { status: 204 }
      }),
  })
}

async function formRoute(server: Server, { media, config }: ApiContext): Promise<void> {
  await server.register(async (scope) => {
    await scope.register(multipart, {
      throwFileSizeLimit: false,
      limits: {
        files: filesMax,
        fields: filesMax,
        fieldSize: altBytesMax,
        fileSize: Number.MAX_SAFE_INTEGER,
      },
    })
    uploadRoute(scope, media, config.uploadBytesMax)
  })
}

async function removeAsset(
  { content, media }: Pick<ApiContext, 'content' | 'media'>,
  request: FastifyRequest,
  db: Queryable,
  id: string,
): Promise<void> {
  const { authority } = request.identity
  const remove = async (tx: Queryable): Promise<void> => {
    await content.entries.takeOutAsset({ db: tx, authority }, id)
    await media.delete(tx, id, expectedRevisions(request))
  }
  try {
    await audited(request, db, remove, () => ({
      action: 'asset.delete',
      subject: `asset:${id}`,
      facts: {},
    }))
  } catch (error) {
    if (!(error instanceof AssetInUseError)) throw error
    const referrers = await content.entries.readableAmong({ db, authority }, id, error.referrers)
    const { size } = new Set(referrers.map((referrer) => referrer.entry))
    throw new AssetInUseError(error.asset, size, referrers)
  }
}

function uploadRoute(server: Server, media: Media, bytesMax: number): void {
  const form = Type.Object(
    {
      file: Type.Unsafe<unknown>({
        anyOf: [
          { type: 'string', format: 'binary' },
          { type: 'array', items: { type: 'string', format: 'binary' } },
        ],
      }),
      alt: Type.Optional(
        Type.String({ description: 'JSON: alternative texts by locale, for the files after it.' }),
      ),
    },
    { additionalProperties: false },
  )
  server.route({
    method: 'POST',
    url: '/api/assets',
    handlerTimeout: transferTimeoutMs,
    config: { access: writing, errors: uploadErrors },
    schema: {
      operationId: 'uploadAssets',
      summary: 'Upload one or several files',
      description:
        'All become assets, or none. Large files are better sent to `/api/uploads`, which can ' +
        'be resumed.',
      tags: ['assets'],
      querystring: strict({}),
      documented: { body: { content: { 'multipart/form-data': { schema: form } } } },
      response: { 201: dataOf(Type.Array(assetSchema)) },
    },
    handler: async (request, reply) => {
      if (!request.isMultipart())
        throw new MediaTypeUnsupportedError('Send multipart/form-data with a file.')
      const files = await withUploadBody(request, () => receiveFiles(request, media, bytesMax))
      const fingerprint = JSON.stringify(
        files.map(({ received, alt }) => [received.name, received.blob, alt]),
      )
      const work = async (db: Parameters<Media['create']>[0]) => {
        const assets = await db.transaction(async (tx) => {
          const made: Asset[] = []
          for (const { received, alt } of files)
            made.push(await media.create(tx, request.identity.authority.actor, received, alt))
          return made
        })
        return {
          status: 201,
          headers: assets.length === 1 ? { location: `/api/assets/${assets[0]!.id}` } : {},
          body: { data: assets.map(assetJson) },
        }
      }
      return write(request, reply, work, fingerprint)
    },
  })
}

type ReceivedFile = { readonly received: Received; readonly alt: Alt }

/** All files of the form, or none: after a failure nothing of them stays. */
async function receiveFiles(
  request: FastifyRequest,
  media: Media,
  bytesMax: number,
): Promise<ReceivedFile[]> {
  const files: ReceivedFile[] = []
  try {
    await readForm(request, media, { files, bytesMax })
    await requireStillAllowed(request)
    return files
  } catch (error) {
    for (const { received } of files) await media.discard(received)
    throw error
  }
}

async function readForm(
  request: FastifyRequest,
  media: Media,
  { files, bytesMax }: { readonly files: ReceivedFile[]; readonly bytesMax: number },
): Promise<void> {
  let alt: Alt = {}
  let forNothing = false
  let bytes = 0
  for await (const part of wellFormed(request.parts())) {
    if (part.type === 'file') {
      const { actor } = request.identity.authority
      files.push({ received: await receiveFile(part, media, actor), alt })
      bytes += files.at(-1)!.received.bytes
      if (bytes > bytesMax) throw new UploadTooLargeError(bytesMax)
      forNothing = false
    } else if (part.fieldname === 'alt') {
      alt = parseAlt(part.value)
      forNothing = true
    } else
      throw new RequestInvalidError({
        in: 'body',
        path: `/${part.fieldname.slice(0, 100)}`,
        message: 'is not known here',
      })
  }
  if (files.length === 0)
    throw new RequestInvalidError({ in: 'body', path: '/file', message: 'is missing' })
  if (forNothing)
    throw new RequestInvalidError({
      in: 'body',
      path: '/alt',
      message: 'has to come before the file that it is for',
    })
}

const malformed = (cause: unknown): RequestMalformedError =>
  new RequestMalformedError(
    'The body is not well-formed multipart/form-data, or ended too early.',
    {},
    { cause },
  )

/**
 * The parser's complaints are plain errors; those with a code of Fastify's are known to the problem
 * documents.
 */
async function* wellFormed(parts: AsyncIterable<Multipart>): AsyncIterable<Multipart> {
  const iterator = parts[Symbol.asyncIterator]()
  for (;;) {
    const next = await iterator.next().catch((error: unknown) => {
      throw error instanceof Error && String((error as { code?: unknown }).code).startsWith('FST_')
        ? error
        : malformed(error)
    })
    if (next.done === true) return
    yield next.value
  }
}

async function receiveFile(part: MultipartFile, media: Media, actor: Actor): Promise<Received> {
  try {
    return await media.receive(actor, { name: part.filename ?? '', source: part.file })
  } catch (error) {
    // The parser breaks the file's stream where the form ends too early.
    throw error instanceof StoaError || part.file.errored === null ? error : malformed(error)
  }
}

function parseAlt(value: unknown): Alt {
  const wrong = new RequestInvalidError({
    in: 'body',
    path: '/alt',
    message: 'must be a JSON object of texts by locale',
  })
  let parsed: unknown = value
  try {
    if (typeof value === 'string') parsed = JSON.parse(value)
  } catch {
    throw wrong
  }
  if (typeof parsed !== 'object' || parsed === null || Array.isArray(parsed)) throw wrong
  return checkAlt(parsed as Alt)
}
