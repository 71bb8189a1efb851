import { isStorableText } from '#content/query/normal-form.ts'
import type { Faults } from '#content/validation/fault.ts'

/** The number of code points; `text.length` counts surrogates twice. */
export function codePoints(text: string): number {
  let count = text.length
  for (let at = 0; at < text.length - 1; at += 1) {
    const unit = text.charCodeAt(at)
    if (unit >= 0xd800 && unit <= 0xdbff) {
      count -= 1
      at += 1
    }
  }
  return count
}

/** True when the value is text that can be stored; otherwise says why not. */
export function isText(value: unknown, path: string, faults: Faults): value is string {
  if (typeof value !== 'string') {
    faults.add(path, 'kind', 'Give text.')
    return false
  }
  if (!isStorableText(value)) {
    faults.add(path, 'text', 'The text holds U+0000 or half of a surrogate pair; take it out.')
    return false
  }
  return true
}

/** Checks a length in code points, counting only where the bound is in doubt. */
export function checkLength(
  text: string,
  limits: { readonly min: number; readonly max: number },
  path: string,
  faults: Faults,
): void {
  if (text.length > limits.max && codePoints(text) > limits.max) {
    faults.add(path, 'tooLong', `At most ${limits.max} characters.`)
  } else if (text.length < limits.min * 2 && codePoints(text) < limits.min) {
    faults.add(path, 'tooShort', `At least ${limits.min} characters.`)
  }
}
