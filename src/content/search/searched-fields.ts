import type { ContentType, Field } from '#content/content-type.ts'
import { plainText } from '#content/search/plain-text.ts'
import { wordsIn } from '#content/search/words.ts'

/**
 * Which fields of a type are searched, and their words. A field is searched if its definition says
 * `searchable`. Searched fields fall into four groups, which are the weights of PostgreSQL's text
 * search: A the title, B other short texts, C slugs and options, D long texts. A caller who may not
 * see all fields of a group does not search the group, so that nothing is found by what they may
 * not see.
 */
export type SearchGroup = 'A' | 'B' | 'C' | 'D'
export const searchGroups = ['A', 'B', 'C', 'D'] as const satisfies readonly SearchGroup[]

export type SearchedField = { readonly field: Field; readonly group: SearchGroup }

/** Bytes of the words of one version; what comes after is not found. */
const searchBytesMax = 262_144

export function searchedFields(type: ContentType): readonly SearchedField[] {
  const title = titleOf(type)
  return type.fields.flatMap((field) =>
    'searchable' in field && field.searchable
      ? [{ field, group: field.name === title ? ('A' as const) : groupOf(field) }]
      : [],
  )
}

/** The name of the field that people recognise an entry by. */
export function titleOf({ titleField, fields }: ContentType): string | undefined {
  return titleField ?? fields.find((field) => field.kind === 'text')?.name
}

function groupOf({ kind }: Field): SearchGroup {
  if (kind === 'text') return 'B'
  return kind === 'slug' || kind === 'select' ? 'C' : 'D'
}

/**
 * The words of the four groups as a JSON array of texts, which `stoa.search_vector` takes; null
 * where the type has nothing to search.
 */
export function searchTexts(
  searched: readonly SearchedField[],
  fields: Readonly<Record<string, unknown>>,
): string | null {
  if (searched.length === 0) return null
  let left = searchBytesMax
  const texts = searchGroups.map((group) => {
    const words: string[] = []
    for (const { field } of searched.filter((one) => one.group === group))
      for (const { word } of wordsIn(plainText(field, fields[field.name]))) {
        left -= Buffer.byteLength(word) + 1
        if (left < 0) break
        words.push(word)
      }
    return words.join(' ')
  })
  return JSON.stringify(texts)
}
