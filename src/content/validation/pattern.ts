/**
 * Regular expressions that an editor may put on a field, matched in time linear in the text
 * (Thompson's construction, https://swtch.com/~rsc/regexp/regexp1.html). The engine of JavaScript
 * backtracks, so one pattern such as `(a+)+$` could hold a node for minutes. The syntax is
 * JavaScript's with the `u` flag, without lookaround and back references; the whole value has to
 * match.
 */

/** States of one automaton; with `patternTextMax` it bounds the work of one match. */
const statesMax = 1_000
/** Longest pattern, in UTF-16 units. */
const sourceMax = 500
const repeatMax = 200
const depthMax = 20

/**
 * The longest text that is matched, in code points: `lengthMax` of a field with a pattern may not
 * exceed it.
 */
export const patternTextMax = 4_000

type Matcher = (char: string) => boolean
type Part =
  | { readonly is: 'char'; readonly match: Matcher }
  | { readonly is: 'start' | 'end' }
  | { readonly is: 'all' | 'any'; readonly parts: readonly Part[] }
  | { readonly is: 'repeat'; readonly part: Part; readonly min: number; readonly max: number }

type State =
  | { readonly is: 'char'; readonly match: Matcher; next: number }
  | { readonly is: 'split'; next: number; other: number }
  | { readonly is: 'start' | 'end'; next: number }
  | { readonly is: 'done' }

export type Pattern = { matches(text: string): boolean }

/** Why a pattern cannot be used, for the one who wrote it. */
export class PatternProblem extends Error {}

class Parser {
  readonly #chars: string[]
  #at = 0
  #depth = 0

  constructor(source: string) {
    this.#chars = Array.from(source)
  }

  parse(): Part {
    const part = this.#alternatives()
    if (this.#at < this.#chars.length) throw new PatternProblem('A ")" has no "(".')
    return part
  }

  #alternatives(): Part {
    const parts = [this.#sequence()]
    while (this.#chars[this.#at] === '|') {
      this.#at += 1
      parts.push(this.#sequence())
    }
    return parts.length === 1 ? parts[0]! : { is: 'any', parts }
  }

  #sequence(): Part {
    const parts: Part[] = []
    while (
      this.#at < this.#chars.length &&
      this.#chars[this.#at] !== '|' &&
      this.#chars[this.#at] !== ')'
    ) {
      parts.push(this.#repeated(this.#atom()))
    }
    return { is: 'all', parts }
  }

  #repeated(part: Part): Part {
    const char = this.#chars[this.#at]
    let range: { min: number; max: number }
    if (char === '*') range = { min: 0, max: Infinity }
    else if (char === '+') range = { min: 1, max: Infinity }
    else if (char === '?') range = { min: 0, max: 1 }
    else if (char === '{') range = this.#range()
    else return part
    if (part.is === 'start' || part.is === 'end')
      throw new PatternProblem('An anchor cannot be repeated.')
    if (char !== '{') this.#at += 1
    // Lazy or greedy is the same question when only "does it match" is asked.
    if (this.#chars[this.#at] === '?') this.#at += 1
    if (/[*+?{]/.test(this.#chars[this.#at] ?? ''))
      throw new PatternProblem('There is nothing to repeat.')
    return { is: 'repeat', part, ...range }
  }

  #range(): { min: number; max: number } {
    const end = this.#chars.indexOf('}', this.#at)
    const match = /^\{(\d{1,4})(?:(,)(\d{1,4})?)?\}$/.exec(
      this.#chars.slice(this.#at, end + 1).join(''),
    )
    if (end < 0 || match === null)
      throw new PatternProblem('A "{" that does not open a count is written "\\{".')
    this.#at = end + 1
    const min = Number(match[1])
    const max = match[2] === undefined ? min : match[3] === undefined ? Infinity : Number(match[3])
    if (max < min) throw new PatternProblem('The numbers of a count are out of order.')
    if (min > repeatMax || (max !== Infinity && max > repeatMax))
      throw new PatternProblem(`A count goes up to ${repeatMax}.`)
    return { min, max }
  }

  #atom(): Part {
    const char = this.#chars[this.#at]!
    if (char === '(') return this.#group()
    if (/[*+?{]/.test(char)) throw new PatternProblem('There is nothing to repeat.')
    this.#at += 1
    if (char === '^') return { is: 'start' }
    if (char === '$') return { is: 'end' }
    if (char === '[') return this.#compiled(this.#class())
    if (char === '\\') return this.#compiled(this.#escape())
    if (char === '.') return this.#compiled('.')
    return { is: 'char', match: (other) => other === char }
  }

  #group(): Part {
    this.#at += 1
    if (this.#chars[this.#at] === '?') {
      if (this.#chars[this.#at + 1] !== ':')
        throw new PatternProblem('Lookaround and named groups cannot be used; "(?:" can.')
      this.#at += 2
    }
    this.#depth += 1
    if (this.#depth > depthMax) throw new PatternProblem(`Groups nest up to ${depthMax} deep.`)
    const part = this.#alternatives()
    this.#depth -= 1
    if (this.#chars[this.#at] !== ')') throw new PatternProblem('A "(" has no ")".')
    this.#at += 1
    return part
  }

  #class(): string {
    const start = this.#at - 1
    while (this.#at < this.#chars.length && this.#chars[this.#at] !== ']')
      this.#at += this.#chars[this.#at] === '\\' ? 2 : 1
    if (this.#at >= this.#chars.length) throw new PatternProblem('A "[" has no "]".')
    this.#at += 1
    return this.#chars.slice(start, this.#at).join('')
  }

  #escape(): string {
    const rest = this.#chars.slice(this.#at).join('')
    const match =
      /^(?:[pP]\{[A-Za-z0-9_=]+\}|u\{[0-9A-Fa-f]+\}|u[0-9A-Fa-f]{4}|x[0-9A-Fa-f]{2}|[dDwWsSnrtfv]|[\^$\\.*+?()[\]{}|/-])/u.exec(
        rest,
      )
    if (match === null)
      throw new PatternProblem(
        'This escape cannot be used; back references and word boundaries are not supported.',
      )
    this.#at += Array.from(match[0]).length
    return match[0] === '-' ? '-' : `\\${match[0]}`
  }

  #compiled(source: string): Part {
    // One code point against one atom: the engine has nothing to go back to.
    let one: RegExp
    try {
      one = new RegExp(`^(?:${source})$`, 'u')
    } catch {
      throw new PatternProblem(`"${source}" cannot be read.`)
    }
    return { is: 'char', match: (char) => one.test(char) }
  }
}

/**
 * Builds the automaton from its end: each part is given the state that follows it, and returns its
 * first.
 */
class Builder {
  readonly states: State[] = [{ is: 'done' }]

  add(state: State): number {
    if (this.states.length >= statesMax)
      throw new PatternProblem('The pattern is too large; use fewer or smaller counts.')
    return this.states.push(state) - 1
  }

  build(part: Part, next: number): number {
    switch (part.is) {
      case 'char':
        return this.add({ is: 'char', match: part.match, next })
      case 'start':
      case 'end':
        return this.add({ is: part.is, next })
      case 'all':
        return part.parts.reduceRight((after, one) => this.build(one, after), next)
      case 'any':
        return part.parts
          .map((one) => this.build(one, next))
          .reduceRight((other, first) => this.add({ is: 'split', next: first, other }))
      case 'repeat':
        return this.#repeat(part, next)
    }
  }

  #repeat(part: Extract<Part, { is: 'repeat' }>, next: number): number {
    let first = next
    if (part.max === Infinity) {
      first = this.add({ is: 'split', next, other: next })
      const body = this.build(part.part, first)
      const loop = this.states[first]
      if (loop?.is === 'split') loop.next = body
    } else {
      for (let times = part.min; times < part.max; times += 1)
        first = this.add({ is: 'split', next: this.build(part.part, first), other: next })
    }
    for (let times = 0; times < part.min; times += 1) first = this.build(part.part, first)
    return first
  }
}

/** Compiles a pattern. Throws `PatternProblem` with a sentence for the one who wrote it. */
export function compilePattern(source: string): Pattern {
  if (source.length > sourceMax)
    throw new PatternProblem(`A pattern has at most ${sourceMax} characters.`)
  const builder = new Builder()
  const start = builder.build(new Parser(source).parse(), 0)
  return { matches: (text) => run(builder.states, start, text) }
}

function run(states: readonly State[], start: number, text: string): boolean {
  const chars = Array.from(text)
  if (chars.length > patternTextMax) return false
  let current = follow(states, [start], 0, chars.length)
  for (let at = 0; at < chars.length && current.length > 0; at += 1) {
    const char = chars[at]!
    const reached: number[] = []
    for (const index of current) {
      const state = states[index]!
      if (state.is === 'char' && state.match(char)) reached.push(state.next)
    }
    current = follow(states, reached, at + 1, chars.length)
  }
  return current.some((index) => states[index]!.is === 'done')
}

/**
 * Every state that can be reached without reading a character, each once: that is what keeps the
 * work linear.
 */
function follow(
  states: readonly State[],
  from: readonly number[],
  at: number,
  length: number,
): number[] {
  const seen = new Set<number>()
  const waiting = [...from]
  for (let index = waiting.pop(); index !== undefined; index = waiting.pop()) {
    if (seen.has(index)) continue
    seen.add(index)
    const state = states[index]!
    if (state.is === 'split') waiting.push(state.next, state.other)
    else if ((state.is === 'start' && at === 0) || (state.is === 'end' && at === length))
      waiting.push(state.next)
  }
  return [...seen]
}
