import type { Row } from '#change-feed/change.ts'
import type { Call, EntryChange, EntryWatch, VisibleChange, UnreadWatch } from '#content/content.ts'
import type { Context } from '#content/context.ts'
import { TypeNotFoundError } from '#content/errors.ts'
import { grantOf } from '#content/entries/permission.ts'
import { readerOf, readGrant } from '#content/entries/read.ts'
import { statusOf } from '#content/entries/view.ts'
import type { Model, TypeModel } from '#content/model/model.ts'
import { QueryFieldError } from '#content/query/errors.ts'
import type { FilterData } from '#content/query/normal-form.ts'
import { compilePredicate } from '#content/query/predicate.ts'
import type { QueryRow } from '#content/query/predicate.ts'
import type { Filter } from '#content/query/query.ts'
import { validateFilter } from '#content/query/validate-query.ts'

/**
 * Evaluates changes of entries for one reader, by the rows that the change feed recorded and by the
 * grants that reads use. What the recorded row does not have (the number of the version) matches no
 * grant and cannot be asked for.
 */

/** The columns of a recorded row. The other names are filterable fields, which have no "_". */
const columns: ReadonlySet<string> = new Set(['type', 'locale'])

type Test = (row: QueryRow) => boolean
type Rule = {
  readonly covers: Test
  readonly matches: Test
  /** Filterable fields that the reader may see; null: all. */
  readonly fields: ReadonlySet<string> | null
}

/**
 * Makes a watch for a reader by the model and the grants of now. Where either changes, another one
 * has to be made. Errors: those of a list with the same filter.
 */
export async function openWatch(
  context: Context,
  call: Call,
  watch: UnreadWatch,
): Promise<EntryWatch> {
  return context.models.use(call.db, async (model) => {
    await context.models.confirm(call.db, model)
    const locale = watch.locale === null ? null : model.locale(watch.locale)
    const filter = watch.type === null ? null : filterOf(call, model, watch, watch.type)
    return new GrantedWatch({ call, model, watch: { ...watch, locale }, filter })
  })
}

function filterOf(
  call: Call,
  model: Model,
  { perspective, read }: UnreadWatch,
  name: string,
): Filter | null {
  const type = model.type(name)
  const grant = readGrant(call, type, perspective)
  if (grant === null) throw new TypeNotFoundError(name)
  const reader = readerOf({ call, model, type, grant }, perspective)
  const asked = read?.(reader) ?? null
  if (asked === null) return null
  const filter = validateFilter(asked, reader)
  const refused = namesOf(filter).find((field) => isUnknown(field, perspective))
  if (refused !== undefined)
    throw new QueryFieldError(
      `Events cannot be filtered by "${refused}": they know only the filterable fields of the ` +
        `entry itself, its locale, creator and dates, and of drafts the status.`,
      { field: refused },
    )
  return filter
}

/** A filter across a reference counts by the reference that it leads across. */
function namesOf(filter: Filter): string[] {
  switch (filter.op) {
    case 'and':
    case 'or':
      return filter.filters.flatMap(namesOf)
    case 'not':
      return namesOf(filter.filter)
    case 'through':
      return [`${filter.field}.…`]
    case 'known':
      return []
    case 'compare':
      return [filter.field]
  }
}

/** The status of a published version depends on another row. */
function isUnknown(field: string, perspective: UnreadWatch['perspective']): boolean {
  const isAcross = field.includes('.')
  return isAcross || field === 'version' || (field === 'status' && perspective === 'published')
}

class GrantedWatch implements EntryWatch {
  readonly #call: Call
  readonly #model: Model
  readonly #watch: UnreadWatch
  readonly #filter: Filter | null
  readonly #rules = new Map<string, Rule | null>()

  constructor(parts: {
    readonly call: Call
    readonly model: Model
    readonly watch: UnreadWatch
    readonly filter: Filter | null
  }) {
    this.#call = parts.call
    this.#model = parts.model
    this.#watch = parts.watch
    this.#filter = parts.filter
  }

  evaluate(change: EntryChange): VisibleChange | null {
    const { type, locale, perspective } = this.#watch
    if (change.perspective !== perspective) return null
    if (type !== null && change.type !== type) return null
    if (locale !== null && change.locale !== locale) return null
    const rule = this.#ruleOf(change.type)
    if (rule === null) return null
    const before = this.#shown(rule, change.before)
    const after = this.#shown(rule, change.after)
    if (before === null && after === null) return null
    if (before === null) return { action: 'entered', before, after }
    return { action: after === null ? 'left' : 'changed', before, after }
  }

  #ruleOf(name: string): Rule | null {
    const known = this.#rules.get(name)
    if (known !== undefined) return known
    const type = this.#model.types.get(name)
    const rule = type === undefined ? null : this.#makeRule(type)
    this.#rules.set(name, rule)
    return rule
  }

  #makeRule(type: TypeModel): Rule | null {
    const action = this.#watch.perspective === 'published' ? 'read' : 'readDraft'
    const grant = grantOf(this.#call, action, type)
    if (grant === null) return null
    const isKnown = grant.filter === null || !namesOf(grant.filter).includes('version')
    return {
      covers: isKnown ? compilePredicate(grant.filter, type.schema) : () => false,
      matches: compilePredicate(this.#filter, type.schema),
      fields: grant.fields === null ? null : new Set(grant.fields),
    }
  }

  /** The row without the fields that the reader may not see; null: the row is not for them. */
  #shown(rule: Rule, row: Row | null): Row | null {
    if (row === null) return null
    const asked = queryRowOf(row, this.#watch.perspective)
    if (!rule.covers(asked) || !rule.matches(asked)) return null
    const { fields } = rule
    if (fields === null) return row
    return Object.fromEntries(
      Object.entries(row).filter(([name]) => isColumn(name) || fields.has(name)),
    )
  }
}

function isColumn(name: string): boolean {
  return name.includes('_') || columns.has(name)
}

/** A recorded row as filters see it. */
function queryRowOf(row: Row, perspective: UnreadWatch['perspective']): QueryRow {
  const fields = Object.entries(row).filter(([name]) => !isColumn(name))
  const publishedAt = instantOf(row['published_at'])
  return {
    id: String(row['entry_id']),
    locale: String(row['locale']),
    // Never looked at: see `isUnknown`.
    version: 0,
    status: perspective === 'published' ? 'published' : statusOf(headOf(row, publishedAt)),
    createdAt: instantOf(row['created_at']) ?? '',
    updatedAt: instantOf(row['saved_at']) ?? '',
    publishedAt,
    firstPublishedAt: instantOf(row['first_published_at']),
    createdBy: typeof row['created_by_id'] === 'string' ? row['created_by_id'] : null,
    filter: Object.fromEntries(fields) as FilterData,
    filterRevision: Number(row['filter_revision'] ?? 0),
  }
}

function headOf(row: Row, publishedAt: string | null): Parameters<typeof statusOf>[0] {
  return {
    isArchived: row['is_archived'] === true,
    isPublished: row['is_published'] === true,
    isLatest: row['is_latest'] === true,
    publishedAt,
  }
}

/** Times are recorded as milliseconds since 1970. */
function instantOf(value: unknown): string | null {
  return typeof value === 'number' ? new Date(value).toISOString() : null
}
