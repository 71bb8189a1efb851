import type {
  ContentTypes,
  Precondition,
  SavedType,
  SaveTypeOptions,
  TypePlan,
} from '#content/content.ts'
import type { ContentType, Field } from '#content/content-type.ts'
import { innerFields } from '#content/field-kinds.ts'
import {
  TypeConflictError,
  TypeInUseError,
  TypeInvalidError,
  TypeLossError,
  TypeNotFoundError,
} from '#content/errors.ts'
import type { Context } from '#content/context.ts'
import { atomically, isDatabase } from '#content/context.ts'
import type { Model, TypeModel } from '#content/model/model.ts'
import type { TypeUpgrade } from '#content/settling/type-upgrade.ts'
import { checkContentType } from '#content/model/type-check.ts'
import { explainType, planType } from '#content/model/type-plan.ts'
import { changeClaims } from '#content/model/unique-claims.ts'
import { sql } from '#database/database.ts'
import type { Queryable } from '#database/database.ts'
import { ConstraintError } from '#database/errors.ts'

const typesMax = 500

/** Writers of types queue for the model's row, so each sees what the one before it made. */
const lockModel = sql<object>(`select 1 from stoa.model for no key update`)
const insertType = sql<object>(`insert into stoa.content_type (name, definition) values ($1, $2)`)
const updateType = sql<object>(`
  update stoa.content_type set definition = $2, revision = $3, updated_at = now(),
    shape_revision = case when $4 then $3 else shape_revision end,
    filter_revision = case when $5 then $3 else filter_revision end,
    removed_fields = $6, narrowed_fields = $7,
    search_revision = case when $8 then $3 else search_revision end
  where name = $1`)
const deleteType = sql<object>(`delete from stoa.content_type where name = $1`)
const entryOfType = sql<object>(`select 1 from stoa.entry where type = $1 limit 1`)

type Saved = { readonly definition: ContentType; readonly revision: number }

export function createContentTypes(context: Context, settling: TypeUpgrade): ContentTypes {
  const { models } = context
  const fresh = async (db: Queryable): Promise<Model> =>
    models.use(db, async (model) => (await models.confirm(db, model), model))
  return {
    get: async (db, name) => saved((await fresh(db)).type(name)),
    list: async (db) => [...(await fresh(db)).types.values()].map(saved),
    plan: async (db, input) => {
      const model = await fresh(db)
      const definition = checkContentType(input, model.types.keys())
      return explainType(db, model.types.get(definition.name) ?? null, definition)
    },
    save: async (db, input, options) => {
      const result = await atomically(db, (tx) => save(context, tx, input, options))
      if (isDatabase(db)) settling.start(db)
      return result
    },
    delete: async (db, name, precondition) => {
      await atomically(db, (tx) => remove(context, tx, name, precondition))
      if (isDatabase(db)) settling.start(db)
    },
    settle: (db) => settling.run(db),
    states: (db) => settling.states(db),
  }
}

function saved(type: TypeModel): Saved {
  return { definition: type.definition, revision: type.revision }
}

async function save(
  context: Context,
  tx: Queryable,
  input: ContentType,
  options: SaveTypeOptions,
): Promise<Saved> {
  await tx.run(lockModel)
  const model = await context.models.load(tx)
  const definition = checkContentType(input, model.types.keys())
  const before = model.types.get(definition.name) ?? null
  const current = before?.revision ?? 0
  options.precondition?.(before === null ? null : saved(before))
  if (options.expected !== null && options.expected !== current)
    throw new TypeConflictError(definition.name, options.expected, current)
  if (before === null && model.types.size >= typesMax)
    throw new TypeInvalidError([
      { path: '', code: 'tooMany', message: `There can be at most ${typesMax} types.` },
    ])
  const plan = await planType(tx, before, definition)
  if (before !== null && plan.change === 'none') return saved(before)
  refuseLoss(plan, options.allowLoss)
  const revision = current + 1
  const json = JSON.stringify(definition)
  await (before === null
    ? tx.run(insertType, [definition.name, json])
    : tx.run(updateType, [
        definition.name,
        json,
        revision,
        plan.shape,
        plan.filter,
        JSON.stringify(plan.past.removed_fields),
        JSON.stringify(plan.past.narrowed_fields),
        plan.search,
      ]))
  await changeClaims(tx, definition, plan)
  return { definition: JSON.parse(json) as ContentType, revision }
}

function refuseLoss(plan: TypePlan, allowLoss: boolean): void {
  const losing = plan.steps.filter((step) => step.losesData)
  if (allowLoss || losing.length === 0) return
  const names = losing.map((step) => step.name).join(', ')
  throw new TypeLossError(
    `The change would lose values of: ${names}. Look at the plan; to go on, allow the loss.`,
    { steps: losing },
  )
}

async function remove(
  context: Context,
  tx: Queryable,
  name: string,
  precondition?: Precondition<SavedType>,
): Promise<void> {
  await tx.run(lockModel)
  const model = await context.models.load(tx)
  const type = model.types.get(name)
  if (type === undefined) throw new TypeNotFoundError(name)
  precondition?.(saved(type))
  if ((await tx.run(entryOfType, [name])).length > 0) throw hasEntries(name)
  const referring = [...model.types.values()].find(
    (type) => type.definition.name !== name && refersTo(type.definition.fields, name),
  )
  if (referring !== undefined) {
    throw new TypeInUseError(
      `Fields of the type "${referring.definition.name}" refer to it. Change them first.`,
      { name, referring: referring.definition.name },
    )
  }
  try {
    await tx.run(deleteType, [name])
  } catch (error) {
    // An entry that was being made when this looked for entries was waited for.
    if (error instanceof ConstraintError && error.kind === 'foreignKey') throw hasEntries(name)
    throw error
  }
}

function hasEntries(name: string): TypeInUseError {
  return new TypeInUseError(`The type "${name}" has entries. Delete them first.`, { name })
}

function refersTo(fields: readonly Field[], name: string): boolean {
  return fields.some((field) => {
    if (field.kind === 'reference') return field.types?.includes(name) === true
    return innerFields(field).some((inner) => refersTo(inner.fields, name))
  })
}
