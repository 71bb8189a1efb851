import type { Call } from '#content/content.ts'
import { grantOf, mayRead } from '#content/entries/permission.ts'
import { ValidationError } from '#content/errors.ts'
import type { Model } from '#content/model/model.ts'
import type { Target } from '#content/validation/target.ts'
import { typeSql } from '#content/version-table.ts'
import { lockTargets, targetFaults } from '#content/versions/references.ts'
import { versionColumns } from '#content/versions/version.ts'
import type { Version } from '#content/versions/version.ts'
import type { Queryable } from '#database/database.ts'

/**
 * Checks that the targets of new references exist, are of an allowed type and may be read by the
 * caller, and keeps them from being deleted until the transaction ends.
 */
export async function checkTargets(
  call: Call,
  tx: Queryable,
  model: Model,
  targets: readonly Target[],
): Promise<void> {
  const existing = await lockTargets(tx, targets)
  const types = await onlyReadable(call, tx, model, existing.types)
  const faults = targetFaults(targets, { ...existing, types })
  if (faults.length > 0) throw new ValidationError(faults)
}

const heldOfMany = typeSql<Version & { id: string }>(
  (table) => `
  select v.entry_id as id, ${versionColumns} from ${table} v
    where v.entry_id = any($1::uuid[]) and (v.is_latest or v.is_published)`,
)

/**
 * Leaves out the entries that the caller may not read, so that a reference cannot reveal whether a
 * hidden one exists.
 */
async function onlyReadable(
  call: Call,
  tx: Queryable,
  model: Model,
  types: ReadonlyMap<string, string>,
): Promise<ReadonlyMap<string, string>> {
  const doubtful = [...types].filter(([, name]) => {
    const type = model.types.get(name)
    const drafts = type === undefined ? null : grantOf(call, 'readDraft', type)
    return drafts === null || drafts.filter !== null
  })
  const hidden = new Set<string>()
  for (const [name, group] of Map.groupBy(doubtful, ([, one]) => one)) {
    const type = model.types.get(name)
    const ids = group.map(([id]) => id)
    const rows = type === undefined ? [] : await tx.run(type.statements.of(heldOfMany), [ids])
    for (const id of ids) {
      const held = rows.filter((row) => row.id === id)
      if (type === undefined || !mayRead(call, type, { id, held })) hidden.add(id)
    }
  }
  return new Map([...types].filter(([id]) => !hidden.has(id)))
}
