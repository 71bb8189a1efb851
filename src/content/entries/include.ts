import type { Grant } from '#content/authority.ts'
import type { Call, EntryView, IncludedAsset, ReadOptions } from '#content/content.ts'
import { grantOf, seesChanges } from '#content/entries/permission.ts'
import { statusOf, viewOf, viewOfRow } from '#content/entries/view.ts'
import { storedFields } from '#content/versions/version.ts'
import type { Model, TypeModel } from '#content/model/model.ts'
import { StaleModel } from '#content/model/model.ts'
import { dependOnAsset, dependOnEntry } from '#content/query/dependencies.ts'
import { followPath } from '#content/query/include-path.ts'
import type { EntryRow } from '#content/query/sql.ts'
import { compileByIds } from '#content/query/sql.ts'
import type { TypeStatement } from '#content/version-table.ts'
import { typeSql } from '#content/version-table.ts'
import type { Version } from '#content/versions/version.ts'
import { versionColumns } from '#content/versions/version.ts'
import { sql } from '#database/database.ts'
import type { Statement } from '#database/database.ts'

/** Entries and assets that one response includes at most. */
export const includedMax = 1_000
/** Bytes of the stored fields of all entries that one response includes. */
export const includedBytesMax = 2 * 1024 * 1024
/** Entries that one statement fetches: what comes beyond the bounds is at most this many. */
const fetchedTogether = 100

/**
 * More is reached than one response includes. A list ends its page earlier; an entry alone is
 * refused.
 */
export class IncludeTooLarge extends Error {}

type Path = readonly string[]

/** An entry whose fields are followed, along what is left of the paths. */
type Source = {
  readonly type: TypeModel
  readonly grant: Grant
  readonly id: string
  readonly locale: string
  readonly paths: readonly Path[]
  readonly data: () => Record<string, unknown>
}

/** A field to follow, by its stored path such as `gallery.image`, and what follows from there. */
type Step = { readonly field: string; readonly next: readonly Path[] }
type Ask = { readonly source: Source; readonly step: Step; readonly place: number }

/** An entry that was reached and that the caller may read. */
type Reached = Omit<Source, 'paths'> & { readonly place: number; readonly view: EntryView }
type Target = {
  readonly place: number
  readonly id: string
  /** Null: an asset. */
  readonly type: string | null
}

export type Include = {
  readonly call: Call
  readonly model: Model
  readonly reading: Pick<ReadOptions, 'locale' | 'perspective'>
  readonly paths: readonly string[]
}

type Included = {
  readonly entries: ReadonlyMap<string, EntryView>
  readonly assets: ReadonlyMap<string, IncludedAsset>
}

export type From = { readonly type: TypeModel; readonly grant: Grant; readonly row: EntryRow }

/**
 * Returns the entries and assets that the paths of `include` lead to, each once, in the perspective
 * and locale of the entries they come from. Permission is asked for the type of each entry reached,
 * and the grant's filter applied, so that nothing arrives by a reference that would not be readable
 * by itself. An asset may be seen by everyone who may read an entry that shows it. The caller runs
 * this in one snapshot with the rows. Throws `IncludeTooLarge`.
 */
export async function includedFrom(include: Include, from: readonly From[]): Promise<Included> {
  return new Including(include).run(from)
}

class Including {
  readonly #include: Include
  readonly #entries = new Map<string, EntryView>()
  readonly #assets = new Set<string>()
  readonly #dependencies = new Set<string>()
  #bytes = 0

  constructor(include: Include) {
    this.#include = include
  }

  async run(from: readonly From[]): Promise<Included> {
    const paths = this.#include.paths.map((path) => path.split('.'))
    let sources: Source[] = from.map(({ type, grant, row }) => ({
      type,
      grant,
      id: row.id,
      locale: row.locale,
      paths,
      data: () => storedFields(type, row),
    }))
    while (sources.length > 0) {
      const { asks, steps } = asksOf(sources)
      if (asks.length === 0) break
      const reached = await this.#follow(asks)
      const next = new Map<string, Source>()
      for (const { place, view, ...source } of reached) {
        if (!this.#entries.has(source.id)) this.#entries.set(source.id, view)
        const step = steps[place]!
        if (step.next.length > 0) next.set(`${place} ${source.id}`, { ...source, paths: step.next })
      }
      sources = [...next.values()]
    }
    return { entries: this.#entries, assets: await this.#readAssets() }
  }

  async #follow(asks: readonly Ask[]): Promise<Reached[]> {
    const { perspective } = this.#include.reading
    const targets =
      typeof perspective === 'string'
        ? await this.#heldTargets(asks, perspective)
        : await this.#targetsInData(asks)
    const entries = targets.filter((target) => target.type !== null)
    for (const { id, type } of targets) if (type === null) this.#assets.add(id)
    // A target that does not show itself now may do so later.
    for (const { id } of entries) this.#dependencies.add(id)
    this.#checkCount(this.#dependencies.size + this.#assets.size)
    const reached: Reached[] = []
    for (const [name, group] of Map.groupBy(entries, (target) => target.type!)) {
      const type = this.#include.model.types.get(name)
      const grant = type === undefined ? null : grantOf(this.#include.call, this.#action, type)
      if (type === undefined || grant === null) continue
      const ids = [...new Set(group.map((target) => target.id))]
      const found = new Map<string, Omit<Reached, 'place'>>()
      for (let at = 0; at < ids.length; at += fetchedTogether)
        for (const one of await this.#readEntries(type, grant, ids.slice(at, at + fetchedTogether)))
          found.set(one.id, one)
      for (const { id, place } of group) {
        const one = found.get(id)
        if (one !== undefined) reached.push({ ...one, place })
      }
    }
    return reached
  }

  get #action(): 'read' | 'readDraft' {
    return this.#include.reading.perspective === 'published' ? 'read' : 'readDraft'
  }

  #checkCount(count: number): void {
    if (count > includedMax) throw new IncludeTooLarge()
  }

  #countBytes(id: string, data: string): void {
    if (!this.#entries.has(id)) this.#bytes += Buffer.byteLength(data)
    if (this.#bytes > includedBytesMax) throw new IncludeTooLarge()
  }

  /** By the rows of `stoa.reference`, so that no entry's data has to be parsed. */
  async #heldTargets(
    asks: readonly Ask[],
    perspective: 'published' | 'draft',
  ): Promise<readonly Target[]> {
    const { call, model } = this.#include
    const targets = await call.db.run(heldTargets[perspective], [
      asks.map((ask) => ask.source.id),
      asks.map((ask) => ask.source.locale),
      asks.map((ask) => ask.step.field),
      asks.map((ask) => ask.place),
    ])
    if (targets.length >= targetsMax) throw new IncludeTooLarge()
    if (targets.length > 0 && targets[0]?.model !== model.revision) throw new StaleModel()
    return targets
  }

  /** A release shows versions that have no rows in `stoa.reference`: their data is parsed. */
  async #targetsInData(asks: readonly Ask[]): Promise<readonly Target[]> {
    const pointers = asks.flatMap(({ source, step, place }) => {
      const name = step.field.split('.', 1)[0]!
      return source.type.validator
        .targets({ [name]: source.data()[name] })
        .filter((target) => target.path === step.field)
        .map(({ kind, id }) => ({ kind, id, place }))
    })
    const ids = new Set(pointers.filter(({ kind }) => kind === 'entry').map(({ id }) => id))
    this.#checkCount(ids.size)
    const rows = ids.size === 0 ? [] : await this.#include.call.db.run(typesOfEntries, [[...ids]])
    const types = new Map(rows.map((row) => [row.id, row.type]))
    return pointers.flatMap(({ kind, id, place }): Target[] => {
      if (kind === 'asset') return [{ id, place, type: null }]
      const type = types.get(id)
      return type === undefined ? [] : [{ id, place, type }]
    })
  }

  async #readEntries(
    type: TypeModel,
    grant: Grant,
    ids: readonly string[],
  ): Promise<Omit<Reached, 'place'>[]> {
    const { perspective } = this.#include.reading
    // A filter takes part in the choice of the locale.
    return typeof perspective === 'string' && grant.filter === null
      ? this.#readHeld(type, grant, ids, perspective)
      : this.#readInScope(type, grant, ids)
  }

  async #readHeld(
    type: TypeModel,
    grant: Grant,
    ids: readonly string[],
    perspective: 'published' | 'draft',
  ): Promise<Omit<Reached, 'place'>[]> {
    const { call, model, reading } = this.#include
    const statement = type.statements.of(heldRows[perspective])
    const rows = await call.db.run(statement, [ids, model.chain(reading.locale)])
    const onlyPublished = perspective === 'published' && !seesChanges(call, type)
    return rows.map(({ id, ...row }) => {
      const status = onlyPublished ? 'published' : statusOf(row)
      this.#countBytes(id, row.data)
      const view = { ...viewOf(type, { id }, row, grant), status }
      return { id, type, grant, locale: row.locale, view, data: () => storedFields(type, row) }
    })
  }

  async #readInScope(
    type: TypeModel,
    grant: Grant,
    ids: readonly string[],
  ): Promise<Omit<Reached, 'place'>[]> {
    const { call, model, reading } = this.#include
    const scope = {
      type: type.definition.name,
      schema: type.schema,
      locales: model.chain(reading.locale),
      perspective: reading.perspective,
      grantFilter: grant.filter,
      draftsSeen: reading.perspective !== 'published' || seesChanges(call, type),
      archivedIncluded: typeof reading.perspective === 'object',
    }
    const { statement, values } = compileByIds(scope, ids)
    const rows = await call.db.run(statement, values)
    return rows.map((row) => {
      if (row.modelRevision !== model.revision) throw new StaleModel()
      this.#countBytes(row.id, row.data)
      const view = viewOfRow(type, row, grant.fields)
      const data = (): Record<string, unknown> => storedFields(type, row)
      return { id: row.id, type, grant, locale: row.locale, view, data }
    })
  }

  async #readAssets(): Promise<ReadonlyMap<string, IncludedAsset>> {
    const { call, reading } = this.#include
    const ids = [...this.#assets]
    const rows = ids.length === 0 ? [] : await call.db.run(assetRows, [ids])
    const { depends } = call
    const { perspective } = reading
    if (depends !== undefined) {
      for (const id of this.#dependencies) dependOnEntry(depends, { perspective }, id)
      for (const id of ids) dependOnAsset(depends, id)
    }
    return new Map(
      rows.map(({ bytes, focalX: x, focalY: y, ...row }) => [
        row.id,
        { ...row, bytes: Number(bytes), focalPoint: x === null || y === null ? null : { x, y } },
      ]),
    )
  }
}

/** The steps of all sources; sources of one type with the same paths share their steps. */
function asksOf(sources: readonly Source[]): { asks: Ask[]; steps: Step[] } {
  const steps: Step[] = []
  const places = new Map<readonly Path[], Map<TypeModel, number[]>>()
  const asks = sources.flatMap((source) => {
    const byType = places.get(source.paths) ?? new Map<TypeModel, number[]>()
    places.set(source.paths, byType)
    const known = byType.get(source.type) ?? stepsOf(source).map((step) => steps.push(step) - 1)
    byType.set(source.type, known)
    return known.map((place) => ({ source, place, step: steps[place]! }))
  })
  return { asks, steps }
}

/** The fields that the paths lead to in this type, of those that the caller may see. */
function stepsOf({ type, grant, paths }: Source): Step[] {
  const next = new Map<string, Path[]>()
  for (const path of paths) {
    const found = followPath(type.definition.fields, path)
    if (found === null || grant.fields?.includes(path[0]!) === false) continue
    const field = path.slice(0, found.length).join('.')
    const rest = path.slice(found.length)
    next.set(field, [...(next.get(field) ?? []), ...(rest.length === 0 ? [] : [rest])])
  }
  return [...next].map(([field, rests]) => ({ field, next: rests }))
}

/** Pointers of one step: one target may be reached by several steps. */
const targetsMax = includedMax * 4

type TargetRow = Target & { readonly model: string }

const targetsOf = (perspective: 'published' | 'draft'): Statement<TargetRow> =>
  sql<TargetRow>(`
  select distinct s.place, r.target_id as id, e.type, (select revision from stoa.model) as model
  from unnest($1::uuid[], $2::text[], $3::text[], $4::int[]) as s (id, locale, path, place)
  join stoa.reference r on r.entry_id = s.id and r.locale = s.locale
    and r.perspective = '${perspective}' and r.path = s.path
  left join stoa.entry e on e.id = r.target_id and r.target_kind = 'entry'
  where r.target_kind = 'asset' or e.id is not null
  limit ${targetsMax}`)

/**
 * One row for each entry that the perspective shows in one of the locales, in the first of them.
 */
const shownRows = (shown: string): TypeStatement<Version & { readonly id: string }> =>
  typeSql(
    (table) => `
  select distinct on (v.entry_id) v.entry_id as id, ${versionColumns}
  from ${table} v where v.entry_id = any($1::uuid[]) and ${shown} and v.locale = any($2::text[])
  order by v.entry_id, array_position($2::text[], v.locale)`,
  )

const heldTargets = { published: targetsOf('published'), draft: targetsOf('draft') }
const heldRows = {
  published: shownRows('v.is_published'),
  draft: shownRows('v.is_latest and not v.is_archived'),
}

const typesOfEntries = sql<{ id: string; type: string }>(
  `select id, type from stoa.entry where id = any($1::uuid[])`,
)

type AssetRow = Omit<IncludedAsset, 'bytes' | 'focalPoint'> & {
  readonly bytes: string
  readonly focalX: number | null
  readonly focalY: number | null
}
const assetRows = sql<AssetRow>(`
  select id, name, content_type as "contentType", bytes, width, height, alt as "altJson",
    focal_x as "focalX", focal_y as "focalY"
  from stoa.asset where id = any($1::uuid[])`)
