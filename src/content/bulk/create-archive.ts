import { isDeepStrictEqual } from 'node:util'
import type {
  Archive,
  ArchiveCheck,
  ArchivedEntry,
  ArchivedRelease,
  ArchivedVersion,
  ArchiveOutcome,
} from '#content/bulk/archive.ts'
import type { Bulk, BulkItem } from '#content/bulk/bulk.ts'
import { inHalves, requireEverything } from '#content/bulk/halves.ts'
import type { OwnedVersion } from '#content/versions/write-edits.ts'
import {
  beginBatch,
  syncReferencesAndClaims,
  insertVersions,
} from '#content/versions/write-edits.ts'
import { readArchive, readChosenArchive, readReleaseArchive } from '#content/bulk/read-archive.ts'
import type { Call, Entries } from '#content/content.ts'
import type { ContentType } from '#content/content-type.ts'
import { ValidationError } from '#content/errors.ts'
import type { Context } from '#content/context.ts'
import { atomically } from '#content/context.ts'
import { encodeFields } from '#content/versions/entry-edit.ts'
import type { Version } from '#content/versions/version.ts'
import { lockTargets, targetFaults } from '#content/versions/references.ts'
import type { Model, TypeModel } from '#content/model/model.ts'
import { modelOfType } from '#content/model/model.ts'
import { typeSql } from '#content/version-table.ts'
import { sql } from '#database/database.ts'
import type { Queryable } from '#database/database.ts'
import { isId } from '#lib/id.ts'
import { StoaError } from '#lib/stoa-error.ts'

const insertEntries = sql<object>(`
  insert into stoa.entry (id, type, created_at, created_by)
  select id, $4::text, created_at, created_by::json
  from unnest($1::uuid[], $2::timestamptz[], $3::text[]) as e (id, created_at, created_by)
  order by id
  on conflict (id) do nothing`)
const lockEntries = typeSql<{ id: string; type: string; versions: boolean }>(
  (table) => `
  select id, type, exists (select from ${table} v where v.entry_id = e.id) as versions
  from stoa.entry e where id = any($1::uuid[]) order by id for no key update`,
)
const setEntries = sql<object>(`
  update stoa.entry e set created_at = s.created_at, created_by = s.created_by::json,
    archived_at = s.archived_at, locale_count = s.locales
  from unnest($1::uuid[], $2::timestamptz[], $3::text[], $4::timestamptz[], $5::int[])
    as s (id, created_at, created_by, archived_at, locales)
  where e.id = s.id`)
const insertActions = sql<object>(`
  insert into stoa.schedule (id, entry_id, locale, action, number, due_at, created_at, created_by)
  select id, entry_id, locale, action, version, due_at, created_at, created_by
  from json_to_recordset($1::json) as a (id uuid, entry_id uuid, locale text, action text,
    version int, due_at timestamptz, created_at timestamptz, created_by json)
  on conflict (id) do nothing`)
const insertRelease = sql<{ id: string }>(`
  insert into stoa.release (id, name, state, created_at, created_by, published_at, published_by)
    values ($1, $2, $3, $4, $5, $6, $7)
  on conflict (id) do nothing returning id`)
const insertItems = sql<object>(`
  insert into stoa.release_item (release_id, entry_id, locale, action, number, number_before,
    published_before)
  select $1::uuid, entry_id, locale, action, version, version_before, published_before
  from json_to_recordset($2::json) as i (entry_id uuid, locale text, action text, version int,
    version_before int, published_before timestamptz)`)

export type ArchiveParts = {
  readonly context: Context
  readonly entries: Entries
  readonly bulk: Bulk
}

export function createArchive(parts: ArchiveParts): Archive {
  const { models } = parts.context
  return {
    entries: (call, type, page) =>
      models.use(call.db, (model) =>
        readArchive(requireEverything(call, type), model, model.type(type), page),
      ),
    releases: (call, page) => readReleaseArchive(call, page),
    check: checkEntry,
    restore: async (call, type, entries) => {
      requireEverything(call, type)
      return inHalves(
        entries,
        (some) => restore(parts, call, type, some),
        (error) => ({ outcome: 'refused', reason: error.message }),
      )
    },
    restoreRelease: (call, release) => restoreRelease(call, release),
  }
}

/**
 * Implements `Archive.check`. Values must be what the type would have stored, since they are stored
 * as they are.
 */
function checkEntry(definition: ContentType, entry: ArchivedEntry): ArchiveCheck {
  const type = modelFor(definition)
  const faults: string[] = []
  const entries = new Set<string>()
  const assets = new Set<string>()
  for (const [locale, versions] of Object.entries(entry.locales)) {
    for (const version of versions) {
      const kept = type.validator.project(version.fields)
      if (!isDeepStrictEqual(JSON.parse(JSON.stringify(kept)), version.fields)) {
        const [fault] = type.validator.validate(version.fields, { publishing: false }).faults
        const reason =
          fault === undefined ? 'values are not in stored form.' : `${fault.path}: ${fault.message}`
        faults.push(`Version ${version.number} in ${locale} is not of the type: ${reason}`)
      }
      if (!version.latest && !version.published) continue
      for (const target of type.validator.targets(version.fields))
        (target.kind === 'entry' ? entries : assets).add(target.id)
    }
    if (versions.filter((version) => version.latest).length !== 1)
      faults.push(`The locale ${locale} has not one latest version.`)
    if (versions.filter((version) => version.published).length > 1)
      faults.push(`The locale ${locale} has several published versions.`)
    if (new Set(versions.map((version) => version.number)).size !== versions.length)
      faults.push(`The locale ${locale} has a version twice.`)
  }
  return { faults, entries: [...entries], assets: [...assets] }
}

const models = new WeakMap<ContentType, TypeModel>()

function modelFor(definition: ContentType): TypeModel {
  let model = models.get(definition)
  if (model === undefined) {
    model = modelOfType(definition, { revision: 1, shape_revision: 1, filter_revision: 1 })
    models.set(definition, model)
  }
  return model
}

async function restore(
  parts: ArchiveParts,
  call: Call,
  typeName: string,
  entries: readonly ArchivedEntry[],
): Promise<ArchiveOutcome[]> {
  const outcomes = await parts.context.models.use(call.db, (model) =>
    atomically(call.db, (tx) =>
      restoreTogether({ ...call, db: tx }, model, model.type(typeName), entries),
    ),
  )
  const result: ArchiveOutcome[] = []
  for (const [index, outcome] of outcomes.entries())
    result.push(
      outcome === 'differs' ? await overwrite(parts, call, typeName, entries[index]!) : outcome,
    )
  return result
}

async function restoreTogether(
  call: Call,
  model: Model,
  type: TypeModel,
  entries: readonly ArchivedEntry[],
): Promise<(ArchiveOutcome | 'differs')[]> {
  const tx = call.db
  await beginBatch(tx)
  const ids = entries.map((entry) => entry.id)
  await tx.run(insertEntries, [
    ids,
    entries.map((entry) => entry.createdAt),
    entries.map((entry) => JSON.stringify(entry.createdBy)),
    type.definition.name,
  ])
  const locked = new Map(
    (await tx.run(type.statements.of(lockEntries), [ids])).map((row) => [row.id, row]),
  )
  const there = entries.filter((entry) => locked.get(entry.id)?.versions === true)
  const existing = new Map(
    (
      await readChosenArchive(
        call,
        model,
        type,
        there.map((entry) => entry.id),
      )
    ).map((entry) => [entry.id, entry]),
  )
  const fresh = entries.filter(
    (entry) =>
      locked.get(entry.id)?.versions === false &&
      locked.get(entry.id)?.type === type.definition.name,
  )
  await insertFresh(call, model, type, fresh)
  return entries.map((entry) => {
    if (locked.get(entry.id)?.type !== type.definition.name)
      return { outcome: 'refused', reason: 'There is an entry of another type with this id.' }
    const before = existing.get(entry.id)
    if (before === undefined)
      return { outcome: Object.keys(entry.locales).length === 0 ? 'unchanged' : 'made' }
    return isDeepStrictEqual(shown(before), shown(entry)) ? { outcome: 'unchanged' } : 'differs'
  })
}

async function insertFresh(
  call: Call,
  model: Model,
  type: TypeModel,
  entries: readonly ArchivedEntry[],
): Promise<void> {
  if (entries.length === 0) return
  const tx = call.db
  const owned = entries.flatMap((entry) =>
    rowsOf(type, entry).map((row): OwnedVersion => ({ id: entry.id, row })),
  )
  const held = owned.filter(({ row }) => row.isLatest || row.isPublished)
  await checkTargets(
    call,
    type,
    held.map(({ row }) => row),
  )
  await insertVersions(tx, { revision: model.revision, type }, owned)
  const counts = entries.map((entry) => Math.max(1, Object.keys(entry.locales).length))
  await tx.run(setEntries, [
    entries.map((entry) => entry.id),
    entries.map((entry) => entry.createdAt),
    entries.map((entry) => JSON.stringify(entry.createdBy)),
    entries.map((entry) => entry.archivedAt),
    counts,
  ])
  const byId = Map.groupBy(held, ({ id }) => id)
  await syncReferencesAndClaims(
    tx,
    { revision: model.revision, type },
    entries.map((entry) => ({
      id: entry.id,
      held: (byId.get(entry.id) ?? []).map(({ row }) => row),
    })),
  )
  const actions = entries.flatMap((entry) =>
    entry.schedule.map((action) => ({
      id: action.id,
      entry_id: entry.id,
      locale: action.locale,
      action: action.action,
      version: action.version,
      due_at: action.dueAt,
      created_at: action.createdAt,
      // It will run with the rights of its maker, which an archive cannot give.
      created_by: call.authority.actor,
    })),
  )
  if (actions.length > 0) await tx.run(insertActions, [JSON.stringify(actions)])
}

async function checkTargets(call: Call, type: TypeModel, rows: readonly Version[]): Promise<void> {
  if (type.pointing.size === 0) return
  // The type may have become narrower since the entry was saved: its references stay.
  const targets = rows
    .flatMap((row) => type.validator.targets(JSON.parse(row.data) as Record<string, unknown>))
    .map((target) => ({ ...target, types: null }))
  const faults = targetFaults(targets, await lockTargets(call.db, targets))
  if (faults.length > 0) throw new ValidationError(faults)
}

function rowsOf(type: TypeModel, entry: ArchivedEntry): Version[] {
  return Object.entries(entry.locales).flatMap(([locale, versions]) =>
    versions.map((version) => ({
      ...encodeFields(type, version.fields),
      locale,
      number: version.number,
      typeRevision: type.revision,
      filterRevision: type.revision,
      isLatest: version.latest,
      isPublished: version.published,
      isArchived: entry.archivedAt !== null && version.latest,
      createdAt: version.createdAt,
      createdById: entry.createdBy.id,
      savedAt: version.savedAt,
      savedBy: JSON.stringify(version.savedBy),
      publishedAt: version.publishedAt,
      publishedBy: version.publishedBy === null ? null : JSON.stringify(version.publishedBy),
      firstPublishedAt: version.firstPublishedAt,
    })),
  )
}

/** The content that readers and editors see, by which two entries are compared. */
function shown(entry: ArchivedEntry): unknown {
  const locales = Object.entries(entry.locales).map(
    ([locale, versions]) =>
      [
        locale,
        { latest: fieldsOf(versions, 'latest'), published: fieldsOf(versions, 'published') },
      ] as const,
  )
  return { archived: entry.archivedAt !== null, locales: Object.fromEntries(locales) }
}

function fieldsOf(versions: readonly ArchivedVersion[], role: 'latest' | 'published'): unknown {
  return versions.find((version) => version[role])?.fields ?? null
}

/** New versions with the content of the archive on top of what is there. */
async function overwrite(
  { entries, bulk }: ArchiveParts,
  call: Call,
  type: string,
  entry: ArchivedEntry,
): Promise<ArchiveOutcome> {
  try {
    for (const [locale, versions] of Object.entries(entry.locales)) {
      const published = versions.find((version) => version.published)
      const latest = versions.find((version) => version.latest)
      const items: BulkItem[] = []
      if (published !== undefined)
        items.push({ id: entry.id, locale, fields: published.fields, publish: true })
      if (latest !== undefined && latest !== published)
        items.push({ id: entry.id, locale, fields: latest.fields, publish: false })
      const refused = (await bulk.save(call, type, items)).find(
        (outcome) => outcome.outcome === 'refused',
      )
      if (refused !== undefined) return refused
      if (published === undefined)
        await entries.unpublish(call, { type, id: entry.id }, [locale], null)
    }
    if (entry.archivedAt !== null) await entries.archive(call, { type, id: entry.id }, true, null)
    return { outcome: 'changed' }
  } catch (error) {
    if (!(error instanceof StoaError) || error.code.startsWith('E_DATABASE_')) throw error
    return { outcome: 'refused', reason: error.message }
  }
}

async function restoreRelease(call: Call, release: ArchivedRelease): Promise<ArchiveOutcome> {
  if (!isId(release.id))
    return { outcome: 'refused', reason: 'The id of a release is a UUID in small letters.' }
  return atomically(call.db, async (tx: Queryable): Promise<ArchiveOutcome> => {
    const values = [
      release.id,
      release.name,
      release.state,
      release.createdAt,
      JSON.stringify(release.createdBy),
      release.publishedAt,
      release.publishedBy === null ? null : JSON.stringify(release.publishedBy),
    ]
    if ((await tx.run(insertRelease, values)).length > 0) {
      const items = release.items.map((item) => ({
        entry_id: item.entryId,
        locale: item.locale,
        action: item.action,
        version: item.version,
        version_before: item.versionBefore,
        published_before: item.publishedBefore,
      }))
      await tx.run(insertItems, [release.id, JSON.stringify(items)])
      return { outcome: 'made' }
    }
    const there = (
      await readReleaseArchive({ ...call, db: tx }, { after: before(release.id), limit: 1 })
    ).find((one) => one.id === release.id)
    return isDeepStrictEqual(there, JSON.parse(JSON.stringify(release)))
      ? { outcome: 'unchanged' }
      : { outcome: 'refused', reason: 'There is a release with this id that differs.' }
  })
}

/** The id just before this one, for reading from it on. */
function before(id: string): string {
  const value = BigInt(`0x${id.replaceAll('-', '')}`)
  const hex = (value - 1n).toString(16).padStart(32, '0')
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})/, '$1-$2-$3-$4-')
}
