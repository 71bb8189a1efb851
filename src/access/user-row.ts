import type { User } from '#access/access.ts'

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
export const userColumns = `u.id, u.email, u.name, u.state, u.created_at, u.last_login_at, array(select r.role from stoa.user_role r where r.user_id = u.id order by r.role) as roles`

export function userOf(row: UserRow): User {
  const { id, email, name, state, roles } = row
  return { id, email, name, roles, state, createdAt: row.created_at, lastLoginAt: row.last_login_at }
}
