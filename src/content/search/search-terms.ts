import { QueryLimitError, QueryParameterError } from '#content/query/errors.ts'
import { isStorableText } from '#content/query/normal-form.ts'
import { wordsIn } from '#content/search/words.ts'

/** Characters of what is searched for, and parts of it: words and phrases. */
export const searchLengthMax = 200
const termsMax = 16

/**
 * One part of what is searched for: words that stand one after the other. `prefix`: the last one
 * may go on.
 */
export type SearchTerm = {
  readonly words: readonly string[]
  readonly prefix: boolean
  readonly excluded: boolean
}

/**
 * Reads what a reader typed: words that must all be there, "several in a row" in quotation marks,
 * -without one, and beginnings such as publi*. Throws `QueryParameterError` and `QueryLimitError`.
 */
export function parseSearch(text: string, parameter: string): readonly SearchTerm[] {
  if (text.length > searchLengthMax)
    throw new QueryLimitError(`\`${parameter}\` has at most ${searchLengthMax} characters.`, {
      limit: searchLengthMax,
    })
  if (!isStorableText(text))
    throw new QueryParameterError(
      `\`${parameter}\` holds U+0000 or half of a surrogate pair; take it out.`,
      { parameter },
    )
  const terms = [...text.matchAll(/(-?)(?:"([^"]*)"|([^\s"]+))/g)].flatMap(
    ([, minus = '', quoted, bare = '']): SearchTerm[] => {
      const words = [...wordsIn(quoted ?? bare)].map(({ word }) => word)
      // One character of a language without spaces begins a pair.
      const isHalf = words.length === 1 && /^[^a-z0-9]$/u.test(words[0]!)
      const prefix = quoted === undefined && (bare.endsWith('*') || isHalf)
      return words.length === 0 ? [] : [{ words, prefix, excluded: minus === '-' }]
    },
  )
  if (terms.length > termsMax)
    throw new QueryLimitError(`\`${parameter}\` has at most ${termsMax} words and phrases.`, {
      limit: termsMax,
    })
  if (terms.every((term) => term.excluded))
    throw new QueryParameterError(
      `\`${parameter}\` names no word to look for: write at least one word of letters or digits.`,
      { parameter },
    )
  return terms
}

/** A query for each word by itself that the terms look for, as `to_tsquery` reads it. */
export function anyWordText(terms: readonly SearchTerm[]): string {
  const words = terms
    .filter((term) => !term.excluded)
    .flatMap(({ words, prefix }) =>
      words.map((word, at) => `'${word}'${prefix && at === words.length - 1 ? ':*' : ''}`),
    )
  return words.join(' | ')
}

/**
 * The terms as `to_tsquery` reads them. `groups` are the weights in which words count, such as
 * `AB`; empty: all. Words have only letters and digits, so they need no escaping.
 */
export function tsqueryText(terms: readonly SearchTerm[], groups: string): string {
  const parts = terms.map(({ words, prefix, excluded }) => {
    const lexemes = words.map((word, at) => {
      const flags = `${prefix && at === words.length - 1 ? '*' : ''}${groups}`
      return `'${word}'${flags === '' ? '' : `:${flags}`}`
    })
    return `${excluded ? '!' : ''}(${lexemes.join(' <-> ')})`
  })
  return parts.join(' & ')
}
