import { isUtf8 } from 'node:buffer'
import { JsonMalformedError } from '#api/problems/errors.ts'
import { inexactNumber } from '#lib/exact-numbers.ts'
import { duplicateKey } from '#api/http/json-keys.ts'
import { malformedAt } from '#api/http/json-position.ts'

const quote = 0x22
const backslash = 0x5c

/**
 * Reads a JSON body. Refuses what `JSON.parse` alone would let through and the code behind it would
 * trip over: bytes that are not UTF-8 (they would silently become U+FFFD), nesting deeper than
 * `depthMax`, keys named `__proto__`, keys that an object has twice, and numbers of which a double
 * would keep other digits.
 */
export function parseJson(bytes: Buffer, depthMax: number): unknown {
  if (!isUtf8(bytes)) throw new JsonMalformedError('it is not UTF-8', null)
  const text = bytes.toString('utf8').replace(/^\ufeff/, '')
  const deep = tooDeepAt(text, depthMax)
  if (deep !== null) throw new JsonMalformedError(`it is nested more than ${depthMax} deep`, deep)
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error
    throw malformed(text)
  }
  if ((text.includes('__proto__') || text.includes('\\u')) && hasForbiddenKey(value))
    throw new JsonMalformedError('the key __proto__ is not allowed', null)
  const inexact = inexactNumber(text)
  if (inexact !== null)
    throw new JsonMalformedError(
      `the number ${inexact.slice(0, 40)} would lose digits; send it as text`,
      text.indexOf(inexact),
    )
  const twice = duplicateKey(text)
  if (twice !== null)
    throw new JsonMalformedError(
      `an object has the key "${twice.key.slice(0, 40)}" twice`,
      twice.at,
    )
  return value
}

function malformed(text: string): JsonMalformedError {
  const position = malformedAt(text)
  if (position >= text.length) return new JsonMalformedError('it ends too early', position)
  const before = text.slice(0, position).split('\n')
  return new JsonMalformedError(
    `unexpected character in line ${before.length}, column ${before.at(-1)!.length + 1}`,
    position,
  )
}

/**
 * Where nesting passes `depthMax`, without recursion and before any object is made; null: nowhere.
 */
function tooDeepAt(text: string, depthMax: number): number | null {
  let depth = 0
  let inString = false
  for (let at = 0; at < text.length; at += 1) {
    const unit = text.charCodeAt(at)
    if (inString) {
      if (unit === backslash) at += 1
      else if (unit === quote) inString = false
    } else if (unit === quote) inString = true
    else if (unit === 0x7b || unit === 0x5b) {
      depth += 1
      if (depth > depthMax) return at
    } else if (unit === 0x7d || unit === 0x5d) depth -= 1
  }
  return null
}

/** `depthMax` bounds the recursion. */
function hasForbiddenKey(value: unknown): boolean {
  if (typeof value !== 'object' || value === null) return false
  if (Array.isArray(value)) return value.some(hasForbiddenKey)
  return Object.entries(value).some(([key, inner]) => key === '__proto__' || hasForbiddenKey(inner))
}
