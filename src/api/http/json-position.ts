const literal = /(?:true|false|null|-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?)(?![\w.+-])/y
const escape = /\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})/y

type Expecting = 'value' | 'valueOrEnd' | 'key' | 'keyOrEnd' | 'colon' | 'commaOrEnd' | 'nothing'

/**
 * The character at which a text stops being JSON: V8 says it for some errors only. The text's
 * length when it ends too early. One pass, no recursion; called only when parsing has failed.
 */
export function malformedAt(text: string): number {
  const open: ('{' | '[')[] = []
  let expecting: Expecting = 'value'
  let at = 0
  const afterValue = (): Expecting => (open.length === 0 ? 'nothing' : 'commaOrEnd')
  while (at < text.length) {
    const char = text[at]!
    if (char === ' ' || char === '\n' || char === '\r' || char === '\t') {
      at += 1
      continue
    }
    const closes = (char === '}' && open.at(-1) === '{') || (char === ']' && open.at(-1) === '[')
    if (
      closes &&
      (expecting === 'commaOrEnd' || expecting === (char === '}' ? 'keyOrEnd' : 'valueOrEnd'))
    ) {
      open.pop()
      expecting = afterValue()
      at += 1
    } else if (expecting === 'commaOrEnd' && char === ',') {
      expecting = open.at(-1) === '{' ? 'key' : 'value'
      at += 1
    } else if (expecting === 'colon' && char === ':') {
      expecting = 'value'
      at += 1
    } else if (expecting === 'key' || expecting === 'keyOrEnd') {
      const end = char === '"' ? stringEnd(text, at) : { ok: false, at }
      if (!end.ok) return end.at
      expecting = 'colon'
      at = end.at
    } else if (expecting === 'value' || expecting === 'valueOrEnd') {
      if (char === '{' || char === '[') {
        open.push(char)
        expecting = char === '{' ? 'keyOrEnd' : 'valueOrEnd'
        at += 1
        continue
      }
      const end = char === '"' ? stringEnd(text, at) : literalEnd(text, at)
      if (!end.ok) return end.at
      expecting = afterValue()
      at = end.at
    } else return at
  }
  return text.length
}

function literalEnd(text: string, at: number): { ok: boolean; at: number } {
  literal.lastIndex = at
  return literal.test(text) ? { ok: true, at: literal.lastIndex } : { ok: false, at }
}

function stringEnd(text: string, start: number): { ok: boolean; at: number } {
  let at = start + 1
  while (at < text.length) {
    const unit = text.charCodeAt(at)
    if (unit === 0x22) return { ok: true, at: at + 1 }
    if (unit < 0x20) return { ok: false, at }
    if (unit === 0x5c) {
      escape.lastIndex = at
      if (!escape.test(text)) return { ok: false, at }
      at = escape.lastIndex
    } else at += 1
  }
  return { ok: false, at }
}
