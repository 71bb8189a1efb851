import assert from 'node:assert/strict'
import { test } from 'node:test'
import { cleanName, disposition, nameForKind } from '#media/asset-name.ts'
import { UploadRefusedError } from '#media/errors.ts'
import { kindOf } from '#media/kinds.ts'
import { sniff } from '#media/sniff.ts'
import { measureSvg } from '#media/svg-size.ts'

const png = Buffer.from('89504e470d0a1a0a0000000d49484452', 'hex')
const gif = Buffer.from('GIF89a/*\x01\x00\x00\x00\x00\x00*/=1;alert(1)', 'latin1')

const cases: readonly (readonly [
  title: string,
  bytes: Buffer | string,
  extension: string,
  kind: string,
])[] = [
  ['HTML whatever its name', '<!DOCTYPE html><script>alert(1)</script>', 'jpg', 'text/html'],
  ['HTML behind space and a comment', '\n\n <!-- <svg> -->\n<html>', 'txt', 'text/html'],
  ['a bare script', '<script src=//evil></script>', 'md', 'text/html'],
  ['HTML hidden in an unknown element', '<x-y><script>alert(1)</script>', 'txt', 'text/html'],
  ['SVG', '<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"/>', 'svg', 'image/svg+xml'],
  [
    'SVG behind a prolog with entities',
    '<?xml version="1.0"?><!DOCTYPE svg [<!ENTITY a "<b>">]>\n<!-- x --><svg/>',
    'png',
    'image/svg+xml',
  ],
  ['SVG with a prefix', '<s:svg xmlns:s="http://www.w3.org/2000/svg"/>', '', 'image/svg+xml'],
  ['SVG behind a byte order mark', '\ufeff<svg/>', '', 'image/svg+xml'],
  ['other XML', '<?xml version="1.0"?><feed/>', 'txt', 'application/xml'],
  ['a comment that never ends', '<!-- <html>', 'svg', 'text/html'],
  ['PNG whatever its name', png, 'html', 'image/png'],
  ['a polyglot of GIF and JavaScript', gif, 'js', 'image/gif'],
  ['text', 'hello', '', 'text/plain'],
  ['text with an unknown extension', 'hello', 'xyz', 'text/plain'],
  ['Markdown by its name', '# Hello\n\n<div>x</div>', 'md', 'text/markdown'],
  ['JSON by its name', '{"a":"<html>"}', 'json', 'application/json'],
  ['a script by its name', 'alert(1)', 'js', 'text/javascript'],
  ['what is named HTML and shows no tag', 'hello', 'html', 'text/html'],
  ['text cut within a character', Buffer.from('grüße').subarray(0, 3), 'txt', 'text/plain'],
  ['binary of no known kind', Buffer.from([0, 1, 2, 3, 255]), 'txt', 'application/octet-stream'],
  ['a PDF without binary bytes', '%PDF-1.4\n1 0 obj', 'txt', 'application/pdf'],
]

for (const [title, bytes, extension, expected] of cases) {
  test(`sniff: ${title} is ${expected}`, async () => {
    assert.equal((await sniff(Buffer.from(bytes as string), extension)).kind.contentType, expected)
  })
}

test('only kinds that a browser shows harmlessly are inline', () => {
  for (const name of [
    'text/html',
    'image/svg+xml',
    'application/xml',
    'application/xhtml+xml',
    'text/javascript',
    'text/css',
    'application/octet-stream',
    'application/x-shockwave-flash',
    'multipart/x-mixed-replace',
  ]) {
    assert.equal(kindOf(name).isInline, false, name)
    assert.match(disposition(kindOf(name), 'x'), /^attachment;/)
  }
  assert.match(disposition(kindOf('image/png'), 'x.png'), /^inline;/)
})

test('names lose paths, control characters and direction marks, and keep the rest', () => {
  const table: readonly (readonly [string, string])[] = [
    ['../../etc/passwd', 'passwd'],
    ['C:\\windows\\system32\\evil.dll', 'evil.dll'],
    ['..', 'file'],
    ['', 'file'],
    ['/', 'file'],
    ['\u0000\u0001\r\n', 'file'],
    ['a\r\nSet-Cookie: x=1.txt', 'aSet-Cookie_ x=1.txt'],
    ['photo\u202egpj.exe', 'photogpj.exe'],
    ['  .hidden.  ', 'hidden'],
    ['Grüße aus 東京 🗼.png', 'Grüße aus 東京 🗼.png'],
    ['e\u0301.png', 'é.png'],
    ['\ud800.png', '\ufffd.png'],
    ['a"b<c>|d?.png', 'a_b_c__d_.png'],
  ]
  for (const [from, to] of table) assert.equal(cleanName(from), to, JSON.stringify(from))
  const long = cleanName(`${'東'.repeat(500)}.jpeg`)
  assert.ok(Buffer.byteLength(long) <= 200 && long.endsWith('東.jpeg'))
  assert.equal(cleanName(long), long)
})

test('a long name of any kind is read in time that grows no faster than it', () => {
  for (const piece of ['.', ' ', '. ', '/', '\\', 'a/', '\u0301', '\u202e', 'x.']) {
    const startedMs = performance.now()
    cleanName(`x${piece.repeat(500_000)}x`)
    const name = cleanName(`x${piece.repeat(500_000)}.png`)
    assert.ok(performance.now() - startedMs < 300, JSON.stringify(piece))
    assert.ok(Buffer.byteLength(name) <= 200)
  }
})

test('any 64 KiB of text are sniffed and measured in a moment', async () => {
  const pieces = [' ', '<', '<!--', '<!-- -->', '<!doctype a>', '<!doctype a [', ']', '<?', '<svg ']
  for (const piece of [...pieces, '<svg a="', ' width', ' viewBox="1 1 1', '<a:', '<!doctype \n']) {
    for (const start of ['', '<svg ', '<?xml ', '<!doctype x [']) {
      const text = start + piece.repeat(Math.ceil(65_536 / piece.length))
      const startedMs = performance.now()
      await sniff(Buffer.from(text).subarray(0, 65_536), 'svg')
      measureSvg(text)
      assert.ok(performance.now() - startedMs < 300, JSON.stringify([start, piece]))
    }
  }
})

test('a header made of any name is one line of visible ASCII', () => {
  for (const name of ['a"b.png', "Grüße 東京's (1)*.png", 'x%41.png', '\ufffd']) {
    const header = disposition(kindOf('image/png'), cleanName(name))
    assert.match(header, /^inline; filename="[^"\\]*"; filename\*=UTF-8''[\w%.~!#$&+^`|-]+$/)
    assert.equal(decodeURIComponent(header.split("''")[1]!), cleanName(name))
  }
})

test('a wrong extension is corrected, or refused where it promises a picture that is none', () => {
  const table: readonly (readonly [string, string, string])[] = [
    ['photo.PNG', 'image/png', 'photo.PNG'],
    ['photo.png', 'image/jpeg', 'photo.jpg'],
    ['photo', 'image/jpeg', 'photo.jpg'],
    ['evil.html', 'image/gif', 'evil.gif'],
    ['report.2024', 'application/pdf', 'report.2024.pdf'],
    ['page.txt', 'text/html', 'page.txt'],
    ['data.xyz', 'application/octet-stream', 'data.xyz'],
    ['song.mp3', 'video/mp4', 'song.mp4'],
  ]
  for (const [name, type, expected] of table)
    assert.equal(nameForKind(name, kindOf(type)), expected, name)
  for (const type of [
    'text/html',
    'image/svg+xml',
    'application/octet-stream',
    'text/plain',
    'application/zip',
  ]) {
    assert.throws(
      () => nameForKind('photo.jpg', kindOf(type)),
      (error) => error instanceof UploadRefusedError && error.reason === 'typeMismatch',
    )
  }
})

test('an SVG is measured by its root tag alone', () => {
  assert.deepEqual(measureSvg('<svg width="120" height="80.4px">'), { width: 120, height: 80 })
  assert.deepEqual(measureSvg(`<?xml version='1.0'?><svg viewBox='0 0 24 12' fill=">">`), {
    width: 24,
    height: 12,
  })
  assert.deepEqual(measureSvg('<svg width="100%" height="5" viewBox="0,0,3,4">'), {
    width: 3,
    height: 4,
  })
  for (const text of [
    '<svg>',
    '<svg width="1e9" height="1">',
    '<svg width="999999999" height="1">',
    'no tag',
    `<svg ${'a="'.repeat(20_000)}`,
    '<svg a=" <svg width="4" height="4">',
  ]) {
    assert.deepEqual(measureSvg(text), { width: null, height: null })
  }
})
