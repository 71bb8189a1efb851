/**
 * Words of a text, as search compares them: in small letters, without accents on Latin and Greek
 * letters. Both what is kept and what is asked go through here, so the database needs no extension
 * for it; stemming and stop words are left to the database, by locale.
 *
 * Languages that write no spaces between words have two characters for a word, each pair that
 * stands together: it is found without a dictionary, and a longer word is a phrase of pairs.
 */

/** Longer words are cut: no language has them, and an index could not hold them. */
const wordLengthMax = 100

export type Word = {
  readonly word: string
  /** Where it stands in the text, in UTF-16 units. */
  readonly start: number
  readonly end: number
}

const unspaced =
  '[[\\p{scx=Han}\\p{scx=Hira}\\p{scx=Kana}\\p{scx=Hang}\\p{scx=Thai}\\p{scx=Laoo}' +
  '\\p{scx=Khmr}\\p{scx=Mymr}]&&[\\p{L}\\p{M}]]'
const runs = new RegExp(`(${unspaced}+)|[[\\p{L}\\p{N}\\p{M}]--${unspaced}]+`, 'gv')

/** The words of a text in order, each where it stands. */
export function* wordsIn(text: string): Generator<Word> {
  for (const match of text.matchAll(runs)) {
    const [run, joined] = match
    if (joined === undefined)
      yield { word: folded(run), start: match.index, end: match.index + run.length }
    else yield* pairsIn(joined, match.index)
  }
}

function* pairsIn(run: string, start: number): Generator<Word> {
  const characters = Array.from(run)
  let at = start
  for (const [index, character] of characters.entries()) {
    const next = characters[index + 1]
    const end = at + character.length + (next?.length ?? 0)
    if (next !== undefined || characters.length === 1)
      yield { word: folded(character + (next ?? '')), start: at, end }
    at += character.length
  }
}

const plain = /^[a-z0-9]*$/
const marks = /([\p{Script=Latin}\p{Script=Greek}])\p{M}+/gu
/** Letters that are another letter with something to it, but that Unicode does not take apart. */
const letters: Readonly<Record<string, string>> = {
  ß: 'ss',
  æ: 'ae',
  œ: 'oe',
  ø: 'o',
  ł: 'l',
  đ: 'd',
  ð: 'd',
  þ: 'th',
  ı: 'i',
  ё: 'е',
}
const special = /[ßæœøłđðþıё]/g

function folded(text: string): string {
  const small = text.slice(0, wordLengthMax).toWellFormed().toLowerCase()
  if (plain.test(small)) return small
  const bare = small.normalize('NFKD').replaceAll(marks, '$1').normalize('NFKC')
  return bare.toLowerCase().replaceAll(special, (letter) => letters[letter] ?? letter)
}
