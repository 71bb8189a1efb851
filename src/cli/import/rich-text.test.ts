import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { plainText } from '#cli/import/html-tree.ts'
import { richTextOf } from '#cli/import/rich-text.ts'
import type { Addresses, RichNode } from '#cli/import/rich-text.ts'
import { readWxr } from '#cli/import/wordpress/wxr.ts'
import { Faults } from '#content/validation/fault.ts'
import { checkRichText } from '#content/validation/rich-text.ts'
import { realData } from '#test/support/data.ts'

const nothing: Addresses = { entry: () => null, asset: () => null }

/** A document as one line: `p(a *bold:b*)`. */
function shown(node: RichNode): string {
  const marks = (node.marks ?? [])
    .map((mark) =>
      mark.type === 'link'
        ? `link=${String(mark.attrs?.['entry'] ?? mark.attrs?.['href'])}`
        : mark.type,
    )
    .join('+')
  if (node.type === 'text') return marks === '' ? node.text! : `{${marks}:${node.text}}`
  const attrs = node.attrs === undefined ? '' : JSON.stringify(node.attrs)
  return `${node.type}${attrs}(${(node.content ?? []).map(shown).join('|')})`
}

function convert(html: string, addresses = nothing): string {
  const doc = richTextOf(html, addresses)
  return doc === null ? '' : (doc.content ?? []).map(shown).join(' ')
}

function faults(html: string): readonly unknown[] {
  const doc = richTextOf(html, nothing)
  const found = new Faults()
  if (doc !== null)
    checkRichText(doc, { field: 'body', pointer: '/body', faults: found, targets: [] })
  return found.list
}

test('block editor texts are HTML, and classic ones have breaks in their white space', () => {
  assert.equal(
    convert(
      '<!-- wp:paragraph -->\n<p>One\n two <strong>b <em>c</em></strong></p>\n<!-- ' +
        '/wp:paragraph -->',
    ),
    'paragraph(One two |{bold:b }|{bold+italic:c})',
  )
  assert.equal(
    convert('One\ntwo\n\n<b>Three</b>\n\n\n'),
    'paragraph(One|hardBreak()|two) paragraph({bold:Three})',
  )
  assert.equal(convert('[gallery ids="1,2"]'), 'paragraph([gallery ids="1,2"])')
})

test('lists, tables, quotes, code, rules, headings', () => {
  assert.equal(
    convert('<ul><li>a<ul><li>b</li></ul></li><ul><li>c</li></ul><li></li></ul>'),
    'bulletList(listItem(paragraph(a)|bulletList(listItem(paragraph(b)))|' +
      'bulletList(listItem(paragraph(c))))|listItem(paragraph()))',
  )
  assert.equal(
    convert(
      '<table><caption>T</caption><tr><th ' +
        'colspan=2>a</th></tr><tbody><tr><td>b</td><td><p>c</p></td></tr></tbody></table>',
    ),
    'paragraph(T) ' +
      'table(tableRow(tableHeader{"colspan":2}(paragraph(a)))|' +
      'tableRow(tableCell(paragraph(b))|tableCell(paragraph(c))))',
  )
  assert.equal(
    convert(
      '<pre>\n  a &lt; b\n\n c</pre><hr><h3 ' +
        'style="text-align:center">H</h3><blockquote>q</blockquote>',
    ),
    'codeBlock(  a < b\n\n c) horizontalRule() heading{"level":3,"textAlign":"center"}(H) ' +
      'blockquote(paragraph(q))',
  )
})

test('scripts, handlers, styles and other schemes are gone; players are links', () => {
  assert.equal(
    convert(
      '<script>alert(1)</script><p onclick="x()">a <a href="javascript:alert(1)">b</a> <img ' +
        'src="data:image/png;base64,x"><style>p{}</style></p>',
    ),
    'paragraph(a |b)',
  )
  assert.equal(
    convert('<iframe src="https://example.org/v"></iframe>'),
    'paragraph({link=https://example.org/v:https://example.org/v})',
  )
  assert.equal(
    convert('<svg><script>x</script></svg><math><mi>y</mi></math><form><input value="z"></form>'),
    'paragraph(y)',
  )
})

test('links and images to what is imported name the entry and the asset', () => {
  const addresses = {
    entry: (href: string) => (href.endsWith('/about/') ? 'E' : null),
    asset: (src: string) => (src.endsWith('a.jpg') ? 'A' : null),
  }
  assert.equal(
    convert(
      '<!-- wp:x --><p><a href="https://example.org/about/">x<img src="/a.jpg" alt="A" ' +
        'width="3"></a></p>',
      addresses,
    ),
    'paragraph({link=E:x}|image{"src":"/a.jpg","alt":"A","width":3,"asset":"A"}())',
  )
})

test('plain text loses markup and keeps characters', () => {
  assert.equal(
    plainText('Title <em>With</em> a < b &amp; "c"\n &lt;d&gt;'),
    'Title With a < b & "c" <d>',
  )
})

test('any text becomes rich text that its own validation accepts', () => {
  const piece = fc.constantFrom(
    '<p>',
    '</p>',
    '<ul>',
    '<li>',
    '</li>',
    '</ul>',
    '<table>',
    '<tr>',
    '<td>',
    '<a href="https://x.y/z">',
    '</a>',
    '<img src="a.png">',
    '<b>',
    '<pre>',
    '\n\n',
    '\n',
    '<h2>',
    '</h2>',
    '<br>',
    '<div>',
    '<!--',
    '-->',
    '&nbsp;',
    '&#0;',
    '&',
    '<',
    '>',
    '"',
    '\uD800',
    'text',
    '<dl><dt>',
    '<q>',
  )
  fc.assert(
    fc.property(fc.array(fc.oneof(piece, fc.string()), { maxLength: 80 }), (pieces) => {
      assert.deepEqual(faults(pieces.join('')), [])
    }),
    { numRuns: 400 },
  )
  assert.deepEqual(faults('<div>'.repeat(5_000)), [])
  assert.deepEqual(faults(`${'<ul><li>'.repeat(200)}x`), [])
})

const real = realData('themeunittestdata.wordpress.xml')
test(
  'every item of the theme unit test data becomes valid rich text',
  { skip: real.skip },
  async () => {
    let converted = 0
    for await (const record of readWxr(real.path)) {
      if (record.is !== 'item' || record.item.content.trim() === '') continue
      assert.deepEqual(faults(record.item.content), [], record.item.title)
      converted += 1
    }
    assert.ok(converted > 80)
  },
)
