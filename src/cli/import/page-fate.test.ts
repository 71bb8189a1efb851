import assert from 'node:assert/strict'
import { test } from 'node:test'
import { fateOfPage } from '#cli/import/page-fate.ts'
import type { FrontMatter } from '#lib/front-matter.ts'

const nowMs = Date.parse('2026-11-30T12:00:00Z')

function fate(frontMatter: FrontMatter, path = 'guide/page.md'): string {
  return fateOfPage(path, frontMatter, nowMs).is
}

test('a page that its generator would not publish stays a draft', () => {
  const drafts: readonly FrontMatter[] = [
    { draft: true },
    { Draft: 'yes' },
    { draft: 'until Monday' },
    { published: false },
    { published: 'no' },
    { publish: false },
    { status: 'draft' },
    { Status: 'In review' },
    { state: 'archived' },
    { visibility: 'paid' },
    { private: true },
    { unlisted: true },
    { permalink: false },
    { render: false },
    { build: { render: 'never' } },
    { _build: { list: 'always', render: false } },
    { password: 'secret' },
    { publishDate: 'next week' },
    { date: '31.12.2099' },
    { expiryDate: '2020-01-01' },
  ]
  for (const frontMatter of drafts)
    assert.equal(fate(frontMatter), 'draft', JSON.stringify(frontMatter))
  for (const path of [
    '_drafts/a.md',
    'posts/Drafts/a.md',
    '_layouts/a.md',
    'a/_part.mdx',
    'b.draft.md',
  ])
    assert.equal(fate({}, path), 'draft', path)
})

test('a page with a time in the future is scheduled, and its expiry with it', () => {
  assert.deepEqual(fateOfPage('a.md', { date: '2099-01-01' }, nowMs), {
    is: 'schedule',
    dueAt: '2099-01-01T00:00:00.000Z',
    unpublishAt: null,
  })
  const frontMatter = { date: '2020-01-01', publishDate: '2098-01-01', expiryDate: '2099-01-01' }
  assert.deepEqual(fateOfPage('a.md', frontMatter, nowMs), {
    is: 'schedule',
    dueAt: '2098-01-01T00:00:00.000Z',
    unpublishAt: '2099-01-01T00:00:00.000Z',
  })
  assert.equal(fate({ date: 'January 5, 2099' }), 'schedule')
  assert.equal(fate({ published: '2099-01-01' }), 'schedule')
  assert.equal(fate({}, '_posts/2099-01-01-x.md'), 'schedule')
})

test('everything else is published, and a state that says nothing is remarked', () => {
  const published: readonly FrontMatter[] = [
    {},
    { draft: false },
    { draft: null },
    { draft: 'no' },
    { published: true },
    { published: '2020-01-01' },
    { status: 'published' },
    { date: '2019-05-06 07:08:09 +0200' },
    { date: 'some day' },
    { hidden: false, private: 'no' },
    { permalink: '/about/' },
  ]
  for (const frontMatter of published)
    assert.equal(fate(frontMatter), 'publish', JSON.stringify(frontMatter))
  for (const path of ['_posts/2018-01-01-old.md', 'docs/_index.md', 'drafting/a.md'])
    assert.equal(fate({}, path), 'publish', path)
  const unknown = fateOfPage('a.md', { status: 'accepted' }, nowMs)
  assert.ok(unknown.is === 'publish' && unknown.remark !== null)
})
