import { wordsIn } from '#content/search/words.ts'
import type { Word } from '#content/search/words.ts'

/** Characters of a text that are looked at for an excerpt. */
export const highlightedMax = 20_000
/** Characters of an excerpt before the first word that was found, and in all, before escaping. */
const charactersBefore = 60
const excerptMax = 300

/**
 * An excerpt of a text as HTML, from a little before the first word that was found: everything is
 * escaped, and what was found is in `<mark>`. Null: no word of it was found.
 */
export function highlight(text: string, found: ReadonlySet<string>): string | null {
  const words = [...wordsIn(text.slice(0, highlightedMax).toWellFormed())]
  const first = words.find(({ word }) => found.has(word))
  if (first === undefined) return null
  const near = words.find(({ start }) => first.start - start <= charactersBefore) ?? first
  const start = near === words[0] && near.start <= charactersBefore ? 0 : near.start
  const shown = words.filter((word) => word.start >= start && word.end - start <= excerptMax)
  const end = shown.at(-1)?.end ?? first.end
  const parts: string[] = start === 0 ? [] : ['…']
  let at = start
  for (const range of joined(shown.filter(({ word }) => found.has(word)))) {
    parts.push(escaped(text.slice(at, range.start)))
    parts.push(`<mark>${escaped(text.slice(range.start, range.end))}</mark>`)
    at = range.end
  }
  const rest = text.slice(end).trim() === '' ? '' : '…'
  return `${parts.join('')}${escaped(text.slice(at, end))}${rest}`.trimStart()
}

type Range = { readonly start: number; readonly end: number }

/** Pairs of characters overlap, and are marked together. */
function joined(words: readonly Word[]): readonly Range[] {
  const ranges: Range[] = []
  for (const { start, end } of words) {
    const last = ranges.at(-1)
    if (last === undefined || start > last.end) ranges.push({ start, end })
    else ranges[ranges.length - 1] = { start: last.start, end: Math.max(last.end, end) }
  }
  return ranges
}

const entities: Readonly<Record<string, string>> = {
  '&': '&amp;',
  '<': '&lt;',
  '>': '&gt;',
  '"': '&quot;',
  "'": '&#39;',
}

function escaped(text: string): string {
  return text
    .replaceAll(/\s+/g, ' ')
    .replaceAll(/[&<>"']/g, (character) => entities[character] ?? character)
}
