import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { request as httpRequest } from 'node:http'
import type { IncomingHttpHeaders, IncomingMessage } from 'node:http'
import type { AddressInfo } from 'node:net'
import { Readable } from 'node:stream'
import { buffer } from 'node:stream/consumers'
import { pipeline } from 'node:stream/promises'
import { createAccess } from '#access/create-access.ts'
import { createServer } from '#api/server.ts'
import { createContent } from '#content/create-content.ts'
import type { TestDatabase } from '#test/support/database.ts'
import { systemClock } from '#lib/clock.ts'
import { silentLogger } from '#lib/logger.ts'
import type { MediaLimits } from '#media/limits.ts'
import type { Asset } from '#media/media.ts'
import { testCluster } from '#test/support/cluster-parts.ts'
import { testMedia } from '#test/support/media.ts'
import type { TestMedia } from '#test/support/media.ts'

export type Received = {
  readonly status: number
  readonly headers: IncomingHttpHeaders
  readonly body: Buffer
  json(): { data: Asset & { url: string }; [key: string]: unknown }
}

type Call = {
  readonly method?: string
  readonly headers?: Record<string, string>
  readonly body?: Buffer | Readable
  readonly token?: string | null
}

export type Site = AsyncDisposable & {
  readonly parts: TestMedia
  readonly port: number
  readonly token: string
  readonly call: (path: string, call?: Call) => Promise<Received>
}

/** The real server on a real port, with a token of the role `editor`. */
export async function site(db: TestDatabase, limits: Partial<MediaLimits> = {}): Promise<Site> {
  const { database } = db
  const parts = await testMedia(database, limits)
  const access = createAccess({
    database,
    clock: systemClock,
    logger: silentLogger,
    secret: randomBytes(32).toString('hex'),
  })
  const { token } = await access.tokens.create(database, access.systemIdentity, {
    name: 'test',
    roles: ['editor'],
    expiresAt: null,
  })
  const cluster = testCluster(db)
  const server = await createServer({
    database,
    cluster,
    secret: randomBytes(32).toString('hex'),
    content: createContent({ clock: systemClock, logger: silentLogger }),
    access,
    media: parts.media,
    logger: silentLogger,
    clock: systemClock,
    version: 'test',
  })
  await server.listen({ port: 0, host: '127.0.0.1' })
  const { port } = server.server.address() as AddressInfo
  return {
    parts,
    port,
    token,
    call: (path, call = {}) => send(port, path, { token, ...call }),
    [Symbol.asyncDispose]: async () => {
      await server.close()
      await cluster[Symbol.asyncDispose]()
      await parts[Symbol.asyncDispose]()
    },
  }
}

async function send(
  port: number,
  path: string,
  { method = 'GET', headers = {}, body, token = null }: Call,
): Promise<Received> {
  const outgoing = httpRequest({
    host: '127.0.0.1',
    port,
    path,
    method,
    agent: false,
    headers: { ...(token === null ? {} : { authorization: `Bearer ${token}` }), ...headers },
  })
  const responded = new Promise<IncomingMessage>((resolve, reject) => {
    outgoing.once('response', resolve)
    outgoing.once('error', reject)
  })
  if (body instanceof Readable) void pipeline(body, outgoing).catch(() => undefined)
  else outgoing.end(body)
  const response = await responded
  const data = await buffer(response)
  return {
    status: response.statusCode ?? 0,
    headers: response.headers,
    body: data,
    json: () => JSON.parse(data.toString()) as ReturnType<Received['json']>,
  }
}

export type Part = {
  readonly name: string
  readonly value: Buffer | string
  readonly filename?: string
  readonly type?: string
}

export function form(...fields: Part[]): Pick<Call, 'headers' | 'body' | 'method'> {
  const boundary = 'x'.repeat(40)
  const pieces = fields.flatMap(({ name, value, filename, type }) => [
    `--${boundary}\r\ncontent-disposition: form-data; name="${name}"`,
    filename === undefined ? '\r\n' : `; filename="${filename}"\r\n`,
    type === undefined ? '\r\n' : `content-type: ${type}\r\n\r\n`,
    value,
    '\r\n',
  ])
  const body = Buffer.concat(
    [...pieces, `--${boundary}--\r\n`].map((piece) => Buffer.from(piece as string)),
  )
  return {
    method: 'POST',
    body,
    headers: { 'content-type': `multipart/form-data; boundary=${boundary}` },
  }
}

export const file = (
  filename: string,
  value: Buffer | string,
  type = 'application/octet-stream',
): Part => ({ name: 'file', filename, value, type })

export const json = (value: unknown): Pick<Call, 'headers' | 'body'> => ({
  headers: { 'content-type': 'application/json' },
  body: Buffer.from(JSON.stringify(value)),
})

export async function upload(here: Site, ...fields: Part[]): Promise<Asset & { url: string }> {
  const response = await here.call('/api/assets', form(...fields))
  assert.equal(response.status, 201, response.body.toString())
  return (response.json() as unknown as { data: (Asset & { url: string })[] }).data[0]!
}
