import type { Role, SystemPermission } from '#access/access.ts'
import { systemPermissions } from '#access/access.ts'
import { administratorRole } from '#access/permissions.ts'
import { contentActions } from '#content/authority.ts'

/** A role as a row of `stoa.role`, or as the same row in JSON. */
export type RoleRow = {
  readonly name: string
  readonly label: string
  readonly content: string | Role['content']
  readonly system: readonly string[]
  readonly built_in: boolean
}

const knownPermissions: ReadonlySet<string> = new Set(systemPermissions)

/**
 * Permissions that this version does not know (a newer one saved them) are left out: they allow
 * nothing here.
 */
export function roleOf(row: RoleRow): Role {
  const shown = { name: row.name, label: row.label, builtIn: row.built_in }
  if (row.name === administratorRole) {
    return {
      ...shown,
      content: [{ type: '*', actions: contentActions, filter: null, fields: null }],
      system: systemPermissions,
    }
  }
  const content =
    typeof row.content === 'string' ? (JSON.parse(row.content) as Role['content']) : row.content
  return {
    ...shown,
    content,
    system: row.system.filter((name): name is SystemPermission => knownPermissions.has(name)),
  }
}
