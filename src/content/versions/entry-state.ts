import assert from 'node:assert/strict'
import { EntryNotFoundError } from '#content/errors.ts'
import type { Model, TypeModel } from '#content/model/model.ts'
import { StaleModel } from '#content/model/model.ts'
import { anyVersionOf, typeSql } from '#content/version-table.ts'
import { sql } from '#database/database.ts'
import type { Queryable } from '#database/database.ts'
import { isId } from '#lib/id.ts'

/**
 * A version is added beside a published one once per publishing: waiting for more than this many in
 * a row is a defect.
 */
const lockAttemptsMax = 100

/** A row of `stoa.version`, or of `stoa.version_history` without flags; JSON columns are text. */
export type Version = {
  readonly locale: string
  readonly number: number
  readonly data: string
  readonly filter: string
  readonly typeRevision: number
  readonly filterRevision: number
  readonly isLatest: boolean
  readonly isPublished: boolean
  readonly isArchived: boolean
  readonly createdAt: string
  readonly createdById: string | null
  readonly savedAt: string
  readonly savedBy: string
  readonly publishedAt: string | null
  readonly publishedBy: string | null
  readonly firstPublishedAt: string | null
}

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

/** What permissions look at: a version without its fields. */
export type VersionHead = Omit<Version, 'data'>

export const headColumns = `v.locale, v.number, v.filter, v.type_revision as "typeRevision", v.filter_revision as "filterRevision",
  v.is_latest as "isLatest", v.is_published as "isPublished", v.is_archived as "isArchived", v.created_at as "createdAt",
  v.created_by_id as "createdById", v.saved_at as "savedAt", v.saved_by as "savedBy", v.published_at as "publishedAt",
  v.published_by as "publishedBy", v.first_published_at as "firstPublishedAt"`
export const versionColumns = `v.data, ${headColumns}`

/**
 * The highest number of an entry in a locale. The latest version need not have it: one that was
 * published beside it may.
 */
export function topOf(versions: string, entry: string, locale: string): string {
  const highest = (table: string): string =>
    `(select max(number) from ${table} w where w.entry_id = ${entry} and w.locale = ${locale})`
  return `greatest(${highest(versions)}, ${highest('stoa.version_history')})`
}

type EntryRow = {
  readonly type: string
  readonly created_at: string
  readonly created_by_id: string | null
  readonly archived_at: string | null
}

const entryColumns = `e.type, e.created_at, e.created_by ->> 'id' as created_by_id, e.archived_at`
const lockForWriting = sql<EntryRow>(
  `select ${entryColumns} from stoa.entry e where e.id = $1 for no key update`,
)
const lockForDeleting = sql<EntryRow>(
  `select ${entryColumns} from stoa.entry e where e.id = $1 for update`,
)
const lockForKeeping = sql<EntryRow>(
  `select ${entryColumns} from stoa.entry e where e.id = $1 for key share`,
)
const readEntry = sql<EntryRow>(`select ${entryColumns} from stoa.entry e where e.id = $1`)

type HeldRow = Version & { model: string; top: number }

const readHeld = typeSql<HeldRow>(
  (table) => `
  select m.revision as model, ${versionColumns}, ${topOf(table, 'v.entry_id', 'v.locale')} as top
  from stoa.model m left join ${table} v on v.entry_id = $1 and (v.is_latest or v.is_published)
  order by v.locale, v.number`,
)

/**
 * Plain saves lock nothing but the row that they replace, so whoever goes on from the held rows
 * locks them.
 */
const lockHeld = typeSql<HeldRow>(
  (table) => `
  with v as (
    select * from ${table} where entry_id = $1 and (is_latest or is_published) order by locale, number for no key update
  )
  select m.revision as model, ${versionColumns}, ${topOf(table, 'v.entry_id', 'v.locale')} as top
  from stoa.model m left join v on true order by v.locale, v.number`,
)

/**
 * Whether each locale shows its latest version. One that does not was waited for while a save added
 * a version beside the published one: it was committed after the statement began, which therefore
 * did not see it.
 */
export function isWhole(rows: readonly Pick<Version, 'locale' | 'isLatest'>[]): boolean {
  const latest = new Set(rows.filter((row) => row.isLatest).map((row) => row.locale))
  // An entry that was only reserved has none: a row without a version then.
  return rows.every((row) => row.locale === null || latest.has(row.locale))
}

const readVersion = typeSql<Version>(
  (table) =>
    `select ${versionColumns} from ${anyVersionOf(table)} v where v.entry_id = $1 and v.locale = $2 and v.number = $3`,
)

export type LockMode = 'reading' | 'keeping' | 'writing' | 'deleting'

const readers = {
  reading: readEntry,
  keeping: lockForKeeping,
  writing: lockForWriting,
  deleting: lockForDeleting,
}

/**
 * Reads an entry; with `writing` and `deleting` under its lock, which no other writer of it passes
 * until the transaction ends; with `keeping` it is not deleted until then. The lock comes first, in
 * a statement of its own, so that what is read then is what holds.
 */
export async function entryState(
  tx: Queryable,
  model: Model,
  type: TypeModel | null,
  id: string,
  hold: LockMode,
): Promise<EntryState> {
  if (!isId(id)) throw new EntryNotFoundError()
  const [entry] = await tx.run(readers[hold], [id])
  if (entry === undefined || (type !== null && entry.type !== type.definition.name)) {
    throw new EntryNotFoundError()
  }
  const { statements } = type ?? knownType(model, entry.type)
  const rows =
    hold === 'reading' || hold === 'keeping'
      ? await tx.run(statements.of(readHeld), [id])
      : await whole(() => tx.run(statements.of(lockHeld), [id]))
  if (rows[0]?.model !== model.revision) throw new StaleModel()
  const held = rows.filter((row) => row.locale !== null)
  return {
    model: model.revision,
    id,
    type: entry.type,
    createdAt: entry.created_at,
    createdById: entry.created_by_id,
    archivedAt: entry.archived_at,
    held,
    numbers: topNumbers(held),
  }
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
export async function whole<Row extends Pick<Version, 'locale' | 'isLatest'>>(
  read: () => Promise<readonly Row[]>,
  groups: (rows: readonly Row[]) => Iterable<readonly Row[]> = (rows) => [rows],
): Promise<readonly Row[]> {
  for (let attempt = 1; ; attempt += 1) {
    const rows = await read()
    if ([...groups(rows)].every(isWhole)) return rows
    assert.ok(attempt < lockAttemptsMax, 'an entry has a locale without a latest version')
  }
}

/**
 * The highest number of each locale: a row that was waited for may have a higher one than its
 * statement counted.
 */
export function topNumbers(
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

/** The row that holds this role in a locale. */
export function latestOf(state: Pick<EntryState, 'held'>, locale: string): Version | null {
  return state.held.find((row) => row.isLatest && row.locale === locale) ?? null
}

export function publishedOf(state: Pick<EntryState, 'held'>, locale: string): Version | null {
  return state.held.find((row) => row.isPublished && row.locale === locale) ?? null
}

/** The locales an entry has, the default one first. */
export function localesOf(state: Pick<EntryState, 'held'>, model: Model): string[] {
  const codes = state.held.filter((row) => row.isLatest).map((row) => row.locale)
  return codes.sort(
    (a, b) =>
      Number(b === model.defaultLocale) - Number(a === model.defaultLocale) || (a < b ? -1 : 1),
  )
}
