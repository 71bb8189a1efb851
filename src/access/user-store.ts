import type { Access, Identity, User } from '#access/access.ts'
import type { AuditLog } from '#access/audit.ts'
import {
  AccessInputError,
  EmailTakenError,
  LastAdministratorError,
  RoleNotFoundError,
  UserNotFoundError,
} from '#access/errors.ts'
import { timestamp } from '#access/access-context.ts'
import type { AccessContext } from '#access/access-context.ts'
import type { QueueClient } from '#access/fair-queue.ts'
import { checkPassword } from '#access/password.ts'
import type { ProvePassword } from '#access/login.ts'
import { administratorRole } from '#access/permissions.ts'
import { ownUser } from '#access/own-user.ts'
import { requireCoversRoles } from '#access/role-store.ts'
import { endSessionsOf } from '#access/session-store.ts'
import type { Sessions } from '#access/session-store.ts'
import { checkedUser, normaliseEmail } from '#access/user-input.ts'
import { lockedUser, readUser, userColumns, userOf, writeUser } from '#access/user-row.ts'
import type { UserRow } from '#access/user-row.ts'
import { sql } from '#database/database.ts'
import type { Queryable } from '#database/database.ts'
import { ConstraintError } from '#database/errors.ts'
import { isId, newId } from '#lib/id.ts'

const page = sql<UserRow>(
  `select ${userColumns} from stoa.user u
   where $1::uuid is null or u.id > $1 order by u.id limit $2`,
)
const byEmail = sql<UserRow>(`select ${userColumns} from stoa.user u where u.email = $1`)
const insert = sql(
  `insert into stoa.user (id, email, name, password_hash, created_at) values ($1, $2, $3, $4, $5)`,
)
const giveRoles = sql(`insert into stoa.user_role (user_id, role) select $1, unnest($2::text[])`)
const takeRoles = sql(`delete from stoa.user_role where user_id = $1 and not role = any($2)`)
const addRoles = sql(
  `insert into stoa.user_role (user_id, role) select $1, unnest($2::text[]) on conflict do nothing`,
)
const remove = sql(`delete from stoa.user where id = $1`)

/**
 * Taken by every change that could leave no administrator, before any user's row: they go one after
 * the other.
 */
const lockAdministrators = sql(
  `select from stoa.role where name = '${administratorRole}' for no key update`,
)
const administratorLeft = sql<{ left: boolean }>(`
  select exists (
    select from stoa.user_role r join stoa.user u on u.id = r.user_id
    where r.role = '${administratorRole}' and u.state = 'active'
  ) as left`)

type Changes = {
  readonly email?: string
  readonly name?: string
  readonly password?: string
  readonly roles?: readonly string[]
  readonly state?: User['state']
}

/**
 * Inserts a user whose fields were checked by the caller. Errors: `EmailTakenError`,
 * `RoleNotFoundError`.
 */
export async function insertUser(
  tx: Queryable,
  user: {
    readonly email: string
    readonly name: string
    readonly passwordHash: string
    readonly roles: readonly string[]
    readonly nowMs: number
  },
): Promise<User> {
  const id = newId(user.nowMs)
  await translatingConflicts(user.email, async () => {
    await tx.run(insert, [id, user.email, user.name, user.passwordHash, timestamp(user.nowMs)])
    await tx.run(giveRoles, [id, user.roles])
  })
  return readUser(tx, id)
}

async function translatingConflicts<T>(email: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work()
  } catch (error) {
    if (!(error instanceof ConstraintError)) throw error
    if (error.constraint === 'user_email') throw new EmailTakenError(email)
    if (error.constraint === 'user_role_role') throw new RoleNotFoundError('')
    throw error
  }
}

export function userStore(
  context: AccessContext,
  log: AuditLog,
  sessions: Sessions,
  provePassword: ProvePassword,
): Access['users'] {
  const { database, hasher } = context
  return {
    list: async ({ limit, after }) => {
      if (after !== null && !isId(after))
        throw new AccessInputError([
          { path: '/after', message: 'is not from meta.after of a page.' },
        ])
      const rows = await database.run(page, [after, limit + 1])
      const data = rows.slice(0, limit).map(userOf)
      return { data, after: rows.length > limit ? data.at(-1)!.id : null }
    },
    get: (id) => readUser(database, id),
    getByEmail: async (text) => {
      const email = normaliseEmail(text)
      const [row] = email === null ? [] : await database.run(byEmail, [email])
      if (row === undefined) throw new UserNotFoundError(text)
      return userOf(row)
    },
    create: (db, by, input) => createUser(context, log, { db, by }, input),
    update: async (db, by, id, input) => {
      by.require('users.manage')
      const changes = checkedUser(input)
      const { password } = changes
      if (password !== undefined)
        checkPassword(password, changes.email ?? (await readUser(db, id)).email)
      const passwordHash =
        password === undefined ? null : await hasher.hash(password, managerOf(by))
      return db.transaction((tx) => updateUser({ tx, by, log }, id, { ...changes, passwordHash }))
    },
    delete: (db, by, id) =>
      db.transaction(async (tx) => {
        by.require('users.manage')
        await tx.run(lockAdministrators)
        const before = await lockedUser(tx, id)
        await requireCoversRoles(tx, by, before.roles, 'user may do')
        await tx.run(remove, [id])
        if (isActiveAdministrator(before)) await requireAdministratorLeft(tx)
        await log.audit(tx, by, {
          action: 'user.delete',
          subject: `user:${id}`,
          facts: { email: before.email, roles: before.roles },
        })
      }),
    updateOwn: ownUser(context, log, sessions, provePassword),
  }
}

/** The place of a managing caller in the queue for hashes. */
function managerOf(by: Identity): QueueClient {
  const { kind, id } = by.authority.actor
  return { key: `${kind}:${id ?? ''}`, known: true }
}

async function createUser(
  { hasher, clock }: AccessContext,
  log: AuditLog,
  { db, by }: { readonly db: Queryable; readonly by: Identity },
  input: Parameters<Access['users']['create']>[2],
): Promise<User> {
  by.require('users.manage')
  const { email, name, roles } = checkedUser(input)
  checkPassword(input.password, email)
  await requireCoversRoles(db, by, roles, 'gives roles that allow')
  const passwordHash = await hasher.hash(input.password, managerOf(by))
  return db.transaction(async (tx) => {
    const user = await insertUser(tx, {
      email,
      name,
      passwordHash,
      roles,
      nowMs: clock.nowMs(),
    })
    await log.audit(tx, by, {
      action: 'user.create',
      subject: `user:${user.id}`,
      facts: { email, roles },
    })
    return user
  })
}

type Managing = { readonly tx: Queryable; readonly by: Identity; readonly log: AuditLog }

async function updateUser(
  { tx, by, log }: Managing,
  id: string,
  changes: Changes & { readonly passwordHash: string | null },
): Promise<User> {
  const { email, name, roles, state, passwordHash } = changes
  if (roles !== undefined || state !== undefined) await tx.run(lockAdministrators)
  const before = await lockedUser(tx, id)
  // A caller who sets a user's password or email can sign in as that user.
  await requireCoversRoles(tx, by, before.roles, 'user may do')
  if (roles !== undefined) await requireCoversRoles(tx, by, roles, 'gives roles that allow')
  await translatingConflicts(email ?? before.email, () =>
    writeUser(tx, id, { email, name, passwordHash, state }),
  )
  if (roles !== undefined) {
    await tx.run(takeRoles, [id, roles])
    await translatingConflicts(before.email, () => tx.run(addRoles, [id, roles]))
  }
  const user = await readUser(tx, id)
  if (isActiveAdministrator(before) && !isActiveAdministrator(user))
    await requireAdministratorLeft(tx)
  if (passwordHash !== null || user.state === 'disabled') await endSessionsOf(tx, id)
  const facts = differences(before, user, passwordHash !== null)
  if (Object.keys(facts).length > 0)
    await log.audit(tx, by, { action: 'user.update', subject: `user:${id}`, facts })
  return user
}

function isActiveAdministrator(user: User): boolean {
  return user.state === 'active' && user.roles.includes(administratorRole)
}

async function requireAdministratorLeft(tx: Queryable): Promise<void> {
  const [row] = await tx.run(administratorLeft)
  if (row?.left !== true) throw new LastAdministratorError()
}

function differences(before: User, after: User, password: boolean): Record<string, unknown> {
  const facts: Record<string, unknown> = {}
  for (const key of ['email', 'name', 'state', 'roles'] as const) {
    if (JSON.stringify(before[key]) !== JSON.stringify(after[key]))
      facts[key] = { before: before[key], after: after[key] }
  }
  return password ? { ...facts, password: 'changed' } : facts
}
