import { brotliCompress, constants, gzip, zstdCompress } from 'node:zlib'
import type { FastifyReply, FastifyRequest } from 'fastify'
import plugin from 'fastify-plugin'
import type { Server } from '#api/api-context.ts'
import { weakTag } from '#api/delivery/entity-tag.ts'
import { addVary } from '#api/delivery/vary.ts'
import { memoizeBounded } from '#lib/memoize-bounded.ts'

/** Below this the headers and the work cost more than the bytes saved. */
const bytesMin = 1_024
/** Different `Accept-Encoding` texts remembered; there are a few dozen in the wild. */
const choicesMax = 100
const compressible =
  /^(?:text\/|application\/(?:[\w.-]+\+)?(?:json|xml|javascript)\b|image\/svg\+xml)/

export type Encoding = 'zstd' | 'br' | 'gzip'
/**
 * The order among encodings of equal weight: zstd is the fastest, br the smallest of the others.
 */
const preference: readonly Encoding[] = ['zstd', 'br', 'gzip']

type Done = (error: Error | null, payload?: unknown) => void

const brotliQuality = { params: { [constants.BROTLI_PARAM_QUALITY]: 4 } }
const compressors: Readonly<Record<Encoding, (bytes: string | Buffer, done: Done) => void>> = {
  zstd: zstdCompress,
  br: (bytes, done) => brotliCompress(bytes, brotliQuality, done),
  gzip,
}

/** The best encoding that `Accept-Encoding` allows (RFC 9110 §12.5.3); null: as it is. */
export function chooseEncoding(accept: string | undefined): Encoding | null {
  return accept === undefined ? null : chosen(accept)
}

const chosen = memoizeBounded(choicesMax, (accept): Encoding | null => {
  const weights = new Map<string, number>()
  for (const part of accept.toLowerCase().split(',')) {
    const [name = '', ...parameters] = part.split(';').map((text) => text.trim())
    const quality = parameters.find((parameter) => parameter.startsWith('q='))
    weights.set(name, quality === undefined ? 1 : Number(quality.slice(2)) || 0)
  }
  let best: Encoding | null = null
  let bestWeight = 0
  for (const encoding of preference) {
    const weight = weights.get(encoding) ?? weights.get('*') ?? 0
    if (weight > bestWeight) [best, bestWeight] = [encoding, weight]
  }
  return best
})

/** True if a text of this size is compressed for clients that accept it. */
export function isWorthCompressing(bytes: number): boolean {
  return bytes >= bytesMin
}

/** Compresses the body of a response that the cache will keep. */
export async function compressBytes(encoding: Encoding, bytes: Buffer): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    compressors[encoding](bytes, (error, result) =>
      error === null ? resolve(result as Buffer) : reject(error),
    )
  })
}

/**
 * Compresses whole responses on their way. Streams, small responses and those that are compressed
 * already pass as they are.
 */
export const compression = plugin(
  async (server: Server) => {
    if (!server.api.config.compress) return
    server.addHook('onSend', (request, reply, payload, done) => {
      if (mayCompress(reply, payload)) compressResponse(request, reply, payload, done)
      else done(null, payload)
    })
  },
  { name: 'compression' },
)

function compressResponse(
  request: FastifyRequest,
  reply: FastifyReply,
  payload: string | Buffer,
  done: Done,
): void {
  const encoding = chooseEncoding(request.headers['accept-encoding'])
  if (encoding === null) {
    done(null, payload)
    return
  }
  reply.header('content-encoding', encoding)
  reply.removeHeader('content-length')
  const tag = reply.getHeader('etag')
  if (typeof tag === 'string') reply.header('etag', weakTag(tag))
  compressors[encoding](payload, done)
}

/**
 * True if some client may get this response compressed; `Vary` then names the header that decides,
 * since caches must key on it.
 */
function mayCompress(reply: FastifyReply, payload: unknown): payload is string | Buffer {
  if (!(typeof payload === 'string' || Buffer.isBuffer(payload)) || payload.length < bytesMin)
    return false
  if (
    reply.hasHeader('content-encoding') ||
    !compressible.test(String(reply.getHeader('content-type') ?? ''))
  )
    return false
  if (String(reply.getHeader('cache-control') ?? '').includes('no-transform')) return false
  addVary(reply, 'Accept-Encoding')
  return true
}
