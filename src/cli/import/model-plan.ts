import { ImportPlanError } from '#cli/import/errors.ts'
import type { Report } from '#cli/import/report.ts'
import type { Output } from '#cli/output.ts'
import type { ContentType } from '#content/content-type.ts'
import type { Content } from '#content/content.ts'
import { TypeNotFoundError } from '#content/errors.ts'
import type { Queryable } from '#database/database.ts'
import { StoaError } from '#lib/stoa-error.ts'

export async function typeOrNull(
  content: Content,
  db: Queryable,
  name: string,
): Promise<ContentType | null> {
  try {
    return (await content.types.get(db, name)).definition
  } catch (error) {
    if (error instanceof TypeNotFoundError) return null
    throw error
  }
}

/**
 * Makes the locales that are missing, each with the default one as its fallback. Returns under
 * which code each wanted one exists: `pt-br` is found where there is `pt-BR`.
 */
export async function ensureLocales(
  content: Content,
  db: Queryable,
  wanted: readonly string[],
  options: { readonly dryRun: boolean; readonly report: Report },
): Promise<Map<string, string>> {
  const existing = await content.locales.list(db)
  const fallback = existing.find((locale) => locale.isDefault)!.code
  const result = new Map<string, string>()
  for (const code of wanted.toSorted()) {
    const there = existing.find((locale) => locale.code.toLowerCase() === code.toLowerCase())
    result.set(code, there?.code ?? code)
    options.report.count('locales', there === undefined ? 'made' : 'unchanged')
    if (there !== undefined || options.dryRun) continue
    try {
      await content.locales.save(db, { code, fallback, isDefault: false })
    } catch (error) {
      if (!(error instanceof StoaError)) throw error
      throw new ImportPlanError(
        `The locale "${code}" cannot be made: ${error.message}`,
        { locale: code },
        { cause: error },
      )
    }
  }
  return result
}

/** Creates or extends a type and prints the steps. Nothing is ever lost by it. */
export async function saveType(
  content: Content,
  db: Queryable,
  definition: ContentType,
  options: { readonly dryRun: boolean; readonly report: Report; readonly output: Output },
): Promise<void> {
  try {
    const plan = await content.types.plan(db, definition)
    const outcome = { create: 'made', update: 'changed', none: 'unchanged' } as const
    options.report.count('types', outcome[plan.change])
    if (plan.change === 'none') return
    options.output.line(`Type ${definition.name}: ${plan.change === 'create' ? 'new' : 'extended'}`)
    for (const step of plan.steps)
      options.output.line(`  ${step.what} ${step.name}${step.note === '' ? '' : `: ${step.note}`}`)
    // In a transaction of its own: then its indexes are not built at once beside the import, but
    // when that has ended.
    if (!options.dryRun)
      await db.transaction(
        async (tx) =>
          void (await content.types.save(tx, definition, { expected: null, allowLoss: false })),
      )
  } catch (error) {
    if (!(error instanceof StoaError) || !error.code.startsWith('E_TYPE_')) throw error
    throw new ImportPlanError(
      `The type "${definition.name}" cannot be made or extended: ${error.message}`,
      { type: definition.name, ...error.facts },
      { cause: error },
    )
  }
}
