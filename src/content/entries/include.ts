import type { Grant } from '#content/authority.ts'
import type { Call, EntryView, ReadOptions } from '#content/content.ts'
import type { Version } from '#content/versions/entry-state.ts'
import { versionColumns } from '#content/versions/entry-state.ts'
import { grantOf, grantCovers } from '#content/entries/permission.ts'
import { statusOf, storedFields, viewOf } from '#content/entries/view.ts'
import type { Model, TypeModel } from '#content/model/model.ts'
import { StaleModel } from '#content/model/model.ts'
import { dependOnEntry } from '#content/query/dependencies.ts'
import { QueryLimitError } from '#content/query/errors.ts'
import type { EntryRow } from '#content/query/sql.ts'
import { compileByIds } from '#content/query/sql.ts'
import { referenceOf } from '#content/query/validate-query.ts'
import { typeSql } from '#content/version-table.ts'
import type { TypeStatement } from '#content/version-table.ts'
import { sql } from '#database/database.ts'
import type { Statement } from '#database/database.ts'

/** Entries that one answer includes at most. */
const includedMax = 1_000

/**
 * Steps that follow from here: `author.employer` and `author.friend` make `author → employer,
 * friend`.
 */
type Steps = ReadonlyMap<string, Steps>

type Source = {
  readonly type: TypeModel
  readonly grant: Grant
  readonly id: string
  readonly locale: string
  readonly steps: Steps
  readonly data: () => Record<string, unknown>
}
type Reached = {
  readonly place: number
  readonly id: string
  readonly type: string
  readonly row: Version
  readonly status: EntryView['status']
  readonly filtered: boolean
}

type Include = {
  readonly call: Call
  readonly model: Model
  readonly reading: Pick<ReadOptions, 'locale' | 'perspective'>
  readonly include: readonly string[]
}

/** What one step from one source asks for; `place` tells the answers apart. */
type Ask = { readonly source: Source; readonly name: string; readonly next: Steps }

function stepsOf(paths: readonly (readonly string[])[]): Steps {
  const names = new Set(paths.flatMap(([name]) => (name === undefined ? [] : [name])))
  return new Map(
    [...names].map((name) => [
      name,
      stepsOf(paths.filter((path) => path[0] === name).map((path) => path.slice(1))),
    ]),
  )
}

/**
 * The entries that the paths of `include` lead to, each once, in the perspective and locale of the
 * entries they come from. One statement a level, whatever the types; permission is asked for the
 * type of each entry reached and its filter applied, so that nothing arrives by a reference that
 * would not be readable by itself.
 */
export async function includedEntries(
  include: Include,
  from: readonly { readonly type: TypeModel; readonly grant: Grant; readonly row: EntryRow }[],
): Promise<ReadonlyMap<string, EntryView>> {
  const steps = stepsOf(include.include.map((path) => path.split('.')))
  const found = new Map<string, EntryView>()
  let sources: Source[] = from.map(({ type, grant, row }) => ({
    type,
    grant,
    id: row.id,
    locale: row.locale,
    steps,
    data: () => storedFields(type, row),
  }))
  while (sources.length > 0) {
    const asks = sources.flatMap((source) =>
      [...source.steps].flatMap(([name, next]) =>
        follows(source, name) ? [{ source, name, next }] : [],
      ),
    )
    if (asks.length === 0) break
    const next = new Map<string, Source>()
    for (const reached of await reach(include, asks)) {
      const type = include.model.types.get(reached.type)
      const grant = type === undefined ? null : grantOf(include.call, action(include), type)
      if (type === undefined || grant === null) continue
      const published =
        include.reading.perspective === 'published' &&
        grantOf(include.call, 'readDraft', type) === null
      const status = published ? 'published' : reached.status
      if (!reached.filtered && !grantCovers(grant, type, reached.id, { ...reached.row, status }))
        continue
      if (!found.has(reached.id))
        found.set(reached.id, { ...viewOf(type, reached, reached.row, grant), status })
      const key = `${reached.place} ${reached.id}`
      const { row } = reached
      next.set(key, {
        type,
        grant,
        id: reached.id,
        locale: row.locale,
        steps: asks[reached.place]!.next,
        data: () => storedFields(type, row),
      })
    }
    if (found.size > includedMax) throw tooMany()
    sources = [...next.values()].filter((source) => source.steps.size > 0)
  }
  return found
}

function action(include: Include): 'read' | 'readDraft' {
  return include.reading.perspective === 'published' ? 'read' : 'readDraft'
}

function tooMany(): QueryLimitError {
  return new QueryLimitError(
    `One answer includes at most ${includedMax} entries; ask for fewer entries or paths.`,
    { limit: includedMax },
  )
}

/** Whether the type has such a reference and the one who asks may see it. */
function follows({ type, grant }: Source, name: string): boolean {
  const field = type.definition.fields.find((one) => one.name === name)
  return (
    field !== undefined && referenceOf(field) !== null && grant.fields?.includes(name) !== false
  )
}

async function reach(include: Include, asks: readonly Ask[]): Promise<Reached[]> {
  return typeof include.reading.perspective === 'string'
    ? reachHeld(include, asks, include.reading.perspective)
    : reachByData(include, asks)
}

type TargetRow = {
  readonly place: number
  readonly id: string
  readonly type: string
  readonly model: string
}

/**
 * By the rows of `stoa.reference`, so that no entry's data has to be parsed to learn what it points
 * to.
 */
const targetsOf = (perspective: 'published' | 'draft'): Statement<TargetRow> =>
  sql<TargetRow>(`
  select distinct s.place, e.id, e.type, (select revision from stoa.model) as model
  from unnest($1::uuid[], $2::text[], $3::text[], $4::int[]) as s (id, locale, path, place)
  join stoa.reference r on r.entry_id = s.id and r.locale = s.locale and r.perspective = '${perspective}' and r.path = s.path and r.target_kind = 'entry'
  join stoa.entry e on e.id = r.target_id
  limit ${includedMax * 4}`)

/** One row for each entry that the perspective shows in one of the locales, in the first of them. */
const shownRows = (shown: string): TypeStatement<Version & { readonly id: string }> =>
  typeSql(
    (table) => `
  select distinct on (v.entry_id) v.entry_id as id, ${versionColumns}
  from ${table} v where v.entry_id = any($1::uuid[]) and ${shown} and v.locale = any($2::text[])
  order by v.entry_id, array_position($2::text[], v.locale)`,
  )

const heldStatements = {
  published: { targets: targetsOf('published'), rows: shownRows('v.is_published') },
  draft: { targets: targetsOf('draft'), rows: shownRows('v.is_latest and not v.is_archived') },
}

async function reachHeld(
  include: Include,
  asks: readonly Ask[],
  perspective: 'published' | 'draft',
): Promise<Reached[]> {
  const { call, model, reading } = include
  // Sources of one step share what follows from it, so they share its place, and an entry reached
  // from many comes once.
  const places = new Map<Steps, number>()
  asks.forEach((ask, index) => places.has(ask.next) || places.set(ask.next, index))
  const targets = await call.db.run(heldStatements[perspective].targets, [
    asks.map((ask) => ask.source.id),
    asks.map((ask) => ask.source.locale),
    asks.map((ask) => ask.name),
    asks.map((ask) => places.get(ask.next)!),
  ])
  if (targets.length >= includedMax * 4) throw tooMany()
  if (targets.length > 0 && targets[0]?.model !== model.revision) throw new StaleModel()
  // What does not show itself now may do so later.
  if (call.depends !== undefined)
    for (const id of new Set(targets.map((row) => row.id)))
      dependOnEntry(call.depends, { perspective }, id)
  const reached: Reached[] = []
  for (const [name, group] of Map.groupBy(targets, (target) => target.type)) {
    const type = model.type(name)
    const ids = [...new Set(group.map((target) => target.id))]
    const statement = type.statements.of(heldStatements[perspective].rows)
    const rows = await call.db.run(statement, [ids, model.chain(reading.locale)])
    const byId = new Map(rows.map((row) => [row.id, row]))
    for (const { id, place } of group) {
      const row = byId.get(id)
      if (row !== undefined)
        reached.push({ place, id, type: name, row, status: statusOf(row), filtered: false })
    }
  }
  return reached
}

const typesOf = sql<{ id: string; type: string }>(
  `select id, type from stoa.entry where id = any($1::uuid[])`,
)

/**
 * In a release, versions are shown that hold no rows in `stoa.reference`: what they point to is
 * read from their data.
 */
async function reachByData(include: Include, asks: readonly Ask[]): Promise<Reached[]> {
  const { call, model, reading } = include
  const places = new Map<string, Set<number>>()
  asks.forEach(({ source, name }, place) => {
    for (const target of source.type.validator.targets({ [name]: source.data()[name] })) {
      if (target.kind === 'entry')
        places.set(target.id, (places.get(target.id) ?? new Set()).add(place))
    }
  })
  if (places.size > includedMax) throw tooMany()
  const rows = places.size === 0 ? [] : await call.db.run(typesOf, [[...places.keys()]])
  const reached: Reached[] = []
  for (const name of new Set(rows.map((row) => row.type))) {
    const type = model.types.get(name)
    const grant = type === undefined ? null : grantOf(call, 'readDraft', type)
    if (type === undefined || grant === null) continue
    const scope = {
      type: name,
      schema: type.schema,
      locales: model.chain(reading.locale),
      perspective: reading.perspective,
      grantFilter: grant.filter,
      draftsSeen: true,
    }
    const compiled = compileByIds(
      scope,
      rows.filter((row) => row.type === name).map((row) => row.id),
    )
    for (const row of await call.db.run(compiled.statement, compiled.values)) {
      if (row.modelRevision !== model.revision) throw new StaleModel()
      for (const place of places.get(row.id) ?? [])
        reached.push({
          place,
          id: row.id,
          type: name,
          row: asVersion(row),
          status: row.status,
          filtered: true,
        })
    }
  }
  return reached
}

/** The grant's filter was applied by the statement, so `filter` is not needed any more. */
function asVersion(row: EntryRow): Version {
  return {
    locale: row.locale,
    number: row.version,
    data: row.data,
    filter: '{}',
    typeRevision: row.typeRevision,
    filterRevision: row.typeRevision,
    isLatest: false,
    isPublished: false,
    isArchived: false,
    createdAt: row.createdAt,
    createdById: null,
    savedAt: row.updatedAt,
    savedBy: '{}',
    publishedAt: row.publishedAt,
    publishedBy: null,
    firstPublishedAt: row.firstPublishedAt,
  }
}
