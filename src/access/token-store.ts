import type { Access, ApiToken, Identity, Origin } from '#access/access.ts'
import type { AuditLog } from '#access/audit.ts'
import { AccessInputError, ApiTokenNotFoundError, UnauthenticatedError } from '#access/errors.ts'
import type { InputProblem } from '#access/errors.ts'
import { timestamp } from '#access/access-context.ts'
import type { AccessContext } from '#access/access-context.ts'
import { KnownIdentity } from '#access/identity.ts'
import { isUseDue, kept, NotKept, noteUse, useOf } from '#access/last-use.ts'
import type { Looked, Use } from '#access/last-use.ts'
import { BoundAuthority } from '#access/permissions.ts'
import type { PermissionSet } from '#access/permissions.ts'
import { requireCoversRoles } from '#access/role-store.ts'
import { hashSecret, looksLikeApiToken, newApiToken } from '#access/secrets.ts'
import { TokenMemo } from '#access/token-memo.ts'
import { checkedName, checkedRoles } from '#access/user-input.ts'
import type { FillContext } from '#cache/fill.ts'
import type { Authority } from '#content/authority.ts'
import { normalInstant } from '#content/query/normal-form.ts'
import { sql } from '#database/database.ts'
import { isId, newId } from '#lib/id.ts'
import { memoizeBounded } from '#lib/memoize-bounded.ts'

/** API tokens that an installation can have: the list is shown whole. */
const tokensMax = 1_000

type TokenRow = {
  readonly id: string
  readonly name: string
  readonly hint: string
  readonly created_at: string
  readonly created_by: string | null
  readonly expires_at: string | null
  readonly last_used_at: string | null
  readonly roles: readonly string[]
}

const columns = `t.id, t.name, t.hint, t.created_at, t.created_by, t.expires_at, t.last_used_at,
  array(select r.role from stoa.api_token_role r where r.token_id = t.id order by r.role) as roles`
const all = sql<TokenRow>(`select ${columns} from stoa.api_token t order by t.id`)
const one = sql<TokenRow>(`select ${columns} from stoa.api_token t where t.id = $1`)
const find = sql<TokenRow & { revision: string }>(`
  select ${columns}, (select revision from stoa.role_revision)::text as revision from stoa.api_token t where t.token_hash = $1`)
const touch = sql(
  `update stoa.api_token set last_used_at = $2 where id = $1 and (last_used_at is null or last_used_at <= $3)`,
)
const count = sql<{ count: number }>(`select count(*)::int as count from stoa.api_token`)
const insert = sql(
  `insert into stoa.api_token (id, name, token_hash, hint, created_at, created_by, expires_at) values ($1, $2, $3, $4, $5, $6, $7)`,
)
const giveRoles = sql(
  `insert into stoa.api_token_role (token_id, role) select $1, unnest($2::text[])`,
)
const remove = sql(`delete from stoa.api_token where id = $1`)

type Tokens = {
  readonly tokens: Access['tokens']
  /** `fresh`: as of `Access.identify`. */
  identify(token: string, origin: Origin | undefined, fresh: boolean): Promise<Identity>
  /** Null: it has to be asked for. */
  peek(token: string, cacheNowMs: number): Authority | null
}

/**
 * API tokens belong to the installation, not to who made them: they go on when that user is
 * disabled or deleted.
 */
export function tokenStore(ground: AccessContext, log: AuditLog): Tokens {
  const { database, clock } = ground
  const tokens: Access['tokens'] = {
    list: async () => (await database.run(all)).map(tokenOf),
    create: (db, by, input) =>
      db.transaction(async (tx) => {
        by.require('tokens.manage')
        const [counted] = await tx.run(count)
        const { name, roles, expiresAt } = checkedToken(
          input,
          clock.nowMs(),
          (counted?.count ?? 0) >= tokensMax,
        )
        await requireCoversRoles(tx, by, roles, 'token would do')
        const id = newId(clock.nowMs())
        const { token, hint } = newApiToken()
        await tx.run(insert, [
          id,
          name,
          hashSecret(token),
          hint,
          timestamp(clock.nowMs()),
          by.user?.id ?? null,
          expiresAt,
        ])
        await tx.run(giveRoles, [id, roles])
        await log.audit(tx, by, {
          action: 'token.create',
          subject: `token:${id}`,
          facts: { name, roles, expiresAt },
        })
        const [row] = await tx.run(one, [id])
        return { token, info: tokenOf(row!) }
      }),
    delete: (db, by, id) =>
      db.transaction(async (tx) => {
        by.require('tokens.manage')
        const [row] = isId(id) ? await tx.run(one, [id]) : []
        if (row === undefined) throw new ApiTokenNotFoundError(id)
        ground.roleCache.watch()
        await tx.run(remove, [id])
        await log.audit(tx, by, {
          action: 'token.delete',
          subject: `token:${id}`,
          facts: { name: row.name, roles: row.roles },
        })
      }),
  }
  const memo = new TokenMemo<Found>(ground.roleCache, clock)
  const keyOf = memoizeBounded(tokensMax, (token) => cacheKey(hashSecret(token)))
  return {
    tokens,
    identify: (token, origin, fresh) => identify({ ground, memo }, { token, origin, fresh }),
    peek: (token, cacheNowMs) => {
      const found = ground.cache?.peek(keyOf(token), cacheNowMs) as Found | undefined
      const nowMs = clock.nowMs()
      return found === undefined || isOver(found.row, nowMs) || isUseDue(found.use, nowMs)
        ? null
        : found.authority
    },
  }
}

type Found = { readonly row: TokenRow; readonly authority: BoundAuthority; readonly use: Use }

function cacheKey(secret: Buffer): string {
  return `access:token:${secret.toString('latin1')}`
}

function isOver({ expires_at }: TokenRow, nowMs: number): boolean {
  return expires_at !== null && Date.parse(expires_at) <= nowMs
}

/** From memory; else one named statement. Another one at most once a minute, to note the use. */
async function identify(
  { ground, memo }: { readonly ground: AccessContext; readonly memo: TokenMemo<Found> },
  {
    token,
    origin,
    fresh,
  }: { readonly token: string; readonly origin: Origin | undefined; readonly fresh: boolean },
): Promise<Identity> {
  if (!looksLikeApiToken(token)) throw unknown()
  const secret = hashSecret(token)
  const { found, staleMs } = await lookedUp(ground, memo, secret, fresh)
  if (found === null) throw unknown()
  const { row, authority, use } = found
  if (isOver(row, ground.clock.nowMs()))
    throw new UnauthenticatedError('The API token has expired; make a new one.')
  await noteUse(ground, use, touch, row.id)
  return new KnownIdentity({
    authority,
    roles: row.roles,
    expiresAt: row.expires_at,
    staleMs,
    origin,
  })
}

async function lookedUp(
  ground: AccessContext,
  memo: TokenMemo<Found>,
  secret: Buffer,
  fresh: boolean,
): Promise<Looked<Found>> {
  if (fresh) return { found: await look(ground, secret), staleMs: null }
  if (ground.cache !== null) return kept(ground.cache, cacheKey(secret), fill(ground, secret))
  return {
    found: await memo.get(secret.toString('latin1'), () => look(ground, secret)),
    staleMs: null,
  }
}

function unknown(): UnauthenticatedError {
  return new UnauthenticatedError('There is no such API token; it was mistyped or deleted.')
}

async function look(ground: AccessContext, secret: Buffer): Promise<Found | null> {
  const [row] = await ground.database.run(find, [secret])
  return row === undefined
    ? null
    : foundOf(row, await ground.roleCache.permissions(row.roles, row.revision))
}

function fill(ground: AccessContext, secret: Buffer): (context: FillContext) => Promise<Found> {
  return async (context) => {
    const [row] = await context.read(find, [secret])
    if (row === undefined) throw new NotKept()
    context
      .row('api_token', row.id)
      .list('api_token_role', [{ field: 'token_id', is: 'eq', value: row.id }])
    return foundOf(row, await ground.roleCache.permissionsIn(context, row.roles))
  }
}

function foundOf(row: TokenRow, permissions: PermissionSet): Found {
  return {
    row,
    authority: new BoundAuthority({ kind: 'token', id: row.id, name: row.name }, permissions),
    use: useOf(row.last_used_at),
  }
}

function checkedToken(
  input: {
    readonly name: string
    readonly roles: readonly string[]
    readonly expiresAt: string | null
  },
  nowMs: number,
  tooMany: boolean,
): { name: string; roles: readonly string[]; expiresAt: string | null } {
  const problems: InputProblem[] = []
  if (tooMany)
    problems.push({
      path: '',
      message: `There are ${tokensMax} API tokens already; delete one first.`,
    })
  const name = checkedName(input.name, problems)
  const roles = checkedRoles(input.roles, problems)
  if (roles.length === 0) problems.push({ path: '/roles', message: 'must name at least one role.' })
  const expiresAt = input.expiresAt === null ? null : normalInstant(input.expiresAt)
  if (input.expiresAt !== null && (expiresAt === null || Date.parse(expiresAt) <= nowMs))
    problems.push({ path: '/expiresAt', message: 'must be a moment in the future.' })
  if (problems.length > 0) throw new AccessInputError(problems)
  return { name, roles, expiresAt }
}

function tokenOf(row: TokenRow): ApiToken {
  const { id, name, roles, hint } = row
  return {
    id,
    name,
    roles,
    createdAt: row.created_at,
    createdBy: row.created_by,
    expiresAt: row.expires_at,
    lastUsedAt: row.last_used_at,
    hint,
  }
}
