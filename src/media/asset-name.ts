import { UploadRefusedError } from '#media/errors.ts'
import { kindByExtension } from '#media/kinds.ts'
import type { Kind } from '#media/kinds.ts'

/** Every file system and archive format takes a name of this many UTF-8 bytes. */
const nameBytesMax = 200

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
      .toWellFormed()
      .normalize('NFC')
      .split(/[\\/]/)
      .findLast((piece) => piece.trim() !== '') ?? ''
  const tidy = last
    .replace(invisible, '')
    .replace(reserved, '_')
    .replace(/\s+/g, ' ')
    .replace(/^[\s.]+|[\s.]+$/g, '')
  const { stem, extension } = split(tidy)
  const suffix = extension === '' ? '' : `.${extension}`
  return `${cut(stem, nameBytesMax - Buffer.byteLength(suffix))}${suffix}` || 'file'
}

export function extensionOf(name: string): string {
  return split(cleanName(name)).extension.toLowerCase()
}

/**
 * The name under which bytes of this kind are kept. An extension that says something else is
 * corrected, so `photo.png` that holds a JPEG becomes `photo.jpg`. Refused is a name that promises
 * an image, sound, film or PDF when the bytes are none: that is either damaged or meant to deceive.
 */
export function settleName(name: string, kind: Kind): string {
  const clean = cleanName(name)
  const { stem, extension } = split(clean)
  const [ours] = kind.extensions
  const promised = kindByExtension(extension)
  if (kind.extensions.includes(extension.toLowerCase())) return clean
  if (promised === null) return kind.isMedia && ours !== undefined ? `${clean}.${ours}` : clean
  if (promised.isMedia && !kind.isMedia) {
    throw new UploadRefusedError(
      `The name says ${promised.contentType}, but the file is ${kind.contentType}; send the right file, or give it its right name.`,
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

function split(name: string): { stem: string; extension: string } {
  const match = /^(.+)\.([A-Za-z0-9]{1,10})$/.exec(name)
  return match === null ? { stem: name, extension: '' } : { stem: match[1]!, extension: match[2]! }
}

function cut(text: string, bytesMax: number): string {
  let result = ''
  let bytes = 0
  for (const character of text) {
    bytes += Buffer.byteLength(character)
    if (bytes > bytesMax) break
    result += character
  }
  return result.trimEnd()
}
