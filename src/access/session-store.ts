import type { Access, Identity, Login, Origin, User } from '#access/access.ts'
import type { AuditLog } from '#access/audit.ts'
import { PermissionError, UnauthenticatedError, UserNotFoundError } from '#access/errors.ts'
import { timestamp } from '#access/access-context.ts'
import type { AccessContext } from '#access/access-context.ts'
import { lookUp } from '#access/credential-lookup.ts'
import type { CredentialSource, Validity } from '#access/credential-lookup.ts'
import { newDeviceCookie } from '#access/device-cookie.ts'
import { addressOf, KnownIdentity } from '#access/identity.ts'
import { isUseDue, LastUseRecorder, lastUseOf } from '#access/last-use.ts'
import type { LastUse } from '#access/last-use.ts'
import { BoundAuthority } from '#access/permissions.ts'
import type { PermissionSet } from '#access/permissions.ts'
import { requireCoversRoles } from '#access/role-store.ts'
import { csrfTokenOf, hashSecret, looksLikeSecret, newSecret } from '#access/secrets.ts'
import { lockedUser, userColumns, userOf } from '#access/user-row.ts'
import type { UserRow } from '#access/user-row.ts'
import type { Authority } from '#content/authority.ts'
import { sql } from '#database/database.ts'
import type { Queryable } from '#database/database.ts'
import { isId } from '#lib/id.ts'
import { memoizeBounded } from '#lib/memoize-bounded.ts'

/**
 * A session ends when it was not used for `idleMs`, and at the latest `lifetimeMs` after the
 * sign-in.
 */
export const idleMs = 24 * 60 * 60 * 1_000
export const lifetimeMs = 14 * 24 * 60 * 60 * 1_000
/** Sessions that one user may have; the oldest give way. */
export const sessionsPerUserMax = 50
/** Rows removed per call of `prune`. */
const prunedMax = 5_000
const agentLengthMax = 256
/** Cookies whose hashes are kept in memory. */
const keysMax = 1_000

const find = sql<SessionRow>(`
  select ${userColumns}, s.expires_at as session_expires_at,
    coalesce(l.last_used_at, s.created_at) as session_last_used_at
  from stoa.session s
  join stoa.user u on u.id = s.user_id
  left join stoa.session_use l on l.id_hash = s.id_hash
  where s.id_hash = $1`)
// Sees a change of password or state that committed since the password was verified: then there is
// no row, and no session.
const begin = sql<{ id: string }>(`
  with active as (
    select id from stoa.user where id = $2 and password_hash = $3 and state = 'active'
    for no key update
  )
  insert into stoa.session (id_hash, user_id, created_at, expires_at, address, agent)
  select $1, id, $4, $5, $6, $7 from active returning user_id as id`)
const noteLogin = sql(`update stoa.user set last_login_at = $2 where id = $1`)
const trim = sql(
  `delete from stoa.session where id_hash in (
     select id_hash from stoa.session where user_id = $1
     order by created_at desc offset ${sessionsPerUserMax}
   )`,
)
const end = sql<{ user_id: string }>(
  `delete from stoa.session where id_hash = $1 returning user_id`,
)
const endAll = sql<{ count: number }>(
  `with gone as (delete from stoa.session where user_id = $1 returning 1)
   select count(*)::int as count from gone`,
)
const prune = sql<{ count: number }>(`
  with gone as (delete from stoa.session where id_hash in (
    select s.id_hash from stoa.session s left join stoa.session_use l on l.id_hash = s.id_hash
    where s.expires_at <= $1
      or (s.created_at <= $2 and coalesce(l.last_used_at, s.created_at) <= $2)
    limit ${prunedMax}) returning 1)
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
  /** Null if not cached. */
  peek(cookie: string, cacheNowMs: number): Authority | null
  /** For a user whose password was proven; null if it, or the user's state, changed since. */
  start(db: Queryable, input: Start): Promise<Login | null>
  prune(): Promise<number>
}

export function sessionStore(context: AccessContext, log: AuditLog): Sessions {
  const { database, clock } = context
  const uses = new LastUseRecorder(context)
  const keyOf = memoizeBounded(keysMax, (cookie) => cacheKey(hashSecret(cookie)))

  return {
    start: starter(context, log),
    identify: (cookie, origin, fresh) => identify(context, uses, { cookie, origin, fresh }),
    peek: (cookie, cacheNowMs) =>
      looksLikeSecret(cookie) ? peek(context, keyOf(cookie), cacheNowMs) : null,
    logout: async (db, cookie) => {
      if (looksLikeSecret(cookie)) await db.transaction((tx) => tx.run(end, [hashSecret(cookie)]))
    },
    logoutEverywhere: async (db, by, userId) => {
      if (by.user?.id !== userId && !by.can('users.manage'))
        throw new PermissionError('users.manage')
      if (!isId(userId)) throw new UserNotFoundError(userId)
      return db.transaction(async (tx) => {
        if (by.user?.id !== userId) {
          const { roles } = await lockedUser(tx, userId)
          await requireCoversRoles(tx, by, roles, 'user may do')
        }
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

function starter(context: AccessContext, log: AuditLog): Sessions['start'] {
  return async (db, { user, passwordHash, origin, agent, replaces }) => {
    const cookie = newSecret()
    const nowMs = context.clock.nowMs()
    const now = timestamp(nowMs)
    const expiresAt = timestamp(nowMs + lifetimeMs)
    const started = await db.transaction(async (tx) => {
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
      csrfToken: csrfTokenOf(cookie, context.secret),
      expiresAt,
      deviceCookie: newDeviceCookie(user.id, context.secret),
      user: { ...user, lastLoginAt: now },
    }
  }
}

type SessionRow = UserRow & {
  readonly session_expires_at: string
  readonly session_last_used_at: string
}
type Found = {
  readonly row: SessionRow
  readonly user: User
  readonly authority: BoundAuthority
  readonly use: LastUse
}

function cacheKey(idHash: Buffer): string {
  return `access:session:${idHash.toString('latin1')}`
}

/** The state of the user and the last use can be newer than what this node has in memory. */
function validityOf({ row, use }: Found, nowMs: number): Validity {
  if (Date.parse(row.session_expires_at) <= nowMs) return 'ended'
  return row.state === 'active' && use.atMs + idleMs > nowMs ? 'valid' : 'doubtful'
}

type Presented = {
  readonly cookie: string
  readonly origin: Origin | undefined
  readonly fresh: boolean
}

async function identify(
  context: AccessContext,
  uses: LastUseRecorder,
  { cookie, origin, fresh }: Presented,
): Promise<Identity> {
  if (!looksLikeSecret(cookie)) throw ended()
  const idHash = hashSecret(cookie)
  const result = await lookUp(context, sourceOf(context, idHash), { fresh })
  if (result === null) throw ended()
  const { row, user, authority, use } = result.found
  uses.record('session', idHash, use)
  return new KnownIdentity({
    authority,
    roles: user.roles,
    user,
    csrfToken: csrfTokenOf(cookie, context.secret),
    expiresAt: row.session_expires_at,
    staleMs: result.staleMs,
    origin,
  })
}

function ended(): UnauthenticatedError {
  return new UnauthenticatedError('The session has ended; sign in again.')
}

function peek(context: AccessContext, key: string, cacheNowMs: number): Authority | null {
  const found = context.cache?.peek(key, cacheNowMs) as Found | undefined
  const nowMs = context.clock.nowMs()
  return found === undefined || validityOf(found, nowMs) !== 'valid' || isUseDue(found.use, nowMs)
    ? null
    : found.authority
}

function sourceOf(context: AccessContext, idHash: Buffer): CredentialSource<Found> {
  return {
    key: cacheKey(idHash),
    fill: async (fill) => {
      const [row] = await fill.run(find, [idHash])
      if (row === undefined) return null
      fill
        .row('session', idHash.toString('hex'))
        .row('user', row.id)
        .list('user_role', [{ field: 'user_id', is: 'eq', value: row.id }])
      return foundOf(row, await context.roleCache.permissionsIn(fill, row.roles))
    },
    readPrimary: async () => {
      const [row] = await context.database.run(find, [idHash])
      return row === undefined ? null : foundOf(row, await context.roleCache.permissions(row.roles))
    },
    validity: (found) => validityOf(found, context.clock.nowMs()),
  }
}

function foundOf(row: SessionRow, permissions: PermissionSet): Found {
  const user = userOf(row)
  return {
    row,
    user,
    authority: new BoundAuthority({ kind: 'user', id: user.id, name: user.name }, permissions),
    use: lastUseOf(row.session_last_used_at),
  }
}

/** The user agent's own description, as one short line. */
function plain(text: string): string {
  return text
    .toWellFormed()
    .replaceAll(/\p{Cc}/gu, ' ')
    .slice(0, agentLengthMax)
    .toWellFormed()
}
