/** Fewer significant digits than these always survive the way through a double. */
const suspicious = /[\d.]{16}|e/i
/** A string, which is skipped, or a number. */
const token = /"[^"\\]*(?:\\.[^"\\]*)*"|-?\d+(?:\.\d+)?(?:e[+-]?\d+)?/gi
/** Some programs write doubles with so many digits, which name the same double. */
const digitsOfDouble = 17

/**
 * The first number of a JSON text that a double would change, such as 750727362669608961; null if
 * each comes back as it was written.
 */
export function inexactNumber(json: string): string | null {
  if (!suspicious.test(json)) return null
  for (const [found] of json.matchAll(token)) {
    if (!found.startsWith('"') && !isExact(found)) return found
  }
  return null
}

/** True if a double keeps the digits of this decimal numeral. */
export function isExact(numeral: string): boolean {
  const value = Number(numeral)
  if (!Number.isFinite(value)) return false
  const wanted = normalized(numeral)
  return (
    normalized(String(value)) === wanted || normalized(value.toPrecision(digitsOfDouble)) === wanted
  )
}

/** The digits without zeros around them, and the exponent of the last one. */
function normalized(numeral: string): string {
  const [mantissa = '', exponent = '0'] = numeral.toLowerCase().replace(/^-/, '').split('e')
  const [whole = '', fraction = ''] = mantissa.split('.')
  const digits = `${whole}${fraction}`.replace(/^0+/, '')
  const kept = digits.replace(/0+$/, '')
  if (kept === '') return '0'
  return `${kept}e${Number(exponent) - fraction.length + digits.length - kept.length}`
}
