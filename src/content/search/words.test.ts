import assert from 'node:assert/strict'
import { test } from 'node:test'
import { QueryLimitError, QueryParameterError } from '#content/query/errors.ts'
import { plainText } from '#content/search/plain-text.ts'
import { parseSearch, tsqueryText } from '#content/search/search-terms.ts'
import { searchTexts, searchedFields } from '#content/search/searched-fields.ts'
import { wordsIn } from '#content/search/words.ts'

const words = (text: string): string[] => [...wordsIn(text)].map(({ word }) => word)

test('accents, capitals and widths make no difference on Latin and Greek letters', () => {
  assert.deepEqual(words('Éclair, naïve ÅNGSTRÖM'), ['eclair', 'naive', 'angstrom'])
  assert.deepEqual(words('Straße Ærø ŁÓDŹ Ἀθῆναι'), ['strasse', 'aero', 'lodz', 'αθηναι'])
  assert.deepEqual(words('ＡＢＣ ﬁne İstanbul'), ['abc', 'fine', 'istanbul'])
  assert.deepEqual(words('Ёлка мой'), ['елка', 'мой'], 'й is a letter of its own')
  assert.deepEqual(words('हिन्दी'), ['हिन्दी'], 'vowel signs are part of the word')
})

test('languages without spaces fall into pairs', () => {
  assert.deepEqual(words('React 数据库'), ['react', '数据', '据库'])
  assert.deepEqual(words('書'), ['書'])
  assert.deepEqual(words('한국어 문서'), ['한국', '국어', '문서'])
})

test('words say where they stand', () => {
  const text = 'Über ﬁne 数据库!'
  for (const { word, start, end } of wordsIn(text))
    assert.deepEqual([...wordsIn(text.slice(start, end))][0]?.word, word)
})

test('a word that never ends is cut', () => {
  assert.equal(words('x'.repeat(1_000_000))[0]?.length, 100)
})

test('a search is words, phrases, exclusions and beginnings', () => {
  const text = (search: string, groups = ''): string =>
    tsqueryText(parseSearch(search, 'q'), groups)
  assert.equal(text('Long stoa'), "('long') & ('stoa')")
  assert.equal(text('"long stoa" -rome'), "('long' <-> 'stoa') & !('rome')")
  assert.equal(text('web-site publi*'), "('web' <-> 'site') & ('publi':*)")
  assert.equal(text('stoa', 'AD'), "('stoa':AD)")
  assert.equal(text('据'), "('据':*)", 'one character begins a pair')
  assert.equal(text(`it's ' \\ & | ! <-> :* stoa`), "('it' <-> 's') & ('stoa')")
  assert.equal(text('"not closed'), "('not') & ('closed')")
})

test('a search that finds nothing by its form is refused', () => {
  for (const search of ['', '   ', '!?', '-rome', '""', 'a\0b'])
    assert.throws(() => parseSearch(search, 'q'), QueryParameterError, search)
  assert.throws(() => parseSearch('x'.repeat(201), 'q'), QueryLimitError)
  assert.throws(() => parseSearch('x '.repeat(17), 'q'), QueryLimitError)
})

test('Markdown and rich text are searched as people read them', () => {
  const markdown = { name: 'body', kind: 'markdown' } as const
  const shown = plainText(
    markdown,
    '# Title\n\n- see [the stoa](https://example.org/x "A hint") <br>',
  )
  assert.deepEqual(words(shown), ['title', 'see', 'the', 'stoa'])
  const richText = { name: 'body', kind: 'richText' } as const
  const paragraph = (text: string): object => ({
    type: 'paragraph',
    content: [{ type: 'text', text }],
  })
  const doc = { type: 'doc', content: [paragraph('one'), paragraph('two')] }
  assert.equal(plainText(richText, doc), 'one\ntwo\n\n')
})

test('nothing in a text makes reading it slow', () => {
  const markdown = { name: 'body', kind: 'markdown' } as const
  for (const part of ['<', '](', '[', '> ', '\n#', '](a "', '<a ']) {
    const started = performance.now()
    plainText(markdown, part.repeat(400_000 / part.length))
    assert.ok(performance.now() - started < 2_000, part)
  }
})

test('the words of a version are bounded, and a type that does not search has none', () => {
  const searched = searchedFields({
    name: 'page',
    label: 'Page',
    fields: [{ name: 'body', kind: 'markdown', searchable: true }],
  })
  const texts = searchTexts(searched, { body: 'abcdefghi '.repeat(50_000) })
  assert.ok(texts !== null && texts.length <= 262_200)
  assert.equal(searchTexts([], { body: 'x' }), null)
})
