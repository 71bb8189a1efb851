import { isStorableText } from '#content/query/normal-form.ts'
import type { Faults } from '#content/validation/fault.ts'
import { step } from '#content/validation/fault.ts'
import type { Target } from '#content/validation/target.ts'
import { isId } from '#lib/id.ts'

/**
 * Rich text is a document as ProseMirror and Tiptap write it: `{ type: 'doc', content: [...] }`.
 * What is not named here is refused, so a site that renders it by this table never meets a
 * surprise, nor a script.
 */

const depthMax = 40
const nodesMax = 20_000
const attributeTextMax = 2_000
const attributeNumbersMax = 100
const marksMax = 10

type Attribute =
  | 'text'
  | 'word'
  | 'align'
  | 'color'
  | 'link'
  | 'source'
  | 'integer'
  | 'boolean'
  | 'integers'
  | 'assetId'
  | 'entryId'
type Rule = {
  readonly attrs: Readonly<Record<string, Attribute>>
  readonly content: 'block' | 'inline' | 'none' | readonly string[]
}

const cell: Rule = {
  attrs: { colspan: 'integer', rowspan: 'integer', colwidth: 'integers' },
  content: 'block',
}
const blocks = {
  paragraph: { attrs: { textAlign: 'align' }, content: 'inline' },
  heading: { attrs: { level: 'integer', textAlign: 'align' }, content: 'inline' },
  blockquote: { attrs: {}, content: 'block' },
  bulletList: { attrs: {}, content: ['listItem'] },
  orderedList: { attrs: { start: 'integer', type: 'word' }, content: ['listItem'] },
  taskList: { attrs: {}, content: ['taskItem'] },
  codeBlock: { attrs: { language: 'text' }, content: ['text'] },
  horizontalRule: { attrs: {}, content: 'none' },
  table: { attrs: {}, content: ['tableRow'] },
  image: {
    attrs: {
      src: 'source',
      alt: 'text',
      title: 'text',
      width: 'integer',
      height: 'integer',
      asset: 'assetId',
    },
    content: 'none',
  },
} as const satisfies Record<string, Rule>

const rules: Readonly<Record<string, Rule>> = {
  ...blocks,
  doc: { attrs: {}, content: 'block' },
  listItem: { attrs: {}, content: 'block' },
  taskItem: { attrs: { checked: 'boolean' }, content: 'block' },
  tableRow: { attrs: {}, content: ['tableCell', 'tableHeader'] },
  tableCell: cell,
  tableHeader: cell,
  text: { attrs: {}, content: 'none' },
  hardBreak: { attrs: {}, content: 'none' },
}

const groups: Record<'block' | 'inline' | 'none', readonly string[]> = {
  block: Object.keys(blocks),
  inline: ['text', 'hardBreak', 'image'],
  none: [],
}

const marks: Readonly<Record<string, Readonly<Record<string, Attribute>>>> = {
  bold: {},
  italic: {},
  strike: {},
  underline: {},
  code: {},
  subscript: {},
  superscript: {},
  highlight: { color: 'color' },
  link: {
    href: 'link',
    title: 'text',
    target: 'word',
    rel: 'text',
    class: 'text',
    entry: 'entryId',
  },
}

/** Texts that a site may put into a style or an attribute as they are. */
const forms: Partial<Record<Attribute, { readonly pattern: RegExp; readonly message: string }>> = {
  word: { pattern: /^[\w-]*$/, message: 'Give one word.' },
  align: {
    pattern: /^(left|center|right|justify|start|end)$/,
    message: 'Give left, center, right, justify, start or end.',
  },
  color: {
    pattern: /^[#\w(),.%/ -]*$/,
    message: 'Give a colour, such as #ffcc00 or rgb(255, 204, 0).',
  },
}

const nodeKeys = new Set(['type', 'content', 'attrs', 'marks', 'text'])

/**
 * True for http, https, mailto, tel and addresses relative to the site; browsers skip control
 * characters, so they are refused.
 */
export function isSafeLink(address: string): boolean {
  // eslint-disable-next-line no-control-regex
  if (/[\u0000-\u0020\u007f-\u009f\\]/.test(address)) return false
  const scheme = /^([A-Za-z][A-Za-z0-9+.-]*):/.exec(address)
  return scheme === null ? !/^[^/?#]*:/.test(address) : /^(https?|mailto|tel)$/i.test(scheme[1]!)
}

class Visit {
  readonly #faults: Faults
  readonly #targets: Target[]
  readonly #field: string
  #nodes = 0

  constructor(faults: Faults, targets: Target[], field: string) {
    this.#faults = faults
    this.#targets = targets
    this.#field = field
  }

  node(node: unknown, allowed: readonly string[], path: string, depth: number): void {
    this.#nodes += 1
    if (this.#nodes === nodesMax) this.#faults.add(path, 'tooMany', `At most ${nodesMax} nodes.`)
    if (this.#nodes >= nodesMax || this.#faults.full) return
    if (depth > depthMax)
      return this.#faults.add(path, 'tooDeep', `At most ${depthMax} levels deep.`)
    if (!isObject(node))
      return this.#faults.add(path, 'kind', 'Give a node: an object with a "type".')
    const { type } = node
    const rule = typeof type === 'string' && Object.hasOwn(rules, type) ? rules[type]! : null
    if (rule === null || typeof type !== 'string' || !allowed.includes(type)) {
      return this.#faults.add(
        step(path, 'type'),
        'option',
        `Here it may be: ${allowed.join(', ')}.`,
      )
    }
    for (const key of Object.keys(node))
      if (!nodeKeys.has(key))
        this.#faults.add(path, 'unknown', 'A node has type, attrs, content, marks and text only.')
    this.#attributes(node['attrs'], rule.attrs, step(path, 'attrs'))
    if (type === 'heading') this.#level(node['attrs'], step(path, 'attrs'))
    if (type === 'text') this.#text(node['text'], step(path, 'text'))
    else if (node['text'] !== undefined)
      this.#faults.add(step(path, 'text'), 'unknown', 'Only a text node has text.')
    this.#marks(node['marks'], groups.inline.includes(type), step(path, 'marks'))
    this.#content(node['content'], rule, path, depth)
  }

  #content(content: unknown, rule: Rule, path: string, depth: number): void {
    if (content === undefined) return
    const at = step(path, 'content')
    if (!Array.isArray(content)) return this.#faults.add(at, 'kind', 'Give an array of nodes.')
    const allowed = typeof rule.content === 'string' ? groups[rule.content] : rule.content
    if (content.length > 0 && allowed.length === 0)
      return this.#faults.add(at, 'unknown', 'This node has no content.')
    content.forEach((child: unknown, index) =>
      this.node(child, allowed, step(at, index), depth + 1),
    )
  }

  #text(text: unknown, path: string): void {
    if (typeof text !== 'string' || text === '')
      this.#faults.add(path, 'kind', 'Give text that is not empty.')
    else if (!isStorableText(text))
      this.#faults.add(
        path,
        'text',
        'The text holds U+0000 or half of a surrogate pair; take it out.',
      )
  }

  /** Text, images and line breaks stand in a line and so can be marked, such as by a link. */
  #marks(own: unknown, inline: boolean, path: string): void {
    if (own === undefined) return
    if (!inline) return this.#faults.add(path, 'unknown', 'Only what stands in a line has marks.')
    if (!Array.isArray(own) || own.length > marksMax)
      return this.#faults.add(path, 'kind', `Give an array of at most ${marksMax} marks.`)
    own.forEach((mark: unknown, index) => this.#mark(mark, step(path, index)))
  }

  #mark(mark: unknown, path: string): void {
    if (!isObject(mark)) return this.#faults.add(path, 'kind', 'Give a mark: an object.')
    const { type } = mark
    if (typeof type !== 'string' || !Object.hasOwn(marks, type))
      return this.#faults.add(path, 'option', `A mark is one of: ${Object.keys(marks).join(', ')}.`)
    for (const key of Object.keys(mark))
      if (key !== 'type' && key !== 'attrs')
        this.#faults.add(step(path, key), 'unknown', 'A mark has type and attrs only.')
    this.#attributes(mark['attrs'], marks[type]!, step(path, 'attrs'))
  }

  #level(attrs: unknown, path: string): void {
    const level = isObject(attrs) ? attrs['level'] : null
    if (typeof level !== 'number' || level < 1 || level > 6)
      this.#faults.add(path, 'kind', 'A heading has a level from 1 to 6.')
  }

  #attributes(attrs: unknown, allowed: Readonly<Record<string, Attribute>>, path: string): void {
    if (attrs === undefined || attrs === null) return
    if (!isObject(attrs)) return this.#faults.add(path, 'kind', 'Give an object.')
    for (const [name, value] of Object.entries(attrs)) {
      const kind = Object.hasOwn(allowed, name) ? allowed[name]! : null
      if (kind !== null && value === null) continue
      if (kind === null)
        this.#faults.add(
          step(path, name),
          'unknown',
          `Allowed here: ${Object.keys(allowed).join(', ') || 'nothing'}.`,
        )
      else this.#attribute(value, kind, step(path, name))
    }
  }

  #attribute(value: unknown, kind: Attribute, path: string): void {
    if (kind === 'integer' || kind === 'boolean' || kind === 'integers') {
      if (isPlain(value, kind)) return
      const wanted = kind === 'integers' ? 'whole numbers' : `a value of kind ${kind}`
      return this.#faults.add(path, 'kind', `Give ${wanted}.`)
    }
    if (typeof value !== 'string' || value.length > attributeTextMax || !isStorableText(value))
      return this.#faults.add(path, 'kind', `Give text of at most ${attributeTextMax} characters.`)
    if (kind === 'link' && !isSafeLink(value))
      return this.#faults.add(
        path,
        'link',
        'Link to http, https, mailto, tel, or a place on this site.',
      )
    if (kind === 'source' && (!isSafeLink(value) || /^(mailto|tel):/i.test(value)))
      return this.#faults.add(path, 'link', 'Take images from http, https, or this site.')
    const form = forms[kind]
    if (form !== undefined && !form.pattern.test(value))
      return this.#faults.add(path, 'format', form.message)
    if (kind !== 'assetId' && kind !== 'entryId') return
    if (!isId(value))
      return this.#faults.add(path, 'format', 'Give an id: a UUID in small letters.')
    this.#targets.push({
      path: this.#field,
      pointer: path,
      kind: kind === 'assetId' ? 'asset' : 'entry',
      id: value,
      types: null,
      onDelete: 'restrict',
    })
  }
}

function isPlain(value: unknown, kind: 'integer' | 'boolean' | 'integers'): boolean {
  if (kind === 'integer') return Number.isSafeInteger(value)
  if (kind === 'boolean') return typeof value === 'boolean'
  return (
    Array.isArray(value) &&
    value.length <= attributeNumbersMax &&
    value.every((one) => Number.isSafeInteger(one))
  )
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

/**
 * Checks a document; entries and assets that it links to are added to `targets` under the name path
 * of the field.
 */
export function checkRichText(
  value: unknown,
  context: {
    readonly field: string
    readonly pointer: string
    readonly faults: Faults
    readonly targets: Target[]
  },
): void {
  new Visit(context.faults, context.targets, context.field).node(value, ['doc'], context.pointer, 0)
}
