import { kindByExtension, kindOf } from '#media/kinds.ts'
import type { Kind } from '#media/kinds.ts'
import { sniffBinary } from '#media/sniff-binary.ts'
import type { SniffedBinary } from '#media/sniff-binary.ts'

/**
 * How much of a file's beginning decides its kind. Containers such as DOCX name themselves within
 * it.
 */
export const sniffBytes = 64 * 1024

/** Comments and the like before the first element of markup; more of them are no document. */
const prologPiecesMax = 200

/** Control characters that text does not have (WHATWG MIME Sniffing §3, "binary data byte"). */
// oxlint-disable-next-line no-control-regex -- control characters are looked for
const binary = /[\u0000-\u0008\u000b\u000e-\u001a\u001c-\u001f]/

/**
 * Tags that a browser that sniffs takes for HTML (WHATWG MIME Sniffing §7.1), plus elements that
 * load or run something.
 */
const htmlTag =
  /^<(?:!doctype\s+html|html|head|script|iframe|body|style|title|meta|base|link|object|embed|form|img|svg:|math|frameset|noscript)[\s>/]/i
const htmlAnywhere = /<(?:!doctype\s+html|html|script|iframe)[\s>/]/i

export type Sniffed = SniffedBinary & {
  /** With the character set of text that is not UTF-8. */
  readonly contentType: string
  /** The sample as text; null: it is binary. */
  readonly text: string | null
}

/**
 * The kind of a file by its first bytes. The name only chooses between kinds of plain text that
 * bytes cannot distinguish (Markdown, CSV, …), and never against markup that a browser could run.
 */
export async function sniff(head: Buffer, extension: string): Promise<Sniffed> {
  const decoded = decodeText(head)
  if (decoded === null) {
    const found = await sniffBinary(head, extension)
    return { ...found, contentType: found.kind.contentType, text: null }
  }
  const kind = textKind(decoded.text, extension)
  const isPlain = decoded.charset === 'utf-8' || !kind.contentType.startsWith('text/')
  const contentType = isPlain ? kind.contentType : `${kind.contentType}; charset=${decoded.charset}`
  return { kind, contentType, text: decoded.text, continueAt: null, frames: null }
}

type Decoded = { readonly text: string; readonly charset: string }

/**
 * The sample as text without a byte order mark, or null when it is neither UTF-8 nor UTF-16 with a
 * mark. The last character may be cut.
 */
function decodeText(head: Buffer): Decoded | null {
  const charset = charsetOf(head)
  try {
    const text = new TextDecoder(charset, { fatal: true }).decode(head, { stream: true })
    return binary.test(text) ? null : { text, charset }
  } catch {
    // Bytes that the character set does not have: this is no text.
    return null
  }
}

function charsetOf(head: Buffer): string {
  const mark = head.subarray(0, 2).toString('hex')
  if (mark === 'fffe') return 'utf-16le'
  return mark === 'feff' ? 'utf-16be' : 'utf-8'
}

function textKind(text: string, extension: string): Kind {
  const markup = markupKind(text)
  if (markup !== null) return markup
  if (text.startsWith('%PDF-')) return kindOf('application/pdf')
  // A name that says markup, where no tag is in sight, is believed to its disadvantage.
  const named = kindByExtension(extension)
  return named !== null && !named.isMedia ? named : kindOf('text/plain')
}

function markupKind(text: string): Kind | null {
  const start = text.trimStart().slice(0, 4_096)
  const body = skipProlog(text)
  if (/^<(?:[a-z][\w.-]*:)?svg[\s>/]/i.test(body)) return kindOf('image/svg+xml')
  if (htmlTag.test(body) || htmlTag.test(start)) return kindOf('text/html')
  if (/^<\?xml[\s?]/i.test(start) || /^<!doctype\s/i.test(start))
    return kindOf(/<(?:[a-z][\w.-]*:)?svg[\s>/]/i.test(text) ? 'image/svg+xml' : 'application/xml')
  return start.startsWith('<') && htmlAnywhere.test(text) ? kindOf('text/html') : null
}

/**
 * The text from its first element on: without space, comments, processing instructions and a
 * document type.
 */
function skipProlog(text: string): string {
  let at = 0
  for (let piece = 0; piece < prologPiecesMax; piece += 1) {
    while (at < text.length && /\s/.test(text[at]!)) at += 1
    const end = pieceEnd(text, at)
    // Nothing to skip, or a construct that never ends: the beginning is here.
    if (end <= at) break
    at = end
  }
  return text.slice(at)
}

/** Where the comment, instruction or document type at `at` ends; `at` or less: there is none. */
function pieceEnd(text: string, at: number): number {
  if (text.startsWith('<!--', at)) return text.indexOf('-->', at + 4) + 3
  if (text.startsWith('<?', at)) return text.indexOf('?>', at + 2) + 2
  return /^<!doctype\s+(?!html)/i.test(text.slice(at, at + 64)) ? doctypeEnd(text, at) : at
}

function doctypeEnd(text: string, at: number): number {
  const close = text.indexOf('>', at)
  const subset = text.indexOf('[', at)
  if (subset === -1 || subset > close) return close + 1
  const end = /\]\s*>/.exec(text.slice(subset))
  return end === null ? at : subset + end.index + end[0].length
}
