import type { Call, EntryView, SaveInput } from '#content/content.ts'
import { EntryExistsError, ValidationError } from '#content/errors.ts'
import { compose, slugBase } from '#content/entries/compose.ts'
import type { Context } from '#content/entries/context.ts'
import { atomically, stampNow } from '#content/entries/context.ts'
import { encodeFields, insertRow } from '#content/entries/entry-edit.ts'
import type { VersionRow } from '#content/entries/entry-state.ts'
import { checkTargets, claimSlug, hold } from '#content/entries/hold.ts'
import { demandAfter, demandOnType, grantOf } from '#content/entries/permission.ts'
import { viewOf } from '#content/entries/view.ts'
import type { Model } from '#content/model/model.ts'
import { StaleModel } from '#content/model/model.ts'
import { normalDateTime } from '#content/validation/date-time.ts'
import { sql } from '#database/database.ts'
import type { Queryable } from '#database/database.ts'
import { ConstraintError } from '#database/errors.ts'
import { isId, newId } from '#lib/id.ts'

const insertEntry = sql<{ id: string }>(`
  insert into stoa.entry (id, type, created_at, created_by) values ($1, $2, $3, $4) on conflict (id) do nothing returning id`)

export type CreateInput = SaveInput & { readonly id?: string }

/** Makes an entry with its first version. */
export async function createEntry(context: Context, call: Call, typeName: string, input: CreateInput): Promise<EntryView> {
  return context.models.use(call.db, (model) => atomically(call.db, (tx) => create(context, call, tx, model, typeName, input)))
}

async function create(context: Context, call: Call, tx: Queryable, model: Model, typeName: string, input: CreateInput): Promise<EntryView> {
  const type = model.type(typeName)
  const locale = model.locale(input.locale)
  const grant = demandOnType(call, 'create', type)
  const publishGrant = input.publish === true ? demandOnType(call, 'publish', type) : null
  const id = input.id ?? newId(context.clock.nowMs())
  if (!isId(id)) throw new ValidationError([{ path: '/id', code: 'format', message: 'Give a UUID in small letters, or leave the id out.' }])
  const { fields, newTargets } = compose(type, grant, { fields: input.fields, merge: false, publishing: input.publish === true }, {})
  const now = stampNow(context)
  const times = importedTimes(input)
  const { actor } = call.authority
  const by = JSON.stringify(actor)
  const createdAt = times.createdAt ?? now
  if (!(await insertNew(tx, [id, typeName, createdAt, by]))) {
    throw new EntryExistsError('There is an entry with this id already. Save it instead, or leave the id out.', { id })
  }
  const base = slugBase(type, fields)
  if (base !== null && type.slug !== null) fields[type.slug.name] = await claimSlug(tx, type, { id, locale }, base)
  if (newTargets.length > 0) await checkTargets(call, tx, model, newTargets)
  const publishedAt = publishGrant === null ? null : (times.publishedAt ?? now)
  const row: VersionRow = {
    ...encodeFields(type, fields),
    locale,
    number: 1,
    typeRevision: type.revision,
    filterRevision: type.revision,
    isLatest: true,
    isPublished: publishGrant !== null,
    isArchived: false,
    createdAt,
    createdById: actor.id,
    savedAt: now,
    savedBy: by,
    publishedAt,
    publishedBy: publishGrant === null ? null : by,
    firstPublishedAt: publishedAt,
  }
  demandAfter(grant, 'create', type, id, row)
  if (publishGrant !== null) demandAfter(publishGrant, 'publish', type, id, row)
  if ((await insertRow(tx, type, id, row)) !== model.revision) throw new StaleModel()
  await hold(tx, type, id, [row])
  return viewOf(type, { id }, row, grantOf(call, 'readDraft', type) ?? grant)
}

/** False: the id is taken. */
async function insertNew(tx: Queryable, values: readonly unknown[]): Promise<boolean> {
  try {
    return (await tx.run(insertEntry, values)).length > 0
  } catch (error) {
    // The type was deleted since the model was loaded.
    if (error instanceof ConstraintError && error.kind === 'foreignKey') throw new StaleModel()
    throw error
  }
}

/** The dates that an importer brings along, checked. */
export function importedTimes(input: Pick<SaveInput, 'at'>): { readonly createdAt?: string; readonly publishedAt?: string } {
  const times: { createdAt?: string; publishedAt?: string } = {}
  for (const key of ['createdAt', 'publishedAt'] as const) {
    const given = input.at?.[key]
    if (given === undefined) continue
    const normal = normalDateTime(given)
    if (normal === null) throw new ValidationError([{ path: `/at/${key}`, code: 'format', message: 'Give a time with its zone, as RFC 3339 has it.' }])
    times[key] = normal
  }
  return times
}
