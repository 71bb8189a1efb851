import assert from 'node:assert/strict'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { systemClock } from '#lib/clock.ts'
import { silentLogger } from '#lib/logger.ts'
import { renderMarkdown } from '#rendering/markdown.ts'
import { MarkdownRenderer } from '#rendering/markdown-renderer.ts'

const plain = { anchors: false }

test('Markdown becomes HTML that runs nothing', () => {
  assert.equal(renderMarkdown('a *b* **c**', plain), '<p>a <em>b</em> <strong>c</strong></p>\n')
  const hostile = renderMarkdown(
    '[a](javascript:alert(1))\n\n<script>alert(1)</script>' +
      '<img src=x onerror=alert(1)> <iframe src="/"></iframe> <p id="main" style="x">',
    plain,
  )
  assert.doesNotMatch(hostile, /script|onerror|iframe|id=|style/i)
})

test('headings of our own documents have the ids that GitHub gives them', () => {
  const html = renderMarkdown('## A `where` filter\n## Two, three\n## Two, three', {
    anchors: true,
  })
  assert.deepEqual(
    [...html.matchAll(/id="([^"]*)"/g)].map((match) => match[1]),
    ['a-where-filter', 'two-three', 'two-three-1'],
  )
})

test('no text holds the event loop or ends the process; honest text is rendered', async (t) => {
  const renderer = new MarkdownRenderer({ clock: systemClock, logger: silentLogger })
  let longestMs = 0
  let lastMs = performance.now()
  const watch = setInterval(() => {
    longestMs = Math.max(longestMs, performance.now() - lastMs)
    lastMs = performance.now()
  }, 5)
  t.after(async () => {
    clearInterval(watch)
    await renderer.stop()
  })
  const render = (text: string, caller: string) =>
    renderer.render({ text, anchors: false, caller, group: caller })
  const hostile = {
    table: `${'|a'.repeat(300)}\n${'|-'.repeat(300)}\n${'|\n'.repeat(1_000)}`,
    'wide table': `${'|a'.repeat(8_000)}\n${'|-'.repeat(8_000)}\n${'|\n'.repeat(9_000)}`,
    'nested lists': '1. '.repeat(10_000),
    quotes: '> '.repeat(10_000),
    emphasis: '*a_'.repeat(50_000),
    links: '['.repeat(100_000),
  }
  const all = Object.entries(hostile).map(async ([name, text]) => {
    const { kind } = await render(text, name)
    assert.ok(kind !== 'html' || name !== 'wide table', name)
  })
  const honest = 'A paragraph with *emphasis* and [a link](/x).\n\n'.repeat(1_000)
  assert.equal(honest.length > 45_000, true)
  await Promise.all(all)
  const rendered = await render(honest, 'reader')
  assert.equal(rendered.kind, 'html')
  await sleep(20)
  assert.ok(longestMs < 1_000, `the event loop was held for ${Math.round(longestMs)} ms`)
})

test('one caller gets a bounded number of waiting jobs, and another is still served', async (t) => {
  const renderer = new MarkdownRenderer({ clock: systemClock, logger: silentLogger })
  t.after(() => renderer.stop())
  const slow = '1. '.repeat(20_000)
  const greedy = Array.from({ length: 20 }, (_, index) =>
    renderer.render({ text: `${index} ${slow}`, anchors: false, caller: 'a', group: `${index}` }),
  )
  const other = renderer.render({ text: '*b*', anchors: false, caller: 'b', group: 'b' })
  assert.deepEqual(await other, { kind: 'html', html: '<p><em>b</em></p>\n' })
  const kinds = (await Promise.all(greedy)).map(({ kind }) => kind)
  assert.ok(kinds.filter((kind) => kind === 'busy').length >= 14, kinds.join())
})
