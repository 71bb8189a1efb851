import { RE2JS } from 're2js'

/**
 * Regular expressions that an editor may put on a field, matched by RE2 in time linear in the text.
 * The engine of JavaScript backtracks, so one pattern such as `(a+)+$` could hold a node for
 * minutes. The syntax is what both engines accept: JavaScript's with the `u` flag, without
 * lookaround and back references. The whole value has to match. See docs/decisions/036.
 */

/** States of one automaton, and the longest pattern in UTF-16 units. */
const statesMax = 500
const sourceMax = 500

/** The longest text that is matched, in code points: no `lengthMax` beside a pattern exceeds it. */
export const patternTextMax = 4_000

/**
 * The work that the patterns of one save may cost, in states times characters: about a second in
 * the worst case, while usual patterns take a megabyte of text.
 */
export const patternWorkMax = 10_000_000

export type Pattern = {
  matches(text: string): boolean
  /** The most that matching a text costs, in states times characters. */
  workFor(text: string): number
}

/** Why a pattern cannot be used, in words for its author. */
export class PatternProblem extends Error {}

/** Throws `PatternProblem`. */
export function compilePattern(source: string): Pattern {
  if (source.length > sourceMax)
    throw new PatternProblem(`A pattern has at most ${sourceMax} characters.`)
  const compiled = compileRe2(javaScriptSource(source))
  const states = compiled.programSize()
  if (states > statesMax)
    throw new PatternProblem('The pattern is too large; use fewer or smaller counts.')
  return {
    matches: (text) => compiled.matches(text),
    workFor: (text) => states * text.length,
  }
}

function javaScriptSource(source: string): string {
  try {
    return new RegExp(source, 'u').source
  } catch (error) {
    throw new PatternProblem(`It is not a regular expression: ${messageOf(error)}.`)
  }
}

function compileRe2(source: string): RE2JS {
  try {
    return RE2JS.compile(RE2JS.translateRegExp(source))
  } catch (error) {
    throw new PatternProblem(
      `Patterns have no lookaround, back references or named scripts: ${messageOf(error)}.`,
    )
  }
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}
