import { createHmac } from 'node:crypto'
import type { FastifyReply, FastifyRequest } from 'fastify'
import {
  IdempotencyKeyBusyError,
  IdempotencyKeyReusedError,
  RequestInvalidError,
} from '#api/problems/errors.ts'
import { WriteRecorder } from '#api/writes/write-recorder.ts'
import { atomically } from '#content/context.ts'
import { sql } from '#database/database.ts'
import type { Database, Queryable } from '#database/database.ts'
import { DatabaseTimeoutError } from '#database/errors.ts'
import { openText, sealText } from '#lib/sealed-text.ts'
import { timedOut, withTimeout } from '#lib/timeout.ts'
import { networkOf } from '#access/throttle.ts'

/** A repeat waits this long for the first request to end. */
const waitMs = 5_000
/** A key is remembered for 24 h (see the SQL); this many expired ones go per clean-up statement. */
const collectMax = 1_000
const keyPattern = /^[\x21-\x7e]{1,255}$/

/**
 * The response of a write. `json`: JSON text. `body`: a value that becomes JSON. Neither: no body.
 */
export type WriteResponse = {
  readonly status: number
  readonly headers?: Readonly<Record<string, string>>
  readonly body?: unknown
  readonly json?: string
}

type Stored = {
  readonly request_hash: string
  readonly rights: string
  readonly status: number | null
  readonly headers: string | null
  readonly body: string | null
}

const boundWait = sql<{ set_config: string }>(`select set_config('lock_timeout', $1, true)`)
const claim = sql<{ claimed: number }>(
  `insert into stoa.idempotency (principal, key, request_hash, rights) values ($1, $2, $3, $4)
   on conflict (principal, key) do update
     set request_hash = excluded.request_hash, rights = excluded.rights,
       status = null, headers = null, body = null, created_at = now()
     where stoa.idempotency.created_at < now() - interval '24 hours'
   returning 1 as claimed`,
)
const unboundWait = sql<{ set_config: string }>(`select set_config('lock_timeout', '0', true)`)
const stored = sql<Stored>(
  `select request_hash, rights, status, headers, body from stoa.idempotency
   where principal = $1 and key = $2`,
)
const keep = sql(
  `update stoa.idempotency set status = $3, headers = $4, body = $5
   where principal = $1 and key = $2`,
)
const expired = sql<{ key: string }>(
  `delete from stoa.idempotency where ctid in (
     select ctid from stoa.idempotency
     where created_at < now() - interval '24 hours' limit ${collectMax}
   ) returning key`,
)

/**
 * First requests that run on this node, so that repeats wait without holding a connection. Each is
 * here as long as it is in flight.
 */
const running = new Map<string, Promise<unknown>>()

/**
 * Runs the write of a route and responds. Without `Idempotency-Key`: `work` gets the pool. With
 * one: the key is claimed in the transaction that `work` gets and its response is stored there too,
 * so that the effect and the first response exist together or not at all; after a deadlock all of
 * it is done again. A repeat gets the first response and changes nothing. A failure stores nothing:
 * it may be repeated.
 *
 * `fingerprint` replaces the body in the comparison of requests, where the body is a stream.
 */
export async function write(
  request: FastifyRequest,
  reply: FastifyReply,
  work: (db: Queryable) => Promise<WriteResponse>,
  fingerprint?: string,
): Promise<FastifyReply> {
  const header = request.headers['idempotency-key']
  const database = writesOf(request)
  if (header === undefined) return send(reply, await work(database))
  if (typeof header !== 'string' || !keyPattern.test(header)) {
    throw new RequestInvalidError({
      in: 'headers',
      path: '/idempotency-key',
      message: 'must be 1 to 255 visible ASCII characters',
    })
  }
  const claimed = claimOf(request, header, fingerprint)
  return send(reply, await once(database, claimed, work))
}

/**
 * The database for the writes of one request. Where there is a cluster it records them, and the
 * response carries their token.
 */
export function writesOf(request: FastifyRequest): Database {
  const { cluster, database } = request.server.api
  request.writes ??= new WriteRecorder(database, () => ({
    epoch: cluster.feed.state.epoch,
    leased: cluster.cache.leased,
  }))
  return request.writes
}

/** Forgets expired keys, in bounded steps. Returns how many. */
export async function collectIdempotencyKeys(database: Database): Promise<number> {
  let total = 0
  for (;;) {
    const gone = (await database.run(expired)).length
    total += gone
    if (gone < collectMax) return total
  }
}

async function once(
  database: Database,
  claimed: Claim,
  work: (db: Queryable) => Promise<WriteResponse>,
): Promise<WriteResponse> {
  const deadline = performance.now() + waitMs
  for (let first = running.get(claimed.id); first !== undefined; first = running.get(claimed.id))
    await waitForFirst(first, deadline)
  const run = atomically(database, async (tx) => {
    if (!(await claimIn(tx, claimed, Math.max(1, deadline - performance.now()))))
      return replay(tx, claimed)
    const response = await work(tx)
    const text =
      response.json ?? (response.body === undefined ? null : JSON.stringify(response.body))
    await tx.run(keep, [
      claimed.principal,
      claimed.key,
      response.status,
      JSON.stringify(response.headers ?? {}),
      text === null ? null : claimed.seal(text),
    ])
    return response
  })
  running.set(claimed.id, run)
  try {
    return await run
  } finally {
    running.delete(claimed.id)
  }
}

async function waitForFirst(first: Promise<unknown>, deadline: number): Promise<void> {
  const ended = first.catch(() => undefined)
  if ((await withTimeout(ended, Math.max(0, deadline - performance.now()))) === timedOut)
    throw busy()
}

async function claimIn(tx: Queryable, claimed: Claim, lockTimeoutMs: number): Promise<boolean> {
  await tx.run(boundWait, [String(Math.ceil(lockTimeoutMs))])
  try {
    const rows = await tx.run(claim, [
      claimed.principal,
      claimed.key,
      claimed.requestHash,
      claimed.rights,
    ])
    await tx.run(unboundWait)
    return rows.length > 0
  } catch (error) {
    if (error instanceof DatabaseTimeoutError) throw busy()
    throw error
  }
}

async function replay(tx: Queryable, claimed: Claim): Promise<WriteResponse> {
  const [row] = await tx.run(stored, [claimed.principal, claimed.key])
  if (row === undefined || row.status === null) throw busy()
  if (row.request_hash !== claimed.requestHash) {
    throw new IdempotencyKeyReusedError(
      'This Idempotency-Key came before with another request; make a new key for a new request.',
    )
  }
  if (row.rights !== claimed.rights) {
    throw new IdempotencyKeyReusedError(
      'Your rights have changed since the first request with this Idempotency-Key, so its ' +
        'response is not repeated. Read what there is now.',
    )
  }
  const headers = {
    ...(JSON.parse(row.headers ?? '{}') as Record<string, string>),
    'idempotency-replayed': 'true',
  }
  return {
    status: row.status,
    headers,
    ...(row.body === null ? {} : { json: claimed.open(row.body) }),
  }
}

function busy(): IdempotencyKeyBusyError {
  return new IdempotencyKeyBusyError(
    'The first request with this Idempotency-Key is still running; repeat this one later.',
    { retryAfterS: 5 },
  )
}

/** The caller who claims a key, with the request and the rights. */
type ClaimInput = {
  readonly secret: string
  readonly principal: string
  readonly header: string
  /** Everything that the request means. */
  readonly request: string
  readonly rights: string
}

/**
 * The rows of the table are of no use without the cluster's secret and the client's key: the key
 * and the request are stored as HMACs, so that a body cannot be guessed from a dump, and responses,
 * which may carry a new API token or a session, are sealed (AES-256-GCM).
 */
class Claim {
  readonly principal: string
  readonly key: string
  readonly requestHash: string
  /** A response is repeated only while the caller's rights are the same. */
  readonly rights: string
  readonly #sealingKey: Buffer

  constructor({ secret, principal, header, request, rights }: ClaimInput) {
    const mac = (purpose: string, text: string): Buffer =>
      createHmac('sha256', secret)
        .update(JSON.stringify(['idempotency', purpose, principal, header, text]))
        .digest()
    this.principal = principal
    this.key = mac('name', '').toString('base64url')
    this.#sealingKey = mac('seal', '')
    this.requestHash = mac('request', request).toString('base64url')
    this.rights = rights
  }

  get id(): string {
    return `${this.principal} ${this.key}`
  }

  seal(text: string): string {
    return sealText(this.#sealingKey, text)
  }

  open(text: string): string {
    return openText(this.#sealingKey, text)
  }
}

/**
 * Anonymous callers share no keys: each network has keys of its own.
 * `If-Match` and `If-None-Match` belong to what a request means; other headers do not.
 */
function claimOf(request: FastifyRequest, header: string, fingerprint?: string): Claim {
  const { method, url, body, headers, identity, ip } = request
  const { kind, id } = identity.authority.actor
  return new Claim({
    secret: request.server.api.secret,
    principal: kind === 'anonymous' ? `anonymous:${networkOf(ip)}` : `${kind}:${id ?? ''}`,
    header,
    request: JSON.stringify([
      method,
      url,
      headers['if-match'] ?? '',
      headers['if-none-match'] ?? '',
      fingerprint ?? JSON.stringify(body ?? null),
    ]),
    rights: identity.rightsHash,
  })
}

function send(reply: FastifyReply, response: WriteResponse): FastifyReply {
  reply.code(response.status)
  if (response.headers !== undefined) reply.headers(response.headers)
  reply.header('cache-control', 'no-store')
  if (response.json !== undefined)
    return reply.type('application/json; charset=utf-8').send(response.json)
  return response.body === undefined
    ? reply.send()
    : reply.type('application/json; charset=utf-8').send(JSON.stringify(response.body))
}
