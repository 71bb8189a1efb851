import { isStorableText } from '#content/query/normal-form.ts'
import type { Faults } from '#content/validation/fault.ts'
import { step } from '#content/validation/fault.ts'

const depthMax = 20
const valuesMax = 50_000

/**
 * Checks a value of kind `json`: anything JSON can say, at most 20 deep and 50,000 values large.
 */
export function checkJson(value: unknown, path: string, faults: Faults): void {
  let left = valuesMax
  const visit = (one: unknown, at: string, depth: number): void => {
    left -= 1
    if (left === 0) faults.add(path, 'tooMany', `At most ${valuesMax} values.`)
    if (left <= 0 || faults.full) return
    if (typeof one === 'string') {
      if (!isStorableText(one))
        faults.add(at, 'text', 'The text holds U+0000 or half of a surrogate pair; take it out.')
    } else if (typeof one === 'number') {
      if (!Number.isFinite(one)) faults.add(at, 'kind', 'The number is too large for JSON.')
    } else if (typeof one === 'object' && one !== null) {
      if (depth >= depthMax) {
        faults.add(at, 'tooDeep', `At most ${depthMax} levels deep.`)
        return
      }
      for (const [key, child] of Object.entries(one)) {
        if (!isStorableText(key))
          faults.add(at, 'text', 'A key holds U+0000 or half of a surrogate pair; take it out.')
        visit(child, step(at, key), depth + 1)
      }
    } else if (one !== null && typeof one !== 'boolean') {
      faults.add(at, 'kind', 'Give a value that JSON can hold.')
    }
  }
  visit(value, path, 0)
}
