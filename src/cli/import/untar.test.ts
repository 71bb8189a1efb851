import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import fc from 'fast-check'
import { ImportSourceError } from '#cli/import/errors.ts'
import { openPageSource } from '#cli/import/page-source.ts'
import { readTar } from '#cli/import/untar.ts'

async function* chunks(bytes: Buffer, size: number): AsyncGenerator<Buffer> {
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size)
}

test('a folder and its tar, in every format tar can write, give the same pages', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'stoa-untar-'))
  try {
    const deep = join(folder, 'pages', 'd'.repeat(90), 'e'.repeat(60))
    mkdirSync(deep, { recursive: true })
    mkdirSync(join(folder, 'pages', '.hidden'))
    const texts: Record<string, string> = {
      'pages/b.md': 'B',
      'pages/ünï.mdx': 'ü'.repeat(3_000),
      [`pages/${'d'.repeat(90)}/${'e'.repeat(60)}/c.markdown`]: '',
    }
    for (const [path, text] of Object.entries(texts)) writeFileSync(join(folder, path), text)
    writeFileSync(join(folder, 'pages/picture.png'), 'no page')
    writeFileSync(join(folder, 'pages/.hidden/x.md'), 'hidden')
    writeFileSync(join(folder, 'pages/latin1.md'), Buffer.from([0xe9, 0x20]))
    const read = async (path: string): Promise<Record<string, string>> => {
      const result: Record<string, string> = {}
      await using source = await openPageSource(path, new AbortController().signal)
      for (const file of source?.files ?? []) {
        const content = await file.read()
        result[file.path] = content.ok ? content.text : content.reason
      }
      return result
    }
    const expected = { ...texts, 'pages/latin1.md': 'The file is not UTF-8.' }
    assert.deepEqual(
      Object.fromEntries(
        Object.entries(await read(join(folder, 'pages'))).map(([path, text]) => [
          `pages/${path}`,
          text,
        ]),
      ),
      expected,
    )
    for (const format of ['gnu', 'pax', 'ustar']) {
      const archive = join(folder, `${format}.tar.gz`)
      execFileSync('tar', ['-C', folder, `--format=${format}`, '-czf', archive, 'pages'])
      assert.deepEqual(await read(archive), expected, format)
      const cut = join(folder, 'cut.tar.gz')
      writeFileSync(cut, readFileSync(archive).subarray(0, 300))
      await assert.rejects(read(cut), ImportSourceError)
    }
    await assert.rejects(
      openPageSource(join(folder, 'gone'), new AbortController().signal),
      /cannot be read/,
    )
    await assert.rejects(
      openPageSource(join(folder, 'pages/b.md'), new AbortController().signal),
      /neither a folder nor/,
    )
  } finally {
    rmSync(folder, { recursive: true })
  }
})

test('bytes that are no tar are refused, whatever they are', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.uint8Array({ minLength: 1, maxLength: 2_000 }),
      fc.integer({ min: 1, max: 700 }),
      async (bytes, size) => {
        try {
          for await (const entry of readTar(chunks(Buffer.from(bytes), size)))
            assert.fail(`found ${entry.path}`)
          assert.ok(bytes.slice(0, 512).every((byte) => byte === 0))
        } catch (error) {
          assert.ok(error instanceof ImportSourceError, String(error))
        }
      },
    ),
  )
})
