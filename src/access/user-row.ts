import type { User } from '#access/access.ts'
import { UserNotFoundError } from '#access/errors.ts'
import { sql } from '#database/database.ts'
import type { Queryable } from '#database/database.ts'
import { isId } from '#lib/id.ts'

export type UserRow = {
  readonly id: string
  readonly email: string
  readonly name: string
  readonly state: User['state']
  readonly created_at: string
  readonly last_login_at: string | null
  readonly roles: readonly string[]
}

/** For `from stoa.user u`. */
export const userColumns = `u.id, u.email, u.name, u.state, u.created_at, u.last_login_at,
  array(select r.role from stoa.user_role r where r.user_id = u.id order by r.role) as roles`

export function userOf(row: UserRow): User {
  const { id, email, name, state, roles } = row
  return {
    id,
    email,
    name,
    roles,
    state,
    createdAt: row.created_at,
    lastLoginAt: row.last_login_at,
  }
}

const one = sql<UserRow>(`select ${userColumns} from stoa.user u where u.id = $1`)
// Roles are read by a statement of its own: what a locking select shows beside the locked row may
// be older than the lock.
const lockOne = sql(`select from stoa.user where id = $1 for update`)
const change = sql(`
  update stoa.user set email = coalesce($2, email), name = coalesce($3, name),
    password_hash = coalesce($4, password_hash), state = coalesce($5, state)
  where id = $1`)

export async function readUser(db: Queryable, id: string): Promise<User> {
  const [row] = isId(id) ? await db.run(one, [id]) : []
  if (row === undefined) throw new UserNotFoundError(id)
  return userOf(row)
}

/** The user as of the lock, which is held until the transaction ends. */
export async function lockedUser(tx: Queryable, id: string): Promise<User> {
  if (isId(id)) await tx.run(lockOne, [id])
  return readUser(tx, id)
}

type UserChanges = {
  readonly email?: string | undefined
  readonly name?: string | undefined
  readonly passwordHash: string | null
  readonly state?: User['state'] | undefined
}

/** Writes what is given and leaves the rest. */
export async function writeUser(
  tx: Queryable,
  id: string,
  { email, name, passwordHash, state }: UserChanges,
): Promise<void> {
  await tx.run(change, [id, email ?? null, name ?? null, passwordHash, state ?? null])
}
