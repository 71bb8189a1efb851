import { AssetInputError } from '#media/errors.ts'
import type { Alt, Asset } from '#media/media.ts'

const localePattern = /^[a-z]{2,3}(-[A-Za-z0-9]{2,8})*$/
const localesMax = 100
const altLengthMax = 2_000

/**
 * Alternative texts by locale. Empty is a text too: it says that the image is decoration. Throws
 * `AssetInputError`.
 */
export function checkAlt(alt: Alt): Alt {
  const entries = Object.entries(alt)
  if (entries.length > localesMax)
    throw new AssetInputError(`At most ${localesMax} locales can have an alternative text.`, {
      field: 'alt',
    })
  for (const [locale, text] of entries) {
    if (!localePattern.test(locale))
      throw new AssetInputError('Alternative texts are given by locale, such as "en" or "pt-BR".', {
        field: 'alt',
        locale,
      })
    if (
      typeof text !== 'string' ||
      text.length > altLengthMax ||
      !text.isWellFormed() ||
      text.includes('\0')
    ) {
      throw new AssetInputError(
        `An alternative text is a text of at most ${altLengthMax} characters.`,
        { field: 'alt', locale },
      )
    }
  }
  return Object.fromEntries(entries)
}

export function checkFocalPoint(point: Asset['focalPoint']): Asset['focalPoint'] {
  if (point === null) return null
  const inside = (value: number): boolean => typeof value === 'number' && value >= 0 && value <= 1
  if (!inside(point.x) || !inside(point.y))
    throw new AssetInputError(
      'A focal point has x and y from 0 to 1, from the left and from the top.',
      { field: 'focalPoint' },
    )
  return { x: point.x, y: point.y }
}
