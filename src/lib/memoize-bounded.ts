/** Longer texts are not kept: they rarely come again and would take the memory of many. */
const lengthMax = 1_000

/**
 * Remembers the results of `make` for up to `max` texts, such as those that clients send again with
 * each request. When there are more it begins anew, so that no client can make it slower than
 * `make` alone by more than a look-up.
 */
export function memoizeBounded<Value>(
  max: number,
  make: (text: string) => Value,
): (text: string) => Value {
  const results = new Map<string, { readonly value: Value }>()
  return (text) => {
    const result = results.get(text)
    if (result !== undefined) return result.value
    const value = make(text)
    if (text.length > lengthMax) return value
    if (results.size >= max) results.clear()
    results.set(text, { value })
    return value
  }
}
