import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import type { Role } from '#access/access.ts'
import { systemPermissions } from '#access/access.ts'
import { contentActions } from '#content/authority.ts'
import type { ContentAction } from '#content/authority.ts'
import { testAccess } from '#test/support/access.ts'
import { databaseMissing, testDatabase } from '#test/support/database.ts'

const names = ['administrator', 'editor', 'author', 'anonymous']

function cell(role: Role, action: ContentAction): string {
  const grants = role.content.filter((grant) => grant.actions.includes(action))
  assert.ok(
    grants.every((grant) => grant.type === '*' && grant.filter === null && grant.fields === null),
  )
  if (grants.length === 0) return '–'
  return grants.some((grant) => grant.own !== true) ? 'all' : 'own'
}

test(
  'the table of roles in the reference is the one of a fresh install',
  { skip: databaseMissing },
  async () => {
    await using db = await testDatabase()
    const roles = await testAccess(db.database).roles.list()
    assert.deepEqual(roles.map((role) => role.name).sort(), names.toSorted())
    const ordered = names.map((name) => roles.find((role) => role.name === name)!)
    const rows = [
      ...contentActions.map((action) => [action, ...ordered.map((role) => cell(role, action))]),
      ...systemPermissions.map((permission) => [
        permission,
        ...ordered.map((role) => (role.system.includes(permission) ? 'yes' : '–')),
      ]),
    ]
    const page = readFileSync('docs/reference/permissions.md', 'utf8')
    const shown = [
      ...page.matchAll(/^\| `([\w.]+)` \| (\S+) \| (\S+) \| (\S+) \| (\S+) \|$/gm),
    ].map((match) => match.slice(1))
    assert.deepEqual(shown, rows)
  },
)
