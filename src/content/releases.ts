import type { Grant } from '#content/authority.ts'
import type { Call, Release, ReleaseItem, Releases } from '#content/content.ts'
import {
  ForbiddenError,
  ReleaseNotFoundError,
  ReleaseStateError,
  ReleaseSupersededError,
  ValidationError,
  VersionNotFoundError,
} from '#content/errors.ts'
import type { Context } from '#content/context.ts'
import { publishItems, supersededItems, undoItems } from '#content/release-items.ts'
import type { ReleaseWork, StoredItem } from '#content/release-items.ts'
import { atomically, stampNow } from '#content/context.ts'
import { entryState, versionOf } from '#content/versions/entry-state.ts'
import { headColumns, latestOf } from '#content/versions/version.ts'
import type { VersionHead } from '#content/versions/version.ts'
import { grantOf, grantCovers } from '#content/entries/permission.ts'
import { callInOneSnapshot } from '#content/entries/snapshot.ts'
import { requireLocales, requireVersion } from '#content/entries/locale-rights.ts'
import { upgradeKept } from '#content/versions/upgraded-filter.ts'
import type { Model, TypeModel } from '#content/model/model.ts'
import { isStorableText } from '#content/query/normal-form.ts'
import { typeSql } from '#content/version-table.ts'
import { sql } from '#database/database.ts'
import type { Queryable } from '#database/database.ts'
import { isId, newId } from '#lib/id.ts'

const itemsMax = 1_000
const pageMax = 200
/** A page ends with the release that reaches this number of items, and `after` goes on. */
const pageItemsMax = 2_000
const nameLengthMax = 200
const namedMax = 20

type Row = {
  readonly id: string
  readonly name: string
  readonly state: Release['state']
  readonly createdAt: string
  readonly publishedAt: string | null
  readonly items: string | null
}
const itemJson = `json_build_object(
    'entryId', i.entry_id, 'type', e.type, 'locale', i.locale, 'action', i.action,
    'version', i.number, 'numberBefore', i.number_before,
    'publishedBefore', to_char(i.published_before, 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'))`
const columns = `r.id, r.name, r.state, r.created_at as "createdAt",
  r.published_at as "publishedAt",
  (select json_agg(${itemJson} order by i.entry_id, i.locale)
   from stoa.release_item i join stoa.entry e on e.id = i.entry_id
   where i.release_id = r.id) as items`

const readOne = sql<Row>(`select ${columns} from stoa.release r where r.id = $1`)
/** `there` is how many releases the page would have without its bound on items. */
const readPage = sql<Row & { there: number }>(`
  with page as (
    select id from stoa.release r where $1::uuid is null or r.id < $1 order by r.id desc limit $2
  ), counted as (
    select id, sum(items) over (order by id desc) - items as before,
      (count(*) over ())::int as there
    from (
      select p.id, (select count(*) from stoa.release_item i where i.release_id = p.id) as items
      from page p) c
  )
  select ${columns}, c.there from counted c join stoa.release r on r.id = c.id
  where c.before < ${pageItemsMax} order by r.id desc`)
const lockOne = sql<object>(`select 1 from stoa.release where id = $1 for no key update`)
const insertRelease = sql<object>(
  `insert into stoa.release (id, name, created_at, created_by) values ($1, $2, $3, $4)`,
)
const upsertItem = sql<object>(`
  insert into stoa.release_item (release_id, entry_id, locale, action, number)
    values ($1, $2, $3, $4, $5)
  on conflict (release_id, entry_id, locale) do update
    set action = excluded.action, number = excluded.number`)
const deleteItem = sql<object>(
  `delete from stoa.release_item where release_id = $1 and entry_id = $2 and locale = $3`,
)
const keepBefore = sql<object>(
  `update stoa.release_item set number_before = $4, published_before = $5
    where release_id = $1 and entry_id = $2 and locale = $3`,
)
const setState = sql<object>(
  `update stoa.release set state = $2, published_at = coalesce($3, published_at),
    published_by = coalesce($4::json, published_by) where id = $1`,
)
const readLatestHeads = typeSql<VersionHead & { id: string }>(
  (table) =>
    `select v.entry_id as id, ${headColumns} from ${table} v
      where v.entry_id = any($1::uuid[]) and v.is_latest`,
)
const deleteRelease = sql<object>(`delete from stoa.release where id = $1`)

function itemsOf(row: Row): StoredItem[] {
  return row.items === null ? [] : (JSON.parse(row.items) as StoredItem[])
}

/**
 * Releases are for those who publish or see drafts of something; of the items they see those that
 * they may publish or see as drafts.
 */
const seeingActions = ['publish', 'readDraft'] as const
type SeeingActions = readonly (typeof seeingActions)[number][]

function seeingGrants(
  call: Call,
  type: TypeModel,
  actions: SeeingActions = seeingActions,
): Grant[] {
  return actions.map((action) => grantOf(call, action, type)).filter((grant) => grant !== null)
}

function requireReleaseReader(call: Call, model: Model): void {
  if (model.types.size === 0 && call.authority.actor.kind !== 'anonymous') return
  if ([...model.types.values()].some((type) => seeingGrants(call, type).length > 0)) return
  throw new ForbiddenError('You may not see releases. Ask a user whose role may publish.', {})
}

function requirePublisher(call: Call, model: Model): void {
  if (model.types.size === 0 && call.authority.actor.kind !== 'anonymous') return
  if ([...model.types.values()].some((type) => grantOf(call, 'publish', type) !== null)) return
  throw new ForbiddenError(
    'You may not make or change releases. Ask a user whose role may publish.',
    {},
  )
}

async function releasesOf(work: ReleaseWork, rows: readonly Row[]): Promise<Release[]> {
  const parsed = rows.map((row) => ({ row, items: itemsOf(row) }))
  const seen = await seenItems(
    work,
    parsed.flatMap(({ items }) => items),
  )
  return parsed.map(({ row, items }) => ({
    id: row.id,
    name: row.name,
    state: row.state,
    createdAt: row.createdAt,
    publishedAt: row.publishedAt,
    items: items
      .filter((item) => seen.has(item))
      .map(({ entryId, type, locale, action, version }) => ({
        entryId,
        type,
        locale,
        action,
        version,
      })),
  }))
}

/** Returns a release as the caller sees it now. */
async function releaseOf(work: ReleaseWork, id: string): Promise<Release> {
  return (await releasesOf(work, [await read(work.call.db, id)]))[0]!
}

/**
 * Returns the items that the caller sees: all of some types, and of others those whose latest
 * version a grant's filter covers. Only these are looked up.
 */
async function seenItems(
  { call, model }: ReleaseWork,
  items: readonly StoredItem[],
  actions: SeeingActions = seeingActions,
): Promise<ReadonlySet<StoredItem>> {
  const grantsOf = new Map(
    [...model.types].map(([name, type]) => [name, seeingGrants(call, type, actions)]),
  )
  const grants = ({ type }: StoredItem): readonly Grant[] => grantsOf.get(type) ?? []
  const whole = (item: StoredItem): boolean => grants(item).some((grant) => grant.filter === null)
  const asked = items.filter((item) => grants(item).length > 0 && !whole(item))
  const rows: (VersionHead & { id: string })[] = []
  for (const [name, group] of Map.groupBy(asked, ({ type }) => type)) {
    const ids = [...new Set(group.map(({ entryId }) => entryId))]
    rows.push(...(await call.db.run(model.type(name).statements.of(readLatestHeads), [ids])))
  }
  const latest = new Map(rows.map((row) => [`${row.id} ${row.locale}`, row]))
  const reached = (item: StoredItem): boolean => {
    const row = latest.get(`${item.entryId} ${item.locale}`)
    return (
      row !== undefined &&
      grants(item).some((grant) => grantCovers(grant, model.type(item.type), item.entryId, row))
    )
  }
  return new Set(items.filter((item) => whole(item) || reached(item)))
}

async function read(db: Queryable, id: string): Promise<Row> {
  const [row] = isId(id) ? await db.run(readOne, [id]) : []
  if (row === undefined) throw new ReleaseNotFoundError()
  return row
}

/** Reads a release under its lock, in the state that the work needs. */
async function locked(
  tx: Queryable,
  id: string,
  state: Release['state'] | null,
  verb: string,
): Promise<Row> {
  if (isId(id)) await tx.run(lockOne, [id])
  const row = await read(tx, id)
  if (state === null || row.state === state) return row
  throw new ReleaseStateError(`The release is ${row.state}: it cannot be ${verb}.`, {
    state: row.state,
  })
}

export function createReleases(context: Context): Releases {
  const writing = <T>(call: Call, run: (work: ReleaseWork) => Promise<T>): Promise<T> =>
    context.models.use(call.db, (model) =>
      atomically(call.db, async (tx) => {
        await context.models.confirm(tx, model)
        requirePublisher(call, model)
        return run({ context, call: { ...call, db: tx }, model })
      }),
    )
  const reading = <T>(call: Call, run: (work: ReleaseWork) => Promise<T>): Promise<T> =>
    context.models.use(call.db, (model) =>
      callInOneSnapshot(call, async (together) => {
        await context.models.confirm(together.db, model)
        requireReleaseReader(together, model)
        return run({ context, call: together, model })
      }),
    )
  return {
    list: (call, page) => reading(call, (work) => list(work, page)),
    get: (call, id) => reading(call, (work) => releaseOf(work, id)),
    create: (call, name) => writing(call, (work) => create(work, name)),
    put: (call, id, items) => writing(call, (work) => put(work, id, items)),
    remove: (call, id, item) => writing(call, (work) => remove(work, id, item)),
    publish: (call, id) => writing(call, (work) => publish(work, id)),
    undo: (call, id) => writing(call, (work) => undo(work, id)),
    delete: (call, id) => writing(call, (work) => deleteOne(work, id)),
  }
}

async function deleteOne(work: ReleaseWork, id: string): Promise<void> {
  const tx = work.call.db
  const row = await locked(tx, id, null, 'deleted')
  if (row.state === 'published')
    throw new ReleaseStateError(
      'The release is published: undo it first, or keep it as a record.',
      {
        state: row.state,
      },
    )
  await requireItems(work, itemsOf(row))
  await tx.run(deleteRelease, [id])
}

async function list(
  work: ReleaseWork,
  page: { readonly limit: number; readonly after: string | null },
): Promise<{ data: Release[]; after: string | null }> {
  if (!Number.isInteger(page.limit) || page.limit < 1 || page.limit > pageMax)
    throw new ValidationError([
      { path: '/limit', code: 'tooLarge', message: `Ask for 1 to ${pageMax} releases.` },
    ])
  if (page.after !== null && !isId(page.after))
    throw new ValidationError([
      {
        path: '/after',
        code: 'format',
        message: 'Repeat `meta.after` of the page before, or leave it out.',
      },
    ])
  const rows = await work.call.db.run(readPage, [page.after, page.limit + 1])
  const shown = rows.slice(0, page.limit)
  return {
    data: await releasesOf(work, shown),
    after: (rows[0]?.there ?? 0) > shown.length ? (shown.at(-1)?.id ?? null) : null,
  }
}

async function create(work: ReleaseWork, name: string): Promise<Release> {
  const { context, call } = work
  if (name.trim() === '' || name.length > nameLengthMax || !isStorableText(name)) {
    throw new ValidationError([
      {
        path: '/name',
        code: 'text',
        message: `A release has a name of 1 to ${nameLengthMax} characters.`,
      },
    ])
  }
  const id = newId(context.clock.nowMs())
  await call.db.run(insertRelease, [
    id,
    name.trim(),
    stampNow(context),
    JSON.stringify(call.authority.actor),
  ])
  return releaseOf(work, id)
}

async function put(
  work: ReleaseWork,
  id: string,
  items: readonly Omit<ReleaseItem, 'type'>[],
): Promise<Release> {
  const { call, model } = work
  const tx = call.db
  const row = await locked(tx, id, 'open', 'changed')
  const keys = new Set([...itemsOf(row), ...items].map((item) => `${item.entryId} ${item.locale}`))
  if (keys.size > itemsMax)
    throw new ReleaseStateError(`A release has at most ${itemsMax} items.`, { limit: itemsMax })
  for (const item of [...items].sort((a, b) => (a.entryId < b.entryId ? -1 : 1))) {
    const state = await entryState(tx, { model, type: null, id: item.entryId }, 'keeping')
    const locale = model.locale(item.locale)
    const type = model.type(state.type)
    const { grant } = requireLocales(call, 'publish', { type, state, model }, [locale])
    const latest = latestOf(state, locale)
    const version = item.action === 'unpublish' ? null : (item.version ?? latest?.number ?? null)
    const pinned =
      version === null
        ? null
        : await versionOf(tx, type, { id: item.entryId, locale, number: version })
    if (pinned !== null)
      requireVersion(call, 'publish', grant, { type, id: item.entryId, row: pinned })
    if (pinned !== null && pinned.filterRevision < type.filterRevision)
      await upgradeKept(tx, type, item.entryId, pinned)
    if (item.action === 'unpublish' ? latest === null : pinned === null) {
      throw new VersionNotFoundError(
        `The entry has no version ${version ?? ''} in the locale "${locale}".`,
        { entryId: item.entryId, locale, version },
      )
    }
    await tx.run(upsertItem, [id, item.entryId, locale, item.action, version])
  }
  return releaseOf(work, id)
}

async function remove(
  work: ReleaseWork,
  id: string,
  item: { readonly entryId: string; readonly locale: string },
): Promise<Release> {
  const tx = work.call.db
  const row = await locked(tx, id, 'open', 'changed')
  const present = itemsOf(row).filter(
    ({ entryId, locale }) => entryId === item.entryId && locale === item.locale,
  )
  if (present.length > 0) {
    await requireItems(work, present)
    await tx.run(deleteItem, [id, item.entryId, item.locale])
  }
  return releaseOf(work, id)
}

/** Throws unless the caller may publish every one of these items. */
async function requireItems(work: ReleaseWork, items: readonly StoredItem[]): Promise<void> {
  const seen = await seenItems(work, items, ['publish'])
  if (items.every((item) => seen.has(item))) return
  throw new ForbiddenError(
    'The release holds items that you may not publish. Ask a user whose role may.',
    {},
  )
}

async function publish(work: ReleaseWork, id: string): Promise<Release> {
  const { context, call } = work
  const tx = call.db
  const row = await locked(tx, id, 'open', 'published')
  const items = itemsOf(row)
  await requireItems(work, items)
  await publishItems(work, items, async ({ entryId, locale }, before) => {
    const replaced = [before?.number ?? null, before?.publishedAt ?? null]
    await tx.run(keepBefore, [id, entryId, locale, ...replaced])
  })
  await tx.run(setState, [id, 'published', stampNow(context), JSON.stringify(call.authority.actor)])
  return releaseOf(work, id)
}

async function undo(work: ReleaseWork, id: string): Promise<Release> {
  const tx = work.call.db
  const row = await locked(tx, id, 'published', 'undone')
  const items = itemsOf(row)
  await requireItems(work, items)
  const newer = await supersededItems(work, items)
  if (newer.length > 0) {
    const named = newer
      .slice(0, namedMax)
      .map(({ entryId, type, locale }) => ({ entryId, type, locale }))
    throw new ReleaseSupersededError(
      `Something newer was published since, or taken back, in entry ${named[0]?.entryId}, ` +
        `${named[0]?.locale}. Undo nothing, or publish what you want one by one.`,
      { items: named, count: newer.length },
    )
  }
  await undoItems(work, items)
  await tx.run(setState, [id, 'undone', null, null])
  return releaseOf(work, id)
}
