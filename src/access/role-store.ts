import type { Access, Identity, Role } from '#access/access.ts'
import type { AuditLog } from '#access/audit.ts'
import { RoleBuiltInError, RoleInUseError, RoleNotFoundError } from '#access/errors.ts'
import type { AccessContext } from '#access/access-context.ts'
import { requireCovers } from '#access/identity.ts'
import { administratorRole, PermissionSet } from '#access/permissions.ts'
import { checkRole, roleNamePattern } from '#access/role-input.ts'
import { roleOf } from '#access/role-row.ts'
import type { RoleRow } from '#access/role-row.ts'
import type { ContentType } from '#content/content-type.ts'
import { sql } from '#database/database.ts'
import type { Queryable } from '#database/database.ts'
import { ConstraintError } from '#database/errors.ts'

/** Roles that an installation can have: all of them are compiled in memory. */
const rolesMax = 500

const columns = 'name, label, content, system, built_in'
const all = sql<RoleRow>(`select ${columns} from stoa.role order by built_in desc, name`)
const some = sql<RoleRow>(`select ${columns} from stoa.role where name = any($1)`)
const locked = sql<RoleRow>(`select ${columns} from stoa.role where name = $1 for update`)
const count = sql<{ count: number }>(`select count(*)::int as count from stoa.role`)
const upsert = sql<RoleRow>(`
  insert into stoa.role (name, label, content, system) values ($1, $2, $3, $4)
  on conflict (name) do update set label = excluded.label, content = excluded.content,
    system = excluded.system, updated_at = now()
  returning ${columns}`)
const remove = sql(`delete from stoa.role where name = $1`)
const definitions = sql<{ definition: string }>(
  `select definition from stoa.content_type where name = any($1)`,
)

/** The roles of these names; `RoleNotFoundError` names the first that is missing. */
export async function readRoles(db: Queryable, names: readonly string[]): Promise<Role[]> {
  const possible = names.filter((name) => roleNamePattern.test(name))
  const found = new Map((await db.run(some, [possible])).map((row) => [row.name, roleOf(row)]))
  return names.map((name) => {
    const role = found.get(name)
    if (role === undefined) throw new RoleNotFoundError(name)
    return role
  })
}

/** Throws unless `by` may do all that these roles allow. */
export async function requireCoversRoles(
  db: Queryable,
  by: Identity,
  names: readonly string[],
  what: string,
): Promise<void> {
  requireCovers(by, new PermissionSet(await readRoles(db, names)), what)
}

export function roleStore(context: AccessContext, log: AuditLog): Access['roles'] {
  const { database } = context
  return {
    list: async () => (await database.run(all)).map(roleOf),
    get: async (name) => (await readRoles(database, [name]))[0]!,
    save: (db, by, input, precondition) =>
      db.transaction(async (tx) => {
        by.require('roles.manage')
        if (input.name === administratorRole)
          throw new RoleBuiltInError(
            'The role administrator always allows everything; make a role of your own instead.',
          )
        const [row] = roleNamePattern.test(input.name) ? await tx.run(locked, [input.name]) : []
        const before = row === undefined ? null : roleOf(row)
        precondition?.(before)
        const typeNames = [...new Set(input.content.map((grant) => grant.type))].filter((type) =>
          roleNamePattern.test(type),
        )
        const types = (await tx.run(definitions, [typeNames])).map(
          ({ definition }) => JSON.parse(definition) as ContentType,
        )
        const [counted] = await tx.run(count)
        const role = checkRole(
          input,
          types,
          before === null && (counted?.count ?? 0) >= rolesMax ? rolesMax : null,
        )
        requireCovers(by, new PermissionSet([{ ...role, builtIn: false }]), 'role allows')
        if (before !== null) requireCovers(by, new PermissionSet([before]), 'role allows')
        const [saved] = await tx.run(upsert, [
          role.name,
          role.label,
          JSON.stringify(role.content),
          role.system,
        ])
        const { builtIn: _builtIn, ...was } = before ?? { builtIn: false }
        await log.audit(tx, by, {
          action: before === null ? 'role.create' : 'role.update',
          subject: `role:${role.name}`,
          facts: { before: before === null ? null : was, after: role },
        })
        return roleOf(saved!)
      }),
    delete: (db, by, name, precondition) =>
      db.transaction(async (tx) => {
        by.require('roles.manage')
        const [row] = roleNamePattern.test(name) ? await tx.run(locked, [name]) : []
        if (row === undefined) throw new RoleNotFoundError(name)
        precondition?.(roleOf(row))
        if (row.built_in)
          throw new RoleBuiltInError(`The role ${name} is built in and cannot be deleted.`)
        requireCovers(by, new PermissionSet([roleOf(row)]), 'role allows')
        try {
          await tx.run(remove, [name])
        } catch (error) {
          if (error instanceof ConstraintError && error.kind === 'foreignKey')
            throw new RoleInUseError(name)
          throw error
        }
        await log.audit(tx, by, { action: 'role.delete', subject: `role:${name}`, facts: {} })
      }),
  }
}
