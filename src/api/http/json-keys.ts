const quote = 0x22
const backslash = 0x5c

/**
 * Finds a key that an object of a JSON text has twice, of which `JSON.parse` would keep the last
 * one in silence. The text must be valid JSON. Null: there is none.
 */
export function duplicateKey(text: string): { readonly key: string; readonly at: number } | null {
  /** The keys of the objects around the position; an array has null. */
  const open: (Set<string> | null)[] = []
  for (let at = 0; at < text.length; at += 1) {
    const { [at]: char } = text
    if (char === '{') open.push(new Set())
    else if (char === '[') open.push(null)
    else if (char === '}' || char === ']') open.pop()
    else if (char === '"') {
      const end = endOfString(text, at)
      const keys = open.at(-1)
      if (keys !== null && keys !== undefined && isKey(text, end)) {
        const key = JSON.parse(text.slice(at, end)) as string
        if (keys.has(key)) return { key, at }
        keys.add(key)
      }
      at = end - 1
    }
  }
  return null
}

/** The position behind the closing quote of the string that begins at `start`. */
function endOfString(text: string, start: number): number {
  for (let at = start + 1; at < text.length; at += 1) {
    const unit = text.charCodeAt(at)
    if (unit === backslash) at += 1
    else if (unit === quote) return at + 1
  }
  return text.length
}

function isKey(text: string, end: number): boolean {
  for (let at = end; at < text.length; at += 1) if (text[at]!.trim() !== '') return text[at] === ':'
  return false
}
