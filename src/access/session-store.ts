import type { Access, Identity, Login, Origin, User } from '#access/access.ts'
import type { AuditLog } from '#access/audit.ts'
import { PermissionError, UnauthenticatedError, UserNotFoundError } from '#access/errors.ts'
import { timestamp } from '#access/access-context.ts'
import type { AccessContext } from '#access/access-context.ts'
import { addressOf, KnownIdentity } from '#access/identity.ts'
import { BoundAuthority } from '#access/permissions.ts'
import type { PermissionSet } from '#access/permissions.ts'
import { csrfTokenOf, hashSecret, looksLikeSecret, newSecret } from '#access/secrets.ts'
import { isUseDue, kept, NotKept, noteUse, useOf } from '#access/last-use.ts'
import type { Use } from '#access/last-use.ts'
import { userColumns, userOf } from '#access/user-row.ts'
import type { UserRow } from '#access/user-row.ts'
import type { FillContext } from '#cache/fill.ts'
import type { Authority } from '#content/authority.ts'
import { sql } from '#database/database.ts'
import type { Queryable } from '#database/database.ts'
import { isId } from '#lib/id.ts'
import { memoizeBounded } from '#lib/memoize-bounded.ts'

/**
 * A session ends when it was not used for `idleMs`, and at the latest `lifetimeMs` after the login.
 */
export const idleMs = 24 * 60 * 60 * 1_000
export const lifetimeMs = 14 * 24 * 60 * 60 * 1_000
/** Sessions that one user may have; the oldest give way. */
export const sessionsPerUserMax = 50
/** Rows removed per call of `prune`. */
const prunedMax = 5_000
const agentLengthMax = 256
/** Cookies whose hashes are remembered. */
const keysMax = 1_000

const find = sql<SessionRow>(`
  select ${userColumns}, s.expires_at as session_expires_at, s.last_used_at as session_last_used_at,
    (select revision from stoa.role_revision)::text as revision
  from stoa.session s join stoa.user u on u.id = s.user_id where s.id_hash = $1`)
const touch = sql(
  `update stoa.session set last_used_at = $2 where id_hash = $1 and last_used_at <= $3`,
)
// Sees a change of password or state that committed since the password was looked at: then there is
// no row, and no session.
const begin = sql<{ id: string }>(`
  with active as (select id from stoa.user where id = $2 and password_hash = $3 and state = 'active' for no key update)
  insert into stoa.session (id_hash, user_id, created_at, last_used_at, expires_at, address, agent)
  select $1, id, $4, $4, $5, $6, $7 from active returning user_id as id`)
const noteLogin = sql(`update stoa.user set last_login_at = $2 where id = $1`)
const trim = sql(
  `delete from stoa.session where id_hash in (select id_hash from stoa.session where user_id = $1 order by created_at desc offset ${sessionsPerUserMax})`,
)
const end = sql<{ user_id: string }>(
  `delete from stoa.session where id_hash = $1 returning user_id`,
)
const endAll = sql<{ count: number }>(
  `with gone as (delete from stoa.session where user_id = $1 returning 1) select count(*)::int as count from gone`,
)
const prune = sql<{ count: number }>(`
  with gone as (delete from stoa.session where id_hash in (
    select id_hash from stoa.session where expires_at <= $1 or last_used_at <= $2 limit ${prunedMax}) returning 1)
  select count(*)::int as count from gone`)

export async function endSessionsOf(db: Queryable, userId: string): Promise<number> {
  const [row] = await db.run(endAll, [userId])
  return row?.count ?? 0
}

type Start = {
  readonly user: User
  readonly passwordHash: string
  readonly origin: Origin
  readonly agent: string
  readonly replaces: string | null
}

export type Sessions = Pick<Access, 'logout' | 'logoutEverywhere'> & {
  /** `fresh`: as of `Access.identify`. */
  identify(cookie: string, origin: Origin | undefined, fresh: boolean): Promise<Identity>
  /** Null: it has to be asked for. */
  peek(cookie: string, cacheNowMs: number): Authority | null
  /** For a user whose password was proven; null if it, or the user's state, changed since. */
  start(input: Start): Promise<Login | null>
  prune(): Promise<number>
}

export function sessionStore(ground: AccessContext, log: AuditLog): Sessions {
  const { database, clock } = ground
  const keyOf = memoizeBounded(keysMax, (cookie) => cacheKey(hashSecret(cookie)))

  const start: Sessions['start'] = async ({ user, passwordHash, origin, agent, replaces }) => {
    const cookie = newSecret()
    const nowMs = clock.nowMs()
    const now = timestamp(nowMs)
    const expiresAt = timestamp(nowMs + lifetimeMs)
    const started = await database.transaction(async (tx) => {
      const begun = await tx.run(begin, [
        hashSecret(cookie),
        user.id,
        passwordHash,
        now,
        expiresAt,
        addressOf(origin) ?? '',
        plain(agent),
      ])
      if (begun.length === 0) return false
      if (replaces !== null && looksLikeSecret(replaces)) await tx.run(end, [hashSecret(replaces)])
      await tx.run(noteLogin, [user.id, now])
      await tx.run(trim, [user.id])
      await log.record(tx, { kind: 'user', id: user.id, name: user.name }, origin, {
        action: 'session.start',
        subject: `user:${user.id}`,
        facts: {},
      })
      return true
    })
    if (!started) return null
    return {
      cookie,
      csrfToken: csrfTokenOf(cookie, ground.secret),
      expiresAt,
      user: { ...user, lastLoginAt: now },
    }
  }

  return {
    start,
    identify: (cookie, origin, fresh) => identify(ground, { cookie, origin, fresh }),
    peek: (cookie, cacheNowMs) =>
      looksLikeSecret(cookie) ? peek(ground, keyOf(cookie), cacheNowMs) : null,
    logout: async (cookie) => {
      if (looksLikeSecret(cookie)) await database.run(end, [hashSecret(cookie)])
    },
    logoutEverywhere: async (db, by, userId) => {
      if (by.user?.id !== userId && !by.can('users.manage'))
        throw new PermissionError('users.manage')
      if (!isId(userId)) throw new UserNotFoundError(userId)
      return db.transaction(async (tx) => {
        const count = await endSessionsOf(tx, userId)
        await log.audit(tx, by, {
          action: 'session.endAll',
          subject: `user:${userId}`,
          facts: { count },
        })
        return count
      })
    },
    prune: async () => {
      const nowMs = clock.nowMs()
      const [row] = await database.run(prune, [timestamp(nowMs), timestamp(nowMs - idleMs)])
      return row?.count ?? 0
    },
  }
}

type SessionRow = UserRow & {
  readonly session_expires_at: string
  readonly session_last_used_at: string
  readonly revision: string
}
type Found = {
  readonly row: SessionRow
  readonly user: User
  readonly authority: BoundAuthority
  readonly use: Use
}

function cacheKey(idHash: Buffer): string {
  return `access:session:${idHash.toString('latin1')}`
}

function isOver({ row, use }: Found, nowMs: number): boolean {
  return (
    row.state !== 'active' ||
    Date.parse(row.session_expires_at) <= nowMs ||
    use.notedMs + idleMs <= nowMs
  )
}

/** From memory; else one named statement. Another one at most once a minute, to note the use. */
async function identify(
  ground: AccessContext,
  {
    cookie,
    origin,
    fresh,
  }: { readonly cookie: string; readonly origin: Origin | undefined; readonly fresh: boolean },
): Promise<Identity> {
  const idHash = hashSecret(cookie)
  if (!looksLikeSecret(cookie)) throw over()
  const { found, staleMs } =
    ground.cache === null || fresh
      ? { found: await look(ground, idHash), staleMs: null }
      : await kept(ground.cache, cacheKey(idHash), fill(ground, idHash))
  if (found === null || isOver(found, ground.clock.nowMs())) throw over()
  const { row, user, authority, use } = found
  await noteUse(ground, use, touch, idHash)
  return new KnownIdentity({
    authority,
    roles: user.roles,
    user,
    csrfToken: csrfTokenOf(cookie, ground.secret),
    expiresAt: row.session_expires_at,
    staleMs,
    origin,
  })
}

function over(): UnauthenticatedError {
  return new UnauthenticatedError('The session has ended; sign in again.')
}

function peek(ground: AccessContext, key: string, cacheNowMs: number): Authority | null {
  const found = ground.cache?.peek(key, cacheNowMs) as Found | undefined
  const nowMs = ground.clock.nowMs()
  return found === undefined || isOver(found, nowMs) || isUseDue(found.use, nowMs)
    ? null
    : found.authority
}

async function look(ground: AccessContext, idHash: Buffer): Promise<Found | null> {
  const [row] = await ground.database.run(find, [idHash])
  return row === undefined
    ? null
    : foundOf(row, await ground.roleCache.permissions(row.roles, row.revision))
}

function fill(ground: AccessContext, idHash: Buffer): (context: FillContext) => Promise<Found> {
  return async (context) => {
    const [row] = await context.read(find, [idHash])
    if (row === undefined) throw new NotKept()
    context
      .row('session', idHash.toString('hex'))
      .row('user', row.id)
      .list('user_role', [{ field: 'user_id', is: 'eq', value: row.id }])
    return foundOf(row, await ground.roleCache.permissionsIn(context, row.roles))
  }
}

function foundOf(row: SessionRow, permissions: PermissionSet): Found {
  const user = userOf(row)
  return {
    row,
    user,
    authority: new BoundAuthority({ kind: 'user', id: user.id, name: user.name }, permissions),
    use: useOf(row.session_last_used_at),
  }
}

/** What browsers say of themselves, as one short line. */
function plain(text: string): string {
  return text
    .toWellFormed()
    .replaceAll(/\p{Cc}/gu, ' ')
    .slice(0, agentLengthMax)
    .toWellFormed()
}
