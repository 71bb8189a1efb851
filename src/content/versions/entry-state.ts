import assert from 'node:assert/strict'
import { EntryNotFoundError } from '#content/errors.ts'
import type { Model, TypeModel } from '#content/model/model.ts'
import type { RevisedType } from '#content/model/model.ts'
import { StaleModel } from '#content/model/model.ts'
import { anyVersionOf, typeSql } from '#content/version-table.ts'
import type { TypeStatement } from '#content/version-table.ts'
import { topOf, versionColumns } from '#content/versions/version.ts'
import type { Version } from '#content/versions/version.ts'
import { sql } from '#database/database.ts'
import type { Queryable, Statement } from '#database/database.ts'
import { isId } from '#lib/id.ts'

/**
 * A version is added beside a published one once per publishing: waiting for more than this many in
 * a row is a defect.
 */
const lockAttemptsMax = 100

/** An entry with the versions that it holds: the latest and the published one of each locale. */
export type EntryState = {
  /** The revision of the model under which it was read. */
  readonly model: string
  readonly id: string
  readonly type: string
  readonly createdAt: string
  readonly createdById: string | null
  readonly archivedAt: string | null
  readonly held: readonly Version[]
  /** The highest number in each locale. */
  readonly numbers: ReadonlyMap<string, number>
}

/** An entry without its versions. */
export type EntryHead = Pick<EntryState, 'id' | 'type' | 'createdAt' | 'createdById' | 'archivedAt'>

export type LockMode = 'reading' | 'keeping' | 'writing' | 'deleting'

const headsWith = (lock: string): Statement<EntryHead> =>
  sql<EntryHead>(`
  select id, type, created_at as "createdAt", created_by ->> 'id' as "createdById",
    archived_at as "archivedAt"
  from stoa.entry where id = any($1::uuid[]) order by id ${lock}`)

const headStatements: Readonly<Record<LockMode, Statement<EntryHead>>> = {
  reading: headsWith(''),
  keeping: headsWith('for key share'),
  writing: headsWith('for no key update'),
  deleting: headsWith('for update'),
}

type HeldRow = Version & { model: string; id: string | null; top: number }

const heldWith = (lock: string): TypeStatement<HeldRow> =>
  typeSql(
    (table) => `
  with v as (
    select * from ${table} where entry_id = any($1::uuid[]) and (is_latest or is_published)
      order by entry_id, locale, number ${lock}
  )
  select m.revision as model, v.entry_id as id, ${versionColumns},
    ${topOf(table, 'v.entry_id', 'v.locale')} as top
  from stoa.model m left join v on true order by v.entry_id, v.locale, v.number`,
  )

const readHeld = heldWith('')
/**
 * Optimistic saves lock nothing but the row that they replace, so a writer that goes on from the
 * held rows locks them.
 */
const lockHeld = heldWith('for no key update')

/**
 * Whether each locale shows its latest version. One that does not was waited for while a save added
 * a version beside the published one: it was committed after the statement began, which therefore
 * did not see it.
 */
function isWhole(rows: readonly Pick<Version, 'locale' | 'isLatest'>[]): boolean {
  const latest = new Set(rows.filter((row) => row.isLatest).map((row) => row.locale))
  // An entry that was only reserved has none: a row without a version then.
  return rows.every((row) => row.locale === null || latest.has(row.locale))
}

const readVersion = typeSql<Version>(
  (table) =>
    `select ${versionColumns} from ${anyVersionOf(table)} v
      where v.entry_id = $1 and v.locale = $2 and v.number = $3`,
)

/** `type` is null where an entry of any type may be meant. */
export type EntryToRead = {
  readonly model: Model
  readonly type: TypeModel | null
  readonly id: string
}

/**
 * Reads an entry; with `writing` and `deleting` under its lock, which no other writer of it passes
 * until the transaction ends; with `keeping` it is not deleted until then. The lock comes first, in
 * a statement of its own, so that what is read then is what holds.
 */
export async function entryState(
  tx: Queryable,
  { model, type, id }: EntryToRead,
  lock: LockMode,
): Promise<EntryState> {
  const [head] = isId(id) ? await entryHeads(tx, [id], lock) : []
  if (head === undefined || (type !== null && head.type !== type.definition.name)) {
    throw new EntryNotFoundError()
  }
  const known = type ?? knownType(model, head.type)
  const [state] = await entryStates(tx, { revision: model.revision, type: known }, [head], lock)
  return state!
}

/** The entries with these ids, without their versions, locked in the order of their ids. */
export async function entryHeads(
  tx: Queryable,
  ids: readonly string[],
  lock: LockMode,
): Promise<EntryHead[]> {
  return tx.run(headStatements[lock], [ids])
}

/** These entries of one type with their versions. Throws `StaleModel`. */
export async function entryStates(
  tx: Queryable,
  { revision, type }: RevisedType,
  heads: readonly EntryHead[],
  lock: LockMode,
): Promise<EntryState[]> {
  const locking = lock === 'writing' || lock === 'deleting'
  const statement = type.statements.of(locking ? lockHeld : readHeld)
  const read = (): Promise<HeldRow[]> => tx.run(statement, [heads.map((head) => head.id)])
  const rows = locking ? await whole(read) : await read()
  if (rows[0]?.model !== revision) throw new StaleModel()
  const byEntry = Map.groupBy(rows, (row) => row.id)
  return heads.map((head) => {
    const held = byEntry.get(head.id) ?? []
    return { ...head, model: revision, held, numbers: topNumbers(held) }
  })
}

/** A type that this model does not know is one that was made since. */
function knownType(model: Model, name: string): TypeModel {
  const type = model.types.get(name)
  if (type === undefined) throw new StaleModel()
  return type
}

/**
 * Reads and locks until nothing is missing, which takes one more time for each save that came
 * between.
 */
async function whole(read: () => Promise<HeldRow[]>): Promise<HeldRow[]> {
  for (let attempt = 1; ; attempt += 1) {
    const rows = await read()
    if ([...Map.groupBy(rows, (row) => row.id).values()].every(isWhole)) return rows
    assert.ok(attempt < lockAttemptsMax, 'an entry has a locale without a latest version')
  }
}

/**
 * The highest number of each locale: a row that was waited for may have a higher one than its
 * statement counted.
 */
function topNumbers(
  rows: readonly { readonly locale: string; readonly number: number; readonly top: number }[],
): Map<string, number> {
  const numbers = new Map<string, number>()
  for (const { locale, number, top } of rows)
    numbers.set(locale, Math.max(numbers.get(locale) ?? 0, number, top))
  return numbers
}

export async function versionOf(
  tx: Queryable,
  type: TypeModel,
  version: { readonly id: string; readonly locale: string; readonly number: number },
): Promise<Version | null> {
  const { id, locale, number } = version
  const [row] = await tx.run(type.statements.of(readVersion), [id, locale, number])
  return row ?? null
}

/** The locales an entry has, the default one first. */
export function localesOf(state: Pick<EntryState, 'held'>, model: Model): string[] {
  const codes = state.held.filter((row) => row.isLatest).map((row) => row.locale)
  return codes.sort(
    (a, b) =>
      Number(b === model.defaultLocale) - Number(a === model.defaultLocale) || (a < b ? -1 : 1),
  )
}
