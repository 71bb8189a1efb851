import type { Grant } from '#content/authority.ts'
import type { Call, EntryView, SaveInput } from '#content/content.ts'
import { EntryExistsError, UniqueConflictError, ValidationError } from '#content/errors.ts'
import type { Composed } from '#content/entries/compose.ts'
import { compose, slugBase } from '#content/entries/compose.ts'
import type { Context } from '#content/context.ts'
import { atomically, stampNow } from '#content/context.ts'
import { encodeFields } from '#content/versions/entry-edit.ts'
import { encodePublication, perspectivesOf, searchOf } from '#content/versions/version.ts'
import type { Version } from '#content/versions/version.ts'
import { checkTargets } from '#content/entries/check-targets.ts'
import { claimSlug, claimsOf, freeSlug } from '#content/versions/claims.ts'
import { distinct, insertVersions, syncReferencesAndClaims } from '#content/versions/write-edits.ts'
import { referencesOf } from '#content/versions/references.ts'
import { requireGrantAfterWrite, requireGrantOnType, typeFor } from '#content/entries/permission.ts'
import { viewFor } from '#content/entries/visibility.ts'
import type { Model, TypeModel } from '#content/model/model.ts'
import { StaleModel } from '#content/model/model.ts'
import { normalDateTime } from '#content/validation/date-time.ts'
import { typeSql } from '#content/version-table.ts'
import { sql } from '#database/database.ts'
import type { Queryable } from '#database/database.ts'
import { ConstraintError } from '#database/errors.ts'
import { isId, newId } from '#lib/id.ts'

const insertEntry = sql<{ id: string }>(`
  insert into stoa.entry (id, type, created_at, created_by) values ($1, $2, $3, $4)
    on conflict (id) do nothing returning id`)

/** All parts depend on the row of the entry: where its id is taken, nothing is inserted. */
const insertAll = typeSql<{
  made: boolean
  claimed: string[] | null
  published: string[] | null
  model: string
}>(
  (table) => `
  with made as (
    insert into stoa.entry (id, type, created_at, created_by) values ($1, $2, $3, $4)
      on conflict (id) do nothing returning id
  ), version as (
    insert into ${table} (entry_id, locale, number, type, data, filter,
      type_revision, filter_revision, is_latest, is_published, created_at, created_by_id,
      saved_at, saved_by, published_at, published_by, first_published_at,
      search, search_number, search_revision)
    select id, $5, 1, $2, $6, $7, $8, $8, true, $9, $3, $10, $11, $4, $12, $15::json, $12,
      stoa.search_vector($5, $16::json), 1, $8
    from made
  ), claims as (
    insert into stoa.unique_draft_value (type, field, locale, value, entry_id)
    select $2, c.field, c.locale, c.value, made.id
    from made, json_to_recordset($13::json) as c (field text, locale text, value text)
    order by c.field, c.locale, c.value on conflict do nothing returning field
  ), published as (
    insert into stoa.unique_value (type, field, locale, value, entry_id)
    select $2, c.field, c.locale, c.value, made.id
    from made, json_to_recordset($13::json) as c (field text, locale text, value text)
    where $9 order by c.field, c.locale, c.value on conflict do nothing returning field
  ), refs as (
    insert into stoa.reference (entry_id, locale, perspective, path, target_kind, target_id)
    select made.id, r.locale, r.perspective, r.path, r.target_kind, r.target_id
    from made, json_to_recordset($14::json)
      as r (locale text, perspective text, path text, target_kind text, target_id uuid)
  )
  select exists (select from made) as made,
    (select array_agg(field) from claims) as claimed,
    (select array_agg(field) from published) as published,
    (select revision from stoa.model) as model`,
)

/** Thrown where another entry took the slug between looking and claiming. */
class SlugTaken extends Error {}

export type CreateInput = SaveInput & { readonly id?: string }

/**
 * Makes an entry with its first version, in one statement after looking up slug and targets. If
 * another entry takes the slug meanwhile, the claims are made one by one.
 */
export async function createEntry(
  context: Context,
  call: Call,
  typeName: string,
  input: CreateInput,
): Promise<EntryView> {
  return context.models.use(call.db, async (model) => {
    const plan = prepare(context, call, { model, typeName, input })
    try {
      return await atomically(call.db, (tx) => createAtOnce(call, tx, model, plan))
    } catch (error) {
      if (!(error instanceof SlugTaken)) throw error
      return atomically(call.db, (tx) => createStepByStep(call, tx, model, plan))
    }
  })
}

type Plan = {
  readonly type: TypeModel
  readonly id: string
  readonly composed: Composed
  readonly grant: Grant
  readonly publishGrant: Grant | null
  /** The version, but for its content, which may still get a slug. */
  readonly row: Omit<Version, 'data' | 'filter'>
}

type Creation = { readonly model: Model; readonly typeName: string; readonly input: CreateInput }

function prepare(context: Context, call: Call, { model, typeName, input }: Creation): Plan {
  const type = typeFor(call, model, typeName)
  const locale = model.locale(input.locale)
  const grant = requireGrantOnType(call, 'create', type)
  const publishGrant = input.publish === true ? requireGrantOnType(call, 'publish', type) : null
  const id = input.id ?? newId(context.clock.nowMs())
  if (!isId(id))
    throw new ValidationError([
      {
        path: '/id',
        code: 'format',
        message: 'Give a UUID in small letters, or leave the id out.',
      },
    ])
  const composed = compose(
    type,
    grant,
    { fields: input.fields, merge: false, publishing: input.publish === true },
    {},
  )
  const now = stampNow(context)
  const times = importedTimes(input)
  const by = JSON.stringify(call.authority.actor)
  const publishedAt = publishGrant === null ? null : (times.publishedAt ?? now)
  const row = {
    locale,
    number: 1,
    typeRevision: type.revision,
    filterRevision: type.revision,
    isLatest: true,
    isPublished: publishGrant !== null,
    isArchived: false,
    createdAt: times.createdAt ?? now,
    createdById: call.authority.actor.id,
    savedAt: now,
    savedBy: by,
    publishedAt,
    publishedBy: publishedAt === null ? null : encodePublication(call.authority.actor, publishedAt),
    firstPublishedAt: publishedAt,
  }
  return { type, id, composed, grant, publishGrant, row }
}

/** The row with its content, if the grants reach it. */
function complete(
  { type, id, grant, publishGrant, row }: Plan,
  fields: Readonly<Record<string, unknown>>,
): Version {
  const result = { ...row, ...encodeFields(type, fields) }
  requireGrantAfterWrite(grant, 'create', type, { id: id, row: result })
  if (publishGrant !== null)
    requireGrantAfterWrite(publishGrant, 'publish', type, { id: id, row: result })
  return result
}

async function createAtOnce(
  call: Call,
  tx: Queryable,
  model: Model,
  plan: Plan,
): Promise<EntryView> {
  const { type, id, composed } = plan
  const fields = { ...composed.fields }
  const base = slugBase(type, fields)
  const made =
    base === null ? null : await freeSlug(tx, type, { id, locale: plan.row.locale }, base)
  if (base !== null && made === null) throw new SlugTaken()
  if (made !== null && type.slug !== null) fields[type.slug.name] = made
  if (composed.newTargets.length > 0) await checkTargets(call, tx, model, composed.newTargets)
  const row = complete(plan, fields)
  const claims = claimsOf(type, row)
  const content = [
    row.locale,
    row.data,
    row.filter,
    row.typeRevision,
    row.isPublished,
    row.createdById,
    row.savedAt,
    row.publishedAt,
  ]
  const values = [
    id,
    type.definition.name,
    row.createdAt,
    row.savedBy,
    ...content,
    JSON.stringify(claims),
    JSON.stringify(distinct(referencesOf(type, row))),
    row.publishedBy,
    searchOf(type, row),
  ]
  const [outcome] = await refusingStale(tx.run(type.statements.of(insertAll), values))
  if (outcome?.model !== model.revision) throw new StaleModel()
  if (!outcome.made) throw taken(id)
  const lost = perspectivesOf(row)
    .flatMap((perspective) => claims.map((claim) => ({ ...claim, perspective })))
    .find(({ field, perspective }) => {
      const claimed = perspective === 'draft' ? outcome.claimed : outcome.published
      return claimed?.includes(field) !== true
    })
  if (lost !== undefined && made !== null && lost.field === type.slug?.name) throw new SlugTaken()
  if (lost !== undefined) throw new UniqueConflictError(lost)
  return viewFor(call, type, id, row)
}

async function createStepByStep(
  call: Call,
  tx: Queryable,
  model: Model,
  plan: Plan,
): Promise<EntryView> {
  const { type, id, composed } = plan
  const fields = { ...composed.fields }
  const { createdAt, savedBy, locale } = plan.row
  if (
    (await refusingStale(tx.run(insertEntry, [id, type.definition.name, createdAt, savedBy])))
      .length === 0
  )
    throw taken(id)
  const base = slugBase(type, fields)
  if (base !== null && type.slug !== null)
    fields[type.slug.name] = await claimSlug(tx, type, { id, locale }, base)
  if (composed.newTargets.length > 0) await checkTargets(call, tx, model, composed.newTargets)
  const row = complete(plan, fields)
  const revised = { revision: model.revision, type }
  await insertVersions(tx, revised, [{ id, row }])
  await syncReferencesAndClaims(tx, revised, [{ id, held: [row] }])
  return viewFor(call, type, id, row)
}

function taken(id: string): EntryExistsError {
  return new EntryExistsError(
    'There is an entry with this id already. Save it instead, or leave the id out.',
    { id },
  )
}

/** A type that was deleted since the model was loaded shows as a foreign key that leads nowhere. */
async function refusingStale<T>(inserting: Promise<T>): Promise<T> {
  try {
    return await inserting
  } catch (error) {
    if (error instanceof ConstraintError && error.kind === 'foreignKey') throw new StaleModel()
    throw error
  }
}

/** The dates that an importer brings along, checked. */
export function importedTimes(input: Pick<SaveInput, 'at'>): {
  readonly createdAt?: string
  readonly publishedAt?: string
} {
  const times: { createdAt?: string; publishedAt?: string } = {}
  for (const key of ['createdAt', 'publishedAt'] as const) {
    const given = input.at?.[key]
    if (given === undefined) continue
    const normal = normalDateTime(given)
    if (normal === null)
      throw new ValidationError([
        {
          path: `/at/${key}`,
          code: 'format',
          message: 'Give a time with its zone, as RFC 3339 has it.',
        },
      ])
    times[key] = normal
  }
  return times
}
