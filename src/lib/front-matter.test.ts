import assert from 'node:assert/strict'
import { test } from 'node:test'
import { PageReader, parsePage } from '#lib/front-matter.ts'

test('front matter and body; none at all; a byte order mark; CRLF; a rule further down', () => {
  assert.deepEqual(parsePage('---\ntitle: A\n---\n\n# Body\n---\n'), {
    ok: true,
    page: { frontMatter: { title: 'A' }, body: '# Body\n---\n' },
  })
  assert.deepEqual(parsePage('\uFEFF---\r\ntitle: A\r\n---\r\nBody'), {
    ok: true,
    page: { frontMatter: { title: 'A' }, body: 'Body' },
  })
  assert.deepEqual(parsePage('Body\n---\nx\n---'), {
    ok: true,
    page: { frontMatter: {}, body: 'Body\n---\nx\n---' },
  })
  assert.deepEqual(parsePage('---\n---\n'), { ok: true, page: { frontMatter: {}, body: '' } })
  assert.deepEqual(parsePage(''), { ok: true, page: { frontMatter: {}, body: '' } })
})

test('what is no front matter is a reason, never an exception', () => {
  const reasons = [
    '---\ntitle: [\n---\n',
    '---\na: 1\na: 2\n---\n',
    '---\ntitle: x\n',
    '---\na: *b\n---\n',
  ].map((text) => parsePage(text))
  for (const parsed of reasons)
    assert.ok(!parsed.ok && parsed.reason.length > 10, JSON.stringify(parsed))
  const doubled = 'bcdefghij'.split('').map((name, at) => {
    const aliases = Array(9).fill(`*${'abcdefghij'[at]}`).join(', ')
    return `${name}: &${name} [${aliases}]`
  })
  const bomb = `---\na: &a [x, x, x, x, x, x, x, x, x]\n${doubled.join('\n')}\n---\n`
  assert.equal(parsePage(bomb).ok, false)
})

test('values that JSON does not know become what it knows', () => {
  const parsed = parsePage(
    '---\nnan: .nan\nbig: 123456789012345678901234567890\nbinary: !!binary aGk=\n1: ' +
      'one\nnothing: ~\n---\n',
  )
  assert.ok(parsed.ok)
  assert.deepEqual(JSON.parse(JSON.stringify(parsed.page.frontMatter)), {
    1: 'one',
    nan: '.nan',
    big: '123456789012345678901234567890',
    binary: 'aGk=',
    nothing: null,
  })
})

test('front matter in TOML, JSON and the forms of other generators is read', () => {
  const read = (text: string): unknown => {
    const parsed = parsePage(text)
    assert.ok(parsed.ok, text)
    return [parsed.page.frontMatter, parsed.page.body]
  }
  assert.deepEqual(read('+++\ntitle = "A"\ndate = 2020-01-02\ndraft = true\n+++\n\nText'), [
    { title: 'A', date: '2020-01-02', draft: true },
    'Text',
  ])
  const json = [{ title: 'A', draft: true }, 'Text']
  assert.deepEqual(read('{\n  "title": "A",\n  "draft": true\n}\n\nText'), json)
  assert.deepEqual(read('---json\n{ "title": "A", "draft": true }\n---\nText'), json)
  assert.deepEqual(read('---toml\ntitle = "A"\ndraft = true\n---\nText'), json)
  assert.deepEqual(read('"title": "A",\n"draft": true\n;;;\nText'), json)
  assert.deepEqual(read('<!-- licence -->\n\n---\ntitle: A\ndraft: true\n---\nText'), json)
  const lines = [{ Title: 'A', Status: 'draft' }, 'Text']
  assert.deepEqual(read('Title: A\nStatus: draft\n\nText'), lines)
  assert.deepEqual(read('<!--\n.. Title: A\n.. Status: draft\n-->\nText'), lines)
  assert.deepEqual(read('% A\n% Ann\n\nText'), [{ title: 'A', author: 'Ann' }, 'Text'])
  const mdx = 'export const metadata = { title: "A", draft: true }\n\nText'
  assert.deepEqual(read(mdx), [{ title: 'A', draft: true }, mdx])
})

test('a text that only begins like front matter is all body', () => {
  for (const text of [
    '---\n\nA page that begins with a rule.\n',
    '---\n\nText between two rules.\n\n---\n\nMore.\n',
    '---\n- a\n---\n',
    '{frontmatter.title}\n',
    '{% include head.html %}\n',
    '{ "a": 1 } is JSON.\n',
    'Note: the shop is open.\n\nText',
    'Title\n=====\n',
  ])
    assert.deepEqual(parsePage(text), { ok: true, page: { frontMatter: {}, body: text } }, text)
})

test('front matter that cannot be read refuses the page instead of being published as text', () => {
  for (const text of [
    '+++\ntitle = \n+++\nText',
    '+++\ntitle = "A"\n\nText',
    '{\n  "title": "A"\n\nText',
    '{\n  "title": "A" "b": 1\n}\n\nText',
    '---js\n({ title: 1 })\n---\nText',
    'export const metadata = { title: "A" "b" }\n\nText',
  ]) {
    const parsed = parsePage(text)
    assert.ok(!parsed.ok && parsed.reason.length > 10, text)
  }
})

test('numbers whose digits would change stay text', () => {
  const numbers = { zip: '01234', version: '1.10', id: '750727362669608961', plain: 5, half: 0.5 }
  for (const text of [
    '---\nzip: 01234\nversion: 1.10\nid: 750727362669608961\nplain: 5\nhalf: 0.5\n---\n',
    '{"zip": "01234", "version": 1.10, "id": 750727362669608961, "plain": 5, "half": 0.5}\n',
    '+++\nzip = "01234"\nversion = 1.10\nid = 750727362669608961\nplain = 5\nhalf = 0.5\n+++\n',
  ]) {
    const parsed = parsePage(text)
    assert.ok(parsed.ok)
    assert.deepEqual(parsed.page.frontMatter, numbers)
  }
})

test('hostile beginnings take no time', () => {
  for (const text of ['\n', ' \n', '<!--', '<!-- -->', '---\n', '{[', '{"', '% a\n', 'Title: x\n'])
    parsePage(text.repeat(500_000))
})

test('a page that is read again is the same page, unless it begins otherwise', () => {
  const reader = new PageReader()
  for (const text of [
    '---\na: 1\n---\nbody',
    '---\na: 1\n---\n\n\n  indented',
    'no front matter',
    '---\na: 1\n---',
    '---\na: 2\n---\nbody',
    '---\na: 1\n---\n\nbody',
    '---\na: 1\n---\nother body',
    '',
  ]) {
    assert.deepEqual(reader.read('page', text), parsePage(text), text)
    assert.deepEqual(reader.read('page', text), parsePage(text), `${text} again`)
  }
})
