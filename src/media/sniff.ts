import { kindByExtension, kindOf } from '#media/kinds.ts'
import type { Kind } from '#media/kinds.ts'

/**
 * How much of a file's beginning decides its kind. Containers such as DOCX name themselves within
 * it.
 */
export const sniffBytes = 64 * 1024

/** Control characters that text does not have (WHATWG MIME Sniffing §3, "binary data byte"). */
// oxlint-disable-next-line no-control-regex -- those are what is looked for
const binary = /[\u0000-\u0008\u000b\u000e-\u001a\u001c-\u001f]/

/**
 * What a browser that sniffs takes for HTML (WHATWG MIME Sniffing §7.1), plus elements that load or
 * run something.
 */
const htmlTag =
  /^<(?:!doctype\s+html|html|head|script|iframe|body|style|title|meta|base|link|object|embed|form|img|svg:|math|frameset|noscript)[\s>/]/i
const htmlAnywhere = /<(?:!doctype\s+html|html|script|iframe)[\s>/]/i

/**
 * The kind of a file by its first bytes. The name only chooses between kinds of plain text that
 * bytes cannot tell apart (Markdown, CSV, …), and never against markup that a browser could run.
 */
export async function sniff(head: Buffer, extension: string): Promise<Kind> {
  const text = asText(head)
  if (text !== null) return textKind(text, extension)
  // Loaded with the first binary file: 10 MB that a node without uploads need not have.
  const { fileTypeFromBuffer } = await import('file-type')
  const found = await fileTypeFromBuffer(head)
  if (found === undefined) return kindOf('application/octet-stream')
  return kindOf(found.mime, found.ext)
}

/**
 * The sample as text without a byte order mark, or null when it is not UTF-8 text. The last
 * character may be cut.
 */
function asText(head: Buffer): string | null {
  try {
    const text = new TextDecoder('utf-8', { fatal: true }).decode(head, { stream: true })
    return binary.test(text) ? null : text
  } catch {
    // Not UTF-8: for us it is no text.
    return null
  }
}

function textKind(text: string, extension: string): Kind {
  const markup = markupKind(text)
  if (markup !== null) return markup
  if (text.startsWith('%PDF-')) return kindOf('application/pdf')
  const named = kindByExtension(extension)
  if (
    named !== null &&
    !named.isMedia &&
    !['image/svg+xml', 'text/html', 'application/xml'].includes(named.contentType)
  )
    return named
  // Named as markup, and with no tag in sight: believed to its disadvantage.
  return named !== null && !named.isMedia ? named : kindOf('text/plain')
}

function markupKind(text: string): Kind | null {
  const start = text.replace(/^\s+/, '').slice(0, 4_096)
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
  for (;;) {
    while (at < text.length && /\s/.test(text[at]!)) at += 1
    const end = text.startsWith('<!--', at)
      ? text.indexOf('-->', at + 4) + 3
      : text.startsWith('<?', at)
        ? text.indexOf('?>', at + 2) + 2
        : /^<!doctype\s+(?!html)/i.test(text.slice(at, at + 64))
          ? doctypeEnd(text, at)
          : at
    // Nothing skipped, or a construct that never ends: what is here is the beginning.
    if (end <= at) return text.slice(at)
    at = end
  }
}

function doctypeEnd(text: string, at: number): number {
  const close = text.indexOf('>', at)
  const subset = text.indexOf('[', at)
  if (subset === -1 || subset > close) return close + 1
  const end = /\]\s*>/.exec(text.slice(subset))
  return end === null ? at : subset + end.index + end[0].length
}
