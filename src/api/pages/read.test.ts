import assert from 'node:assert/strict'
import { test } from 'node:test'
import { renderMarkdown } from '#api/pages/read.ts'

test('Markdown becomes HTML that runs nothing', () => {
  assert.equal(renderMarkdown('a *b* **c**'), '<p>a <em>b</em> <strong>c</strong></p>\n')
  const hostile = renderMarkdown(
    '[a](javascript:alert(1))\n\n<script>alert(1)</script><img src=x onerror=alert(1)> <iframe src="/"></iframe>',
  )
  assert.doesNotMatch(hostile, /script|onerror|iframe/i)
})

test('what no parser should go through is shown as it was typed', () => {
  for (const text of [
    '> '.repeat(5_000),
    '1. '.repeat(5_000),
    '*a_'.repeat(10_000),
    '_a__'.repeat(10_000),
  ]) {
    assert.equal(renderMarkdown(text), `<pre>${text.replaceAll('>', '&gt;')}</pre>`)
  }
})
