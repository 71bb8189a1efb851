import type { Access, ApiToken, Identity, Origin } from '#access/access.ts'
import type { AuditLog } from '#access/audit.ts'
import { AccessInputError, ApiTokenNotFoundError, UnauthenticatedError } from '#access/errors.ts'
import type { InputProblem } from '#access/errors.ts'
import { timestamp } from '#access/access-context.ts'
import type { AccessContext } from '#access/access-context.ts'
import { lookUp } from '#access/credential-lookup.ts'
import type { CredentialSource, Validity } from '#access/credential-lookup.ts'
import { KnownIdentity } from '#access/identity.ts'
import { isUseDue, LastUseRecorder, lastUseOf } from '#access/last-use.ts'
import type { LastUse } from '#access/last-use.ts'
import { BoundAuthority } from '#access/permissions.ts'
import type { PermissionSet } from '#access/permissions.ts'
import { requireCoversRoles } from '#access/role-store.ts'
import { hashSecret, looksLikeApiToken, newApiToken } from '#access/secrets.ts'
import { checkedName, checkedRoles } from '#access/user-input.ts'
import type { Authority } from '#content/authority.ts'
import { normalInstant } from '#content/query/normal-form.ts'
import { sql } from '#database/database.ts'
import type { Queryable } from '#database/database.ts'
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
  readonly created_by_token: string | null
  readonly expires_at: string | null
  readonly last_used_at: string | null
  readonly roles: readonly string[]
}

const columns = `t.id, t.name, t.hint, t.created_at, t.created_by, t.created_by_token,
  t.expires_at, l.last_used_at,
  array(select r.role from stoa.api_token_role r where r.token_id = t.id order by r.role) as roles`
const tokens = 'stoa.api_token t left join stoa.api_token_use l on l.token_id = t.id'
const all = sql<TokenRow>(`select ${columns} from ${tokens} order by t.id`)
const one = sql<TokenRow>(`select ${columns} from ${tokens} where t.id = $1`)
const find = sql<TokenRow>(`select ${columns} from ${tokens} where t.token_hash = $1`)
/** Roles of a token and of the tokens that it made, which are deleted with it. */
const rolesOfFamily = sql<{ roles: readonly string[] }>(`
  with recursive family as (
    select id from stoa.api_token where id = $1
    union select t.id from stoa.api_token t join family f on t.created_by_token = f.id
  )
  select array(
    select distinct role from stoa.api_token_role
    where token_id in (select id from family) order by role
  ) as roles`)
const count = sql<{ count: number }>(`select count(*)::int as count from stoa.api_token`)
const insert = sql(
  `insert into stoa.api_token
     (id, name, token_hash, hint, created_at, created_by, created_by_token, expires_at)
   values ($1, $2, $3, $4, $5, $6, $7, $8)`,
)
const giveRoles = sql(
  `insert into stoa.api_token_role (token_id, role) select $1, unnest($2::text[])`,
)
const lockOne = sql<{ expires_at: string | null }>(
  `select expires_at from stoa.api_token where id = $1 for key share`,
)
const remove = sql(`delete from stoa.api_token where id = $1`)

type TokenInput = {
  readonly name: string
  readonly roles: readonly string[]
  readonly expiresAt: string | null
}

type Tokens = {
  readonly tokens: Access['tokens']
  /** `fresh`: as of `Access.identify`. */
  identify(token: string, origin: Origin | undefined, fresh: boolean): Promise<Identity>
  /** Null if not cached. */
  peek(token: string, cacheNowMs: number): Authority | null
}

/**
 * API tokens that users make belong to the installation: they go on when the user is disabled or
 * deleted. A token that a token makes ends at the latest with that one, and is deleted with it.
 */
export function tokenStore(context: AccessContext, log: AuditLog): Tokens {
  const { database, clock } = context
  const uses = new LastUseRecorder(context)
  const keyOf = memoizeBounded(tokensMax, (token) => cacheKey(hashSecret(token)))
  return {
    tokens: {
      list: async () => (await database.run(all)).map(tokenOf),
      create: (db, by, input) =>
        db.transaction((tx) => createToken(context, log, { tx, by }, input)),
      delete: (db, by, id) =>
        db.transaction(async (tx) => {
          by.require('tokens.manage')
          const [row] = isId(id) ? await tx.run(one, [id]) : []
          if (row === undefined) throw new ApiTokenNotFoundError(id)
          const [family] = await tx.run(rolesOfFamily, [id])
          await requireCoversRoles(tx, by, family?.roles ?? row.roles, 'token may do')
          await tx.run(remove, [id])
          await log.audit(tx, by, {
            action: 'token.delete',
            subject: `token:${id}`,
            facts: { name: row.name, roles: row.roles },
          })
        }),
    },
    identify: async (token, origin, fresh) => {
      if (!looksLikeApiToken(token)) throw unknownToken()
      const result = await lookUp(context, sourceOf(context, hashSecret(token)), { fresh })
      if (result === null) throw unknownToken()
      const { row, authority, use } = result.found
      uses.record('token', row.id, use)
      return new KnownIdentity({
        authority,
        roles: row.roles,
        expiresAt: row.expires_at,
        staleMs: result.staleMs,
        origin,
      })
    },
    peek: (token, cacheNowMs) => {
      const found = context.cache?.peek(keyOf(token), cacheNowMs) as Found | undefined
      const nowMs = clock.nowMs()
      const ready =
        found !== undefined && validityOf(found, nowMs) === 'valid' && !isUseDue(found.use, nowMs)
      return ready ? found.authority : null
    },
  }
}

async function createToken(
  { clock }: AccessContext,
  log: AuditLog,
  { tx, by }: { readonly tx: Queryable; readonly by: Identity },
  input: TokenInput,
): Promise<{ token: string; info: ApiToken }> {
  by.require('tokens.manage')
  const [counted] = await tx.run(count)
  const maker = by.authority.actor
  const { name, roles, expiresAt } = checkedToken(input, {
    nowMs: clock.nowMs(),
    tooMany: (counted?.count ?? 0) >= tokensMax,
    latest: maker.kind === 'token' ? await endOfToken(tx, maker.id) : null,
  })
  await requireCoversRoles(tx, by, roles, 'token would do')
  const id = newId(clock.nowMs())
  const { token, hint } = newApiToken()
  await tx.run(insert, [
    id,
    name,
    hashSecret(token),
    hint,
    timestamp(clock.nowMs()),
    maker.kind === 'user' ? maker.id : null,
    maker.kind === 'token' ? maker.id : null,
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
}

/** When a token ends, read under a lock: the identity of the caller can be from memory. */
async function endOfToken(tx: Queryable, id: string | null): Promise<string | null> {
  const [maker] = await tx.run(lockOne, [id])
  if (maker === undefined) throw unknownToken()
  return maker.expires_at
}

type Found = { readonly row: TokenRow; readonly authority: BoundAuthority; readonly use: LastUse }

function cacheKey(secret: Buffer): string {
  return `access:token:${secret.toString('latin1')}`
}

function validityOf({ row: { expires_at } }: Found, nowMs: number): Validity {
  return expires_at !== null && Date.parse(expires_at) <= nowMs ? 'ended' : 'valid'
}

function unknownToken(): UnauthenticatedError {
  return new UnauthenticatedError(
    'The API token is wrong, has expired or was deleted; check it, or make a new one.',
  )
}

function sourceOf(context: AccessContext, secret: Buffer): CredentialSource<Found> {
  return {
    key: cacheKey(secret),
    fill: async (fill) => {
      const [row] = await fill.run(find, [secret])
      if (row === undefined) return null
      fill
        .row('api_token', row.id)
        .list('api_token_role', [{ field: 'token_id', is: 'eq', value: row.id }])
      return foundOf(row, await context.roleCache.permissionsIn(fill, row.roles))
    },
    readPrimary: async () => {
      const [row] = await context.database.run(find, [secret])
      return row === undefined ? null : foundOf(row, await context.roleCache.permissions(row.roles))
    },
    validity: (found) => validityOf(found, context.clock.nowMs()),
  }
}

function foundOf(row: TokenRow, permissions: PermissionSet): Found {
  return {
    row,
    authority: new BoundAuthority({ kind: 'token', id: row.id, name: row.name }, permissions),
    use: lastUseOf(row.last_used_at),
  }
}

/** `latest`: when the token that makes it ends; null: never. */
function checkedToken(
  input: TokenInput,
  limits: { readonly nowMs: number; readonly tooMany: boolean; readonly latest: string | null },
): TokenInput {
  const { nowMs, tooMany, latest } = limits
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
  else if (latest !== null && (expiresAt === null || Date.parse(expiresAt) > Date.parse(latest)))
    problems.push({
      path: '/expiresAt',
      message: `must not be after ${latest}, when the token that makes it ends.`,
    })
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
    createdBy: makerOf(row),
    expiresAt: row.expires_at,
    lastUsedAt: row.last_used_at,
    hint,
  }
}

function makerOf({ created_by, created_by_token }: TokenRow): ApiToken['createdBy'] {
  if (created_by !== null) return { kind: 'user', id: created_by }
  return created_by_token === null ? null : { kind: 'token', id: created_by_token }
}
