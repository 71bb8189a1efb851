/**
 * JSON with sorted keys, two spaces and a newline at the end: equal values make equal bytes, and
 * one changed value changes one line. Keys sort by UTF-16 unit, as JavaScript compares text.
 */
export function stableJson(value: unknown): string {
  return `${JSON.stringify(sorted(value), null, 2)}\n`
}

/** The same value with the keys of all objects in order. */
export function sorted(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(sorted)
  if (typeof value !== 'object' || value === null) return value
  const result: Record<string, unknown> = Object.create(null) as Record<string, unknown>
  for (const key of Object.keys(value).sort())
    result[key] = sorted((value as Record<string, unknown>)[key])
  return result
}
