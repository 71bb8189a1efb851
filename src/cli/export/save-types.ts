import type { ContentType, Field } from '#content/content-type.ts'
import type { Content, TypePlan } from '#content/content.ts'
import type { Queryable } from '#database/database.ts'

/**
 * Types that refer to each other cannot be made one by one: a definition may name only types that
 * are there. So references to types that are still missing are left open in a first round, and
 * closed in the second.
 */
export async function saveTypes(
  content: Content,
  tx: Queryable,
  definitions: readonly ContentType[],
  options: { readonly allowLoss: boolean },
): Promise<void> {
  const known = new Set((await content.types.list(tx)).map(({ definition }) => definition.name))
  const fresh = definitions.filter((definition) => !known.has(definition.name))
  for (const definition of fresh) {
    known.add(definition.name)
    await content.types.save(tx, opened(definition, known), { expected: null, allowLoss: false })
  }
  for (const definition of definitions)
    await content.types.save(tx, definition, { expected: null, allowLoss: options.allowLoss })
}

/** Plans what saving the definitions together would do; `wrap` runs each plan. */
export async function planTypes(
  content: Content,
  db: Queryable,
  definitions: readonly ContentType[],
  wrap: (definition: ContentType, plan: () => Promise<TypePlan>) => Promise<TypePlan>,
): Promise<TypePlan[]> {
  const known = new Set((await content.types.list(db)).map(({ definition }) => definition.name))
  const coming = new Set(definitions.map((definition) => definition.name))
  const plans: TypePlan[] = []
  for (const definition of definitions) {
    const possible = opened(definition, known, coming)
    const plan = await wrap(definition, () => content.types.plan(db, possible))
    plans.push(plan)
  }
  return plans
}

/**
 * The definition without references to types that are not known; with `coming`, only to those that
 * will be.
 */
function opened(
  definition: ContentType,
  known: ReadonlySet<string>,
  coming: ReadonlySet<string> | null = null,
): ContentType {
  const isOpen = (name: string): boolean =>
    !known.has(name) && name !== definition.name && (coming === null || coming.has(name))
  const open = (field: Field): Field => {
    if (field.kind === 'group') return { ...field, fields: field.fields.map(open) }
    if (field.kind === 'list') return { ...field, of: open(field.of) }
    if (field.kind === 'blocks')
      return {
        ...field,
        blocks: field.blocks.map((block) => ({ ...block, fields: block.fields.map(open) })),
      }
    if (field.kind !== 'reference' || field.types === undefined || !field.types.some(isOpen))
      return field
    const { types, ...rest } = field
    const left = types.filter((name) => !isOpen(name))
    return left.length === 0 ? rest : { ...rest, types: left }
  }
  return Array.isArray(definition.fields)
    ? {
        ...definition,
        fields: definition.fields.map((field) =>
          typeof field === 'object' && field !== null ? open(field) : field,
        ),
      }
    : definition
}
