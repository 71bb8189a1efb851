import type { Locale } from '#content/content.ts'
import type { ContentType, Field, OnDelete } from '#content/content-type.ts'
import { innerFields } from '#content/field-kinds.ts'
import { ContentBusyError, LocaleNotFoundError, TypeNotFoundError } from '#content/errors.ts'
import type { QuerySchema } from '#content/query/normal-form.ts'
import { querySchema } from '#content/query/normal-form.ts'
import type { Validator } from '#content/validation/compile.ts'
import { compileType } from '#content/validation/compile.ts'
import { searchedFields } from '#content/search/searched-fields.ts'
import type { SearchedField } from '#content/search/searched-fields.ts'
import { isUnique } from '#content/model/type-check.ts'
import { sql } from '#database/database.ts'
import type { Queryable } from '#database/database.ts'
import { TypeStatements } from '#content/version-table.ts'
import { StoaError } from '#lib/stoa-error.ts'

/**
 * Types and locales in memory, exact on every node without asking first: each statement that uses
 * the model also returns `stoa.model.revision` from its own snapshot, or writes only if it is the
 * one expected. Where it differs, the model is loaded and the work done again. So a change holds at
 * once everywhere, and costs readers the look at one hot row.
 */

/**
 * Models kept at a time: more than one only while a transaction that changes types is open beside
 * others.
 */
const modelsMax = 4
const attemptsMax = 5
const fallbacksMax = 10

/** A type with what is made of it once: its validator, and what writers ask of its fields. */
export type TypeModel = {
  readonly definition: ContentType
  readonly revision: number
  readonly shapeRevision: number
  readonly filterRevision: number
  readonly searchRevision: number
  /** The revision that last removed the field at a path. */
  readonly removed: ReadonlyMap<string, number>
  /** The narrowings of fields that took other values before, in the order of the revisions. */
  readonly narrowed: readonly Narrowing[]
  readonly schema: QuerySchema
  readonly validator: Validator
  readonly slug: Extract<Field, { kind: 'slug' }> | null
  readonly unique: readonly Field[]
  readonly searched: readonly SearchedField[]
  /** Names of the fields that all locales share. */
  readonly shared: ReadonlySet<string>
  /** Names of the fields whose values can point to entries or assets. */
  readonly pointing: ReadonlySet<string>
  /**
   * What deleting a target does to the entry, by the path of the reference. A path that is not here
   * is that of a field which the type had before.
   */
  readonly pointers: ReadonlyMap<string, OnDelete>
  /** The whole definition as the database has it. */
  readonly json: string
  /** The removed and narrowed fields as the database has them. */
  readonly past: string
  /** Statements about the versions of this type. */
  readonly statements: TypeStatements
}

/**
 * A field as it was made by a change after which not every value of before was one of the field.
 * What a version from before that revision has is narrowed by it first, so that a value which the
 * change lost does not come back when the field is changed again.
 */
export type NarrowedField = { readonly revision: number; readonly field: Field }

type Narrowing = NarrowedField & { readonly narrow: (value: unknown) => unknown }

/** The revision of a model, and a type as that model has it. */
export type RevisedType = { readonly revision: string; readonly type: TypeModel }

export class Model {
  readonly revision: string
  readonly types: ReadonlyMap<string, TypeModel>
  readonly locales: readonly Locale[]
  readonly defaultLocale: string
  readonly #chains = new Map<string, readonly string[]>()

  constructor(revision: string, types: ReadonlyMap<string, TypeModel>, locales: readonly Locale[]) {
    this.revision = revision
    this.types = types
    this.locales = locales
    this.defaultLocale =
      locales.find((locale) => locale.isDefault)?.code ?? locales[0]?.code ?? 'en'
    for (const locale of locales)
      this.#chains.set(locale.code.toLowerCase(), chainOf(locale.code, locales))
  }

  type(name: string): TypeModel {
    const found = this.types.get(name)
    if (found === undefined) throw new TypeNotFoundError(name)
    return found
  }

  /** Null means the default locale. Language tags do not depend on upper and lower case. */
  locale(code: string | null): string {
    return this.chain(code)[0]!
  }

  /** The locale itself, then its fallbacks. */
  chain(code: string | null): readonly string[] {
    const wanted = code ?? this.defaultLocale
    const chain = this.#chains.get(wanted.toLowerCase())
    if (chain === undefined) throw new LocaleNotFoundError(wanted)
    return chain
  }
}

function chainOf(code: string, locales: readonly Locale[]): readonly string[] {
  const chain: string[] = []
  for (
    let at: string | null = code;
    at !== null && !chain.includes(at) && chain.length <= fallbacksMax;
  ) {
    chain.push(at)
    at = locales.find((locale) => locale.code === at)?.fallback ?? null
  }
  return chain
}

function pointersOf(fields: readonly Field[], prefix = ''): (readonly [string, OnDelete])[] {
  return fields.flatMap((field) => {
    const path = `${prefix}${field.name}`
    switch (field.kind) {
      case 'asset':
      case 'reference':
        return [[path, field.onDelete ?? 'restrict'] as const]
      case 'richText':
        return [[path, 'restrict'] as const]
      default:
        return innerFields(field, prefix).flatMap((inner) => pointersOf(inner.fields, inner.prefix))
    }
  })
}

type TypeRow = {
  readonly name: string
  readonly definition: string
  readonly revision: number
  readonly shape_revision: number
  readonly filter_revision: number
  /** Absent: nothing was ever searched. */
  readonly search_revision?: number
  /** Absent: nothing was removed. */
  readonly removed_fields?: Readonly<Record<string, number>>
  /** Absent: nothing was narrowed. */
  readonly narrowed_fields?: readonly NarrowedField[]
}

function narrowingOf({ revision, field }: NarrowedField): Narrowing {
  const { name } = field
  const validator = compileType({ name, label: name, fields: [field] })
  const narrow = (value: unknown): unknown => validator.project({ [name]: value })[name]
  return { revision, field, narrow }
}

/** A key of all that decides how the data of older versions is read, besides the definition. */
function pastOf({ removed_fields: removed, narrowed_fields: narrowed }: Partial<TypeRow>): string {
  return JSON.stringify([removed ?? {}, narrowed ?? []])
}

/** Makes the model of one type; also for definitions that are not saved yet. */
export function modelOfType(
  definition: ContentType,
  revisions: Omit<TypeRow, 'name' | 'definition'>,
  json: string = JSON.stringify(definition),
): TypeModel {
  const pointers = pointersOf(definition.fields)
  return {
    definition,
    revision: revisions.revision,
    shapeRevision: revisions.shape_revision,
    filterRevision: revisions.filter_revision,
    searchRevision: revisions.search_revision ?? 0,
    removed: new Map(Object.entries(revisions.removed_fields ?? {})),
    narrowed: (revisions.narrowed_fields ?? []).map(narrowingOf),
    past: pastOf(revisions),
    schema: querySchema(definition),
    validator: compileType(definition),
    slug: definition.fields.find((field) => field.kind === 'slug') ?? null,
    unique: definition.fields.filter(isUnique),
    searched: searchedFields(definition),
    shared: new Set(
      definition.fields.filter((field) => field.localized !== true).map((field) => field.name),
    ),
    pointing: new Set(pointers.map(([path]) => path.split('.')[0]!)),
    pointers: new Map(pointers),
    json,
    statements: new TypeStatements(definition.name),
  }
}

const loadModel = sql<{ revision: string; types: string | null; locales: string | null }>(`
  select m.revision,
    (select json_agg(json_build_object(
        'name', name, 'definition', definition::text, 'revision', revision,
        'shape_revision', shape_revision, 'filter_revision', filter_revision,
        'search_revision', search_revision, 'removed_fields', removed_fields,
        'narrowed_fields', narrowed_fields) order by name)
     from stoa.content_type) as types,
    (select json_agg(json_build_object(
        'code', code, 'fallback', fallback, 'isDefault', is_default)
      order by is_default desc, code)
     from stoa.locale) as locales
  from stoa.model m`)

const readRevision = sql<{ revision: string }>(`select revision from stoa.model`)

/**
 * Thrown where a statement ran under another model than the one it was made with; `ModelStore.use`
 * catches it.
 */
export class StaleModel extends Error {}

export class ModelStore {
  #current: Model | null = null
  readonly #known = new Map<string, Model>()

  /**
   * Runs `work` with the model, again with a newly loaded one when it finds that the model is
   * stale. `work` must not have written outside a transaction of its own by then.
   * `ContentBusyError` after several tries.
   */
  async use<T>(db: Queryable, work: (model: Model) => Promise<T>): Promise<T> {
    let model = this.#current ?? (await this.load(db))
    for (let attempt = 1; ; attempt += 1) {
      try {
        return await work(model)
      } catch (error) {
        // A refusal may come from a definition that changed a moment ago, so it is thrown only once
        // that is ruled out.
        const refused = error instanceof StoaError && !error.code.startsWith('E_DATABASE_')
        if (!refused && !(error instanceof StaleModel)) throw error
        if (refused && (await this.revision(db)) === model.revision) throw error
        if (attempt >= attemptsMax) throw new ContentBusyError()
        model = await this.load(db)
      }
    }
  }

  async revision(db: Queryable): Promise<string> {
    const [row] = await db.run(readRevision)
    return row?.revision ?? ''
  }

  /**
   * Confirms that nothing newer is there; for work whose statements return no row to carry the
   * revision.
   */
  async confirm(db: Queryable, model: Model): Promise<void> {
    if ((await this.revision(db)) !== model.revision) throw new StaleModel()
  }

  async load(db: Queryable): Promise<Model> {
    const [row] = await db.run(loadModel)
    if (row === undefined) throw new Error('stoa.model has no row: the migrations did not run')
    const model =
      this.#known.get(row.revision) ??
      this.#build(row.revision, parse<TypeRow>(row.types), parse<Locale>(row.locales))
    this.#known.delete(row.revision)
    this.#known.set(row.revision, model)
    for (const revision of this.#known.keys()) {
      if (this.#known.size <= modelsMax) break
      this.#known.delete(revision)
    }
    this.#current = model
    return model
  }

  #build(revision: string, rows: readonly TypeRow[], locales: readonly Locale[]): Model {
    const types = new Map<string, TypeModel>()
    for (const row of rows) {
      const before = this.#current?.types.get(row.name)
      const same =
        before?.json === row.definition &&
        before.revision === row.revision &&
        before.shapeRevision === row.shape_revision &&
        before.filterRevision === row.filter_revision &&
        before.searchRevision === row.search_revision &&
        before.past === pastOf(row)
      types.set(
        row.name,
        same ? before : modelOfType(JSON.parse(row.definition) as ContentType, row, row.definition),
      )
    }
    return new Model(revision, types, locales)
  }
}

function parse<Row>(json: string | null): Row[] {
  return json === null ? [] : (JSON.parse(json) as Row[])
}
