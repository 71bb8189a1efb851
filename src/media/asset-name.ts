import { UploadRefusedError } from '#media/errors.ts'
import { kindByExtension } from '#media/kinds.ts'
import type { Kind } from '#media/kinds.ts'

/** Every file system and archive format takes a name of this many UTF-8 bytes. */
const nameBytesMax = 200
/** Only the end of a longer name is read, so that no step below works on a stranger's megabyte. */
const nameLengthMax = 2_000
const extensionLengthMax = 10

/**
 * Control characters, and those that turn the direction of text so that `gpj.exe` reads as
 * `exe.jpg`.
 */
const invisible = /[\p{Cc}\p{Cs}\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/gu
const reserved = /[<>:"|?*\\/]/g

/**
 * A name that is safe in a folder, a header and a URL: no path, nothing invisible, not too long.
 * `file` when nothing is left.
 */
export function cleanName(name: string): string {
  const last =
    name
      .slice(-nameLengthMax)
      .toWellFormed()
      .normalize('NFC')
      .split(/[\\/]/)
      .findLast((piece) => piece.trim() !== '') ?? ''
  const visible = last.replace(invisible, '').replace(reserved, '_').replace(/\s+/g, ' ')
  const { stem, extension } = splitName(trimDots(visible))
  const suffix = extension === '' ? '' : `.${extension}`
  return `${cutBytes(stem, nameBytesMax - Buffer.byteLength(suffix))}${suffix}` || 'file'
}

export function extensionOf(name: string): string {
  return splitName(cleanName(name)).extension.toLowerCase()
}

/**
 * The name under which bytes of this kind are kept. An extension that says something else is
 * corrected, so `photo.png` that holds a JPEG becomes `photo.jpg`. A name that promises an image,
 * sound, film or PDF is refused when the bytes are none: that is either damaged or meant to
 * deceive. The name that comes out is taken as it is when it is given again.
 */
export function nameForKind(name: string, kind: Kind): string {
  const clean = cleanName(name)
  const { stem, extension } = splitName(clean)
  const [ours] = kind.extensions
  const promised = kindByExtension(extension)
  if (kind.extensions.includes(extension.toLowerCase())) return clean
  if (promised === null) return kind.isMedia && ours !== undefined ? `${clean}.${ours}` : clean
  if (promised.isMedia && !kind.isMedia) {
    throw new UploadRefusedError(
      `The name says ${promised.contentType}, but the file is ${kind.contentType}; ` +
        'send the right file, or give it its right name.',
      { reason: 'typeMismatch', name: clean, named: promised.contentType, found: kind.contentType },
    )
  }
  return kind.isMedia && ours !== undefined ? `${stem}.${ours}` : clean
}

/**
 * `Content-Disposition` (RFC 6266) with a plain name for old clients and the full one in UTF-8 (RFC
 * 8187).
 */
export function disposition(kind: Kind, name: string): string {
  const plain = name.replace(/[^\x20-\x7e]|["\\%]/g, '_')
  const full = encodeURIComponent(name).replace(
    /['()*]/g,
    (character) => `%${character.charCodeAt(0).toString(16).toUpperCase()}`,
  )
  return `${kind.isInline ? 'inline' : 'attachment'}; filename="${plain}"; filename*=UTF-8''${full}`
}

/** `a.b.jpg` is `a.b` and `jpg`. */
function splitName(name: string): { stem: string; extension: string } {
  const dot = name.lastIndexOf('.')
  const extension = name.slice(dot + 1)
  const isExtension =
    dot > 0 && extension.length <= extensionLengthMax && /^[A-Za-z0-9]+$/.test(extension)
  return isExtension ? { stem: name.slice(0, dot), extension } : { stem: name, extension: '' }
}

/**
 * Without dots and spaces at both ends. A regular expression would try its end at each dot in
 * between, which takes the square of their number.
 */
function trimDots(text: string): string {
  const isTrimmed = (at: number): boolean => text[at] === '.' || /\s/.test(text[at]!)
  let start = 0
  let end = text.length
  while (start < end && isTrimmed(start)) start += 1
  while (end > start && isTrimmed(end - 1)) end -= 1
  return text.slice(start, end)
}

function cutBytes(text: string, bytesMax: number): string {
  let bytes = 0
  let length = 0
  for (const character of text) {
    bytes += Buffer.byteLength(character)
    if (bytes > bytesMax) break
    length += character.length
  }
  return text.slice(0, length).trimEnd()
}
