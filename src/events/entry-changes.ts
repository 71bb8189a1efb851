import { hash } from 'node:crypto'
import type { Change, Row } from '#change-feed/change.ts'
import type { EntryChange } from '#content/content.ts'

/**
 * The effects of transactions on entries, made of the changes of their rows. A transaction may
 * touch the rows of an entry several times, and the change feed gives them in no order. So rows
 * that it both made and replaced cancel each other; the row before and the row after are left.
 */

/** `number` is the same on every node, and says nothing of what else the transaction changed. */
export type TransactionChange = EntryChange & { readonly xid: number; readonly number: string }

/** The collection of content, as the change feed names it. */
const versions = 'version'
const numberLength = 12

const perspectives = {
  published: { flag: 'is_published', ignored: ['is_latest', 'is_archived', 'filter_revision'] },
  draft: { flag: 'is_latest', ignored: ['filter_revision'] },
} as const
type Perspective = keyof typeof perspectives

/**
 * The changes of one batch, in the order of their transactions' ids. Null: something happened to
 * entries that was not recorded row by row.
 */
export function entryChanges(changes: readonly Change[]): readonly TransactionChange[] | null {
  const groups = new Map<string, Change[]>()
  for (const change of changes) {
    if (change.collection !== versions) continue
    if (!isRecorded(change)) return null
    const key = `${change.xid} ${change.key}`
    const group = groups.get(key)
    if (group === undefined) groups.set(key, [change])
    else group.push(change)
  }
  return [...groups.values()]
    .flatMap((group) => [...netOf(group, 'published'), ...netOf(group, 'draft')])
    .sort((one, other) => one.xid - other.xid || (one.number < other.number ? -1 : 1))
}

function isRecorded({ operation, key, before, after }: Change): boolean {
  if (operation === 'flush' || key === null) return false
  return (operation === 'insert' || before !== null) && (operation === 'delete' || after !== null)
}

/** Rows of one perspective that a transaction replaced and made. */
type Rows = { readonly before: Row[]; readonly after: Row[] }

function netOf(changes: readonly Change[], perspective: Perspective): TransactionChange[] {
  const { flag } = perspectives[perspective]
  const rows: Rows = { before: [], after: [] }
  let shown = 0
  for (const change of changes) {
    const before = change.before?.[flag] === true ? change.before : null
    const after = change.after?.[flag] === true ? change.after : null
    if (before !== null && after !== null && isSame(before, after, perspective)) continue
    if (before !== null || after !== null) shown += 1
    if (before !== null) rows.before.push(before)
    if (after !== null) rows.after.push(after)
  }
  if (shown > 1) cancel(rows, perspective)
  const [before = null, after = null] = [rows.before[0], rows.after[0]]
  const row = before ?? after
  if (row === null) return []
  const { xid, key } = changes[0]!
  const [type, id, locale] = [row['type'], row['entry_id'], row['locale']].map(String)
  const number = hash('sha256', `${perspective} ${key}`, 'hex').slice(0, numberLength)
  return [{ xid, number, type: type!, id: id!, locale: locale!, perspective, before, after }]
}

/**
 * True where a row changed, but nothing that this perspective shows: a published version that is no
 * longer the latest, because there is a draft now. A row in which nothing that is recorded changed
 * may have changed in a field that is not, so it counts as changed.
 */
function isSame(before: Row, after: Row, perspective: Perspective): boolean {
  return (
    textOf(before, perspective) === textOf(after, perspective) &&
    JSON.stringify(before) !== JSON.stringify(after)
  )
}

function cancel({ before, after }: Rows, perspective: Perspective): void {
  for (let at = before.length - 1; at >= 0; at -= 1) {
    const text = textOf(before[at]!, perspective)
    const same = after.findIndex((row) => textOf(row, perspective) === text)
    if (same < 0) continue
    before.splice(at, 1)
    after.splice(same, 1)
  }
}

function textOf(row: Row, perspective: Perspective): string {
  const ignored: readonly string[] = perspectives[perspective].ignored
  return JSON.stringify(Object.entries(row).filter(([name]) => !ignored.includes(name)))
}
