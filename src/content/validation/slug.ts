import { codePoints } from '#content/validation/text.ts'
import { isId } from '#lib/id.ts'

/** In code points. Room for `-999` is left below it when a slug is made. */
export const slugLengthMax = 200
const madeLengthMax = 120

const shape = /^[\p{Ll}\p{Lo}\p{Lm}\p{N}\p{M}_.~-]+(?:\/[\p{Ll}\p{Lo}\p{Lm}\p{N}\p{M}_.~-]+)*$/u

/**
 * Why this, in Unicode form NFC, cannot be a slug, or null. Slugs are parts of URLs: small letters
 * of any script, digits, `-._~`, and `/` between parts.
 */
export function slugProblem(text: string): string | null {
  if (codePoints(text) > slugLengthMax) return `At most ${slugLengthMax} characters.`
  if (!shape.test(text)) return 'Use small letters, digits, and - . _ ~ ; / only between parts.'
  if (text.split('/').some((part) => part === '.' || part === '..'))
    return 'A part may not be "." or "..".'
  if (isId(text)) return 'It looks like the id of an entry; choose another.'
  return null
}

/**
 * Accents may be left out in Latin and Greek. In other scripts a mark makes another letter: й, ї.
 */
const accents = /([\p{Script=Latin}\p{Script=Greek}])[\u0300-\u036f]+/gu

/**
 * A slug from any text: "Über uns!" gives "uber-uns". Empty when the text has neither letters nor
 * digits.
 */
export function makeSlug(text: string): string {
  const plain = text
    .normalize('NFKD')
    .replace(accents, '$1')
    .normalize('NFC')
    .toLowerCase()
    .replaceAll('ß', 'ss')
  const joined = plain
    .replace(/['’]/g, '')
    .replace(/[^\p{Ll}\p{Lo}\p{Lm}\p{N}\p{M}]+/gu, '-')
    .replace(/^-+|-+$/g, '')
  const cut = Array.from(joined)
    .slice(0, madeLengthMax)
    .join('')
    .replace(/-+$/, '')
    .normalize('NFC')
  return slugProblem(cut) === null ? cut : ''
}
