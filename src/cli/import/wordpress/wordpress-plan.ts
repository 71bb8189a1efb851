import { ImportPlanError } from '#cli/import/errors.ts'
import { statesOf } from '#cli/import/existing-pages.ts'
import { typeOrNull } from '#cli/import/model-plan.ts'
import type { Report } from '#cli/import/report.ts'
import type { ExistingSlugs } from '#cli/import/wordpress/wordpress-survey.ts'
import { typeNames, wordpressKinds, wordpressTypes } from '#cli/import/wordpress/wordpress-types.ts'
import type { WordpressKind } from '#cli/import/wordpress/wordpress-types.ts'
import type { Bulk } from '#content/bulk/bulk.ts'
import type { ContentType, Field } from '#content/content-type.ts'
import type { Call, Content } from '#content/content.ts'

type PlanTarget = { readonly content: Content; readonly bulk: Bulk; readonly call: Call }

export function sameLanguage(language: string, locale: string): boolean {
  return language === '' || language.slice(0, 2).toLowerCase() === locale.slice(0, 2)
}

/** Reads the slugs that entries of the types have in the locale. */
export async function existingSlugs(
  { bulk, content, call }: PlanTarget,
  names: Record<WordpressKind, string>,
  locale: string,
): Promise<ExistingSlugs> {
  const kinds = await Promise.all(
    wordpressKinds.map(async (kind): Promise<[WordpressKind, Map<string, string>]> => {
      const type = names[kind]
      if ((await typeOrNull(content, call.db, type)) === null) return [kind, new Map()]
      const slugs = new Map<string, string>()
      for await (const state of statesOf({ bulk, call }, type)) {
        const { slug } = JSON.parse(state.filterJson) as { slug?: unknown }
        const isHere = state.locale.toLowerCase() === locale.toLowerCase()
        if (isHere && typeof slug === 'string') slugs.set(state.id, slug)
      }
      return [kind, slugs]
    }),
  )
  return Object.fromEntries(kinds) as Record<WordpressKind, Map<string, string>>
}

/** Begins the names of the types where the site has types of the plain names already. */
const otherPrefix = 'wp-'

/**
 * The wished prefix; with none, plain names, unless one of them is taken by a type that cannot hold
 * what WordPress has.
 */
export async function chooseNames(
  content: Content,
  call: Call,
  prefix: string | null,
  report: Report,
): Promise<Record<WordpressKind, string>> {
  for (const wanted of wordpressTypes(typeNames(prefix ?? ''))) {
    const existing = await typeOrNull(content, call.db, wanted.name)
    const clash = existing === null ? null : clashOf(existing, wanted)
    if (clash === null) continue
    const sentence =
      `The type "${wanted.name}" has a field "${clash.name}" of kind ${clash.kind}, which ` +
      `WordPress needs for something else.`
    if (prefix !== null)
      throw new ImportPlanError(`${sentence} Choose another --prefix.`, {
        type: wanted.name,
        field: clash.name,
      })
    report.remark(
      'types',
      wanted.name,
      `${sentence} All types of this import are named ${otherPrefix}… instead; --prefix ` +
        `chooses another beginning.`,
    )
    return typeNames(otherPrefix)
  }
  return typeNames(prefix ?? '')
}

function clashOf(existing: ContentType, wanted: ContentType): Field | null {
  const kinds = new Map(wanted.fields.map((field) => [field.name, field.kind]))
  return (
    existing.fields.find(
      (field) => kinds.has(field.name) && kinds.get(field.name) !== field.kind,
    ) ?? null
  )
}

/** The type as it is, with the fields that it lacks. */
export async function extended(
  content: Content,
  call: Call,
  wanted: ContentType,
): Promise<ContentType> {
  const existing = await typeOrNull(content, call.db, wanted.name)
  if (existing === null) return wanted
  const clash = clashOf(existing, wanted)
  if (clash !== null)
    throw new ImportPlanError(
      `The type "${wanted.name}" has a field "${clash.name}" of kind ${clash.kind}; choose a ` +
        `--prefix.`,
      { type: wanted.name, field: clash.name },
    )
  return {
    ...existing,
    fields: [
      ...existing.fields,
      ...wanted.fields.filter(
        (field) => !existing.fields.some((there) => there.name === field.name),
      ),
    ],
  }
}
