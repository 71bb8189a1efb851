import { timestamp } from '#access/access-context.ts'
import type { AccessContext } from '#access/access-context.ts'
import { systemIdentity } from '#access/identity.ts'
import { BoundAuthority, PermissionSet } from '#access/permissions.ts'
import { roleOf } from '#access/role-row.ts'
import type { RoleRow } from '#access/role-row.ts'
import type { AuthorityOf } from '#content/authority.ts'
import { sql } from '#database/database.ts'

const columns = 'r.name, r.label, r.content, r.system, r.built_in'
const rolesOfUser = sql<RoleRow>(`
  select ${columns} from stoa.user u
  join stoa.user_role h on h.user_id = u.id
  join stoa.role r on r.name = h.role
  where u.id = $1 and u.state = 'active'`)
const rolesOfToken = sql<RoleRow>(`
  select ${columns} from stoa.api_token t
  join stoa.api_token_role h on h.token_id = t.id
  join stoa.role r on r.name = h.role
  where t.id = $1 and (t.expires_at is null or t.expires_at > $2)`)

/** The rights of an actor as the database has them now, for actions that were stored for later. */
export function authorityNow({ clock }: Pick<AccessContext, 'clock'>): AuthorityOf {
  return async (db, actor) => {
    if (actor.kind === 'system') return systemIdentity.authority
    if (actor.id === null) return null
    const rows =
      actor.kind === 'user'
        ? await db.run(rolesOfUser, [actor.id])
        : await db.run(rolesOfToken, [actor.id, timestamp(clock.nowMs())])
    // A user without roles may do as little as one who is gone.
    return rows.length === 0 ? null : new BoundAuthority(actor, new PermissionSet(rows.map(roleOf)))
  }
}
