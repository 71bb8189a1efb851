/** A value that filters and sorts compare. */
export type Scalar = string | number | boolean

export function isScalar(value: unknown): value is Scalar {
  return typeof value === 'string' || typeof value === 'number' || typeof value === 'boolean'
}

/**
 * Compares texts by code point, which is the byte order of UTF-8 and of PostgreSQL's collation
 * "C". JavaScript's `<` compares UTF-16 units, which differs above U+FFFF: surrogates stand for the
 * highest code points and lie below U+E000 to U+FFFF.
 */
export function compareText(one: string, other: string): number {
  const length = Math.min(one.length, other.length)
  for (let at = 0; at < length; at += 1) {
    const a = one.charCodeAt(at)
    const b = other.charCodeAt(at)
    if (a !== b) return a >= 0xd800 && b >= 0xd800 ? lifted(a) - lifted(b) : a - b
  }
  return one.length - other.length
}

/** Puts surrogates above all other units from U+D800 on. */
function lifted(unit: number): number {
  return unit <= 0xdfff ? unit + 0x2000 : unit - 0x800
}

const kinds = { boolean: 0, number: 1, string: 2 } as const

/** A total order: by type first, so that a value of the wrong type always lies on the same side. */
export function compareScalars(one: Scalar, other: Scalar): number {
  if (typeof one === 'number' && typeof other === 'number') return one - other
  if (typeof one === 'string' && typeof other === 'string') return compareText(one, other)
  const kind = kinds[typeof one as keyof typeof kinds] - kinds[typeof other as keyof typeof kinds]
  return kind === 0 ? Number(one) - Number(other) : kind
}
