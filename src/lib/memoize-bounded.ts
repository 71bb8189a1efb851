/** Longer ones are nothing that comes again and again, and would take the memory of many. */
const lengthMax = 1_000

/**
 * `make`, which remembers what it made of the last texts, `max` at most: for what clients send
 * again with each request. When there are more it begins anew, so that nobody can make it slower
 * than `make` alone by more than a look-up.
 */
export function remembered<Value>(
  max: number,
  make: (text: string) => Value,
): (text: string) => Value {
  const known = new Map<string, { readonly value: Value }>()
  return (text) => {
    const found = known.get(text)
    if (found !== undefined) return found.value
    const value = make(text)
    if (text.length > lengthMax) return value
    if (known.size >= max) known.clear()
    known.set(text, { value })
    return value
  }
}
