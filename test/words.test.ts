import assert from 'node:assert/strict'
import { globSync, readFileSync } from 'node:fs'
import { test } from 'node:test'

/**
 * Words that this code does not use, each with what to write instead. They are looked for in
 * comments, identifiers (split at capitals) and texts, as tigerbeetle's `tidy.zig` does.
 */
const banned: readonly (readonly [pattern: RegExp, instead: string])[] = [
  [/\b(whoever|somebody|nobody|everybody|anybody)\b/i, 'name the subject: the caller, the node, …'],
  [/\banswer(s|ed|ing)?\b/i, 'response, reply or result; respond, reply or return'],
  [/\bmember(s)?\b/i, 'node'],
  [/\bdoor(s)?\b/i, 'connection dispatcher, entry point'],
  [/\btrouble(s)?\b/i, 'failure'],
  [/\b(given up|gave up)\b/i, 'abandoned'],
  [/\b(bury|buried|doomed)\b/i, 'remove, removed, expired'],
  [/\b(newcomer|newcomers)\b/i, 'joining node'],
  [/\bpatience\b/i, 'timeout'],
  [/\b(let down)\b/i, 'time out'],
  [/\b(hears|heard|unheard)\b/i, 'receives, received'],
  [/\b(told|tell|tells|telling)\b/i, 'report, notify, announce, record, say'],
  [/\boddit(y|ies)\b/i, 'finding'],
  [/\b(judge|judges|judged)\b/i, 'decide, check'],
  [/\b(shelf|shelves|crowd|crowds)\b/i, 'list, group'],
  [/\bgoodbye\b/i, 'leave, close'],
  [/\bplant(s|ed)?\b/i, 'create'],
  [/\b(mend|mends|mended)\b/i, 'fix, repair'],
]

/** Comments are sentences with a subject: these beginnings make fragments. */
const fragment = /^(What|Who|Whose|Whether|Of)\s/

const columnsMax = 100

const code = globSync('{src,sim,bench,test,bin,examples}/**/*.{ts,js,sql}').concat('cluster.js')
const texts = globSync(['*.md', 'docs/**/*.md', 'src/**/*.md'])

/** Identifiers fall into their words, so that `tellToken` has the word `tell`. */
function wordsOf(line: string): string {
  return line.replaceAll(/([a-z0-9])([A-Z])/g, '$1 $2').replaceAll('_', ' ')
}

function complaintsOf(file: string, text: string): string[] {
  const complaints: string[] = []
  const isCode = !file.endsWith('.md')
  const lines = text.split('\n')
  for (const [index, line] of lines.entries()) {
    const place = `${file}:${index + 1}`
    const words = wordsOf(line)
    for (const [pattern, instead] of banned) {
      const found = pattern.exec(words)
      if (found !== null) complaints.push(`${place}: "${found[0]}": write ${instead}`)
    }
    if (!isCode) continue
    const comment = /^\s*(?:\/\*\*|\/\/|--)\s+(.*)$/.exec(line)?.[1]
    const previous = lines[index - 1] ?? ''
    const begins = !/^\s*(\/\/|--)/.test(previous)
    if (comment !== undefined && begins && fragment.test(comment))
      complaints.push(`${place}: a comment is a sentence with a subject`)
    if (line.length > columnsMax && !/https?:\/\/|\/.*\\.*\/[gimsuvy]*/.test(line))
      complaints.push(`${place}: wider than ${columnsMax} columns`)
  }
  return complaints
}

const itself = 'test/words.test.ts'

test('the code and its documents keep to the words of the glossary, in sentences, at 100 columns', () => {
  const files = [...code, ...texts].filter((file) => file !== itself)
  const complaints = files.flatMap((file) => complaintsOf(file, readFileSync(file, 'utf8')))
  assert.deepEqual(complaints, [])
})

test('a banned word is found in a comment, an identifier and a text', () => {
  const planted = ['// Somebody is here.', 'const tellToken = 1', "throw new Error('no answer')"]
  for (const line of planted) assert.equal(complaintsOf('src/lib/a.ts', line).length, 1, line)
  assert.equal(complaintsOf('src/lib/a.ts', '/** What it is. */').length, 1)
  assert.equal(complaintsOf('src/lib/a.ts', `const x = '${'y'.repeat(100)}'`).length, 1)
  assert.deepEqual(complaintsOf('src/lib/a.ts', '// The lock outlives the session.'), [])
})
