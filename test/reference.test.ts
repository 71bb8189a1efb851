import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { referencePages } from '#test/support/reference-pages.ts'

// Where it fails, `node test/write-reference.ts` writes the pages again.
test('the reference pages of settings and commands say what the code says', async () => {
  for (const [name, text] of await referencePages()) {
    assert.equal(
      readFileSync(new URL(`../docs/reference/${name}`, import.meta.url), 'utf8'),
      text,
      name,
    )
  }
})
