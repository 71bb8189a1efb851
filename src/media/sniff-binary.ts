import { kindOf } from '#media/kinds.ts'
import type { Kind } from '#media/kinds.ts'

/** The result of looking at the beginning of a binary file. */
export type SniffedBinary = {
  readonly kind: Kind
  /** The file has to be read here once more, because a tag longer than the sample precedes. */
  readonly continueAt: number | null
  /** The frames of an animated PNG: its header has them, and the image library does not. */
  readonly frames: number | null
}

/** Consecutive ID3 tags that are skipped. */
const tagsMax = 8
const tagHeaderBytes = 10

/** Raw files of cameras are TIFF files too, and their own tags may lie past the sample. */
const rawExtensions = new Set(
  '3fr arw cr2 dcr dng erf iiq kdc mef mos nef nrw orf pef rw2 rwl sr2 srf srw'.split(' '),
)

const unknown = kindOf('application/octet-stream')

export async function sniffBinary(head: Buffer, extension: string): Promise<SniffedBinary> {
  const start = tagsEnd(head)
  if (start >= head.length) return { kind: kindOf('audio/mpeg'), continueAt: start, frames: null }
  const kind = start === 0 ? await kindOfBytes(head, extension) : await kindBehindTag(head, start)
  return { kind, continueAt: null, frames: framesOfPng(head) }
}

/** The kind of sound that follows an ID3 tag: most often MP3, but FLAC and AAC carry them too. */
export async function kindBehindTag(bytes: Buffer, start = 0): Promise<Kind> {
  const sound = await kindOfBytes(bytes.subarray(start), '')
  return sound.contentType.startsWith('audio/') ? sound : kindOf('audio/mpeg')
}

async function kindOfBytes(bytes: Buffer, extension: string): Promise<Kind> {
  if (bytes.subarray(0, 4).toString('latin1') === 'ADIF') return kindOf('audio/aac')
  // Loaded with the first binary file: 10 MB that a node without uploads need not have.
  const { fileTypeFromBuffer } = await import('file-type')
  const found = await fileTypeFromBuffer(bytes)
  if (found === undefined) {
    return isTiff(bytes) && !rawExtensions.has(extension) ? kindOf('image/tiff') : unknown
  }
  const kind = kindOf(found.mime, found.ext)
  if (kind.contentType === 'audio/mpeg' && !hasNextFrame(bytes, mpegFrameBytes)) return unknown
  if (kind.contentType === 'audio/aac' && !hasNextFrame(bytes, adtsFrameBytes)) return unknown
  if (kind.contentType === 'image/heic' && brandsOf(bytes).includes('avif'))
    return kindOf('image/avif')
  return kind
}

/** Where the ID3v2 tags at the beginning end; 0 without any. */
function tagsEnd(head: Buffer): number {
  let at = 0
  for (let tag = 0; tag < tagsMax && at + tagHeaderBytes <= head.length; tag += 1) {
    if (head.subarray(at, at + 3).toString('latin1') !== 'ID3') break
    const size = [6, 7, 8, 9].reduce((sum, index) => sum * 128 + (head[at + index]! & 0x7f), 0)
    const hasFooter = (head[at + 5]! & 0x10) !== 0
    at += tagHeaderBytes + size + (hasFooter ? tagHeaderBytes : 0)
  }
  return at
}

/** A TIFF directory may lie anywhere in the file; the magic number is all that is always here. */
function isTiff(head: Buffer): boolean {
  return ['49492a00', '4d4d002a', '49492b00', '4d4d002b'].includes(
    head.subarray(0, 4).toString('hex'),
  )
}

/** The brands of an ISO base media file. */
function brandsOf(head: Buffer): string[] {
  if (head.length < 16 || head.subarray(4, 8).toString('latin1') !== 'ftyp') return []
  const end = Math.min(head.readUInt32BE(0), head.length)
  return (head.subarray(16, end).toString('latin1').match(/.{4}/gs) ?? []).slice(0, 64)
}

/** The number of frames that an `acTL` chunk announces before the pixels; null: not animated. */
function framesOfPng(head: Buffer): number | null {
  if (head.subarray(0, 8).toString('hex') !== '89504e470d0a1a0a') return null
  let at = 8
  while (at + 12 <= head.length) {
    const type = head.subarray(at + 4, at + 8).toString('latin1')
    if (type === 'IDAT') return null
    if (type === 'acTL') return Math.max(1, head.readUInt32BE(at + 8))
    at += 12 + head.readUInt32BE(at)
  }
  return null
}

/**
 * Whether a second frame follows the first. Two bytes of any file may look like the start of a
 * frame, such as the byte order mark of UTF-16.
 */
function hasNextFrame(bytes: Buffer, frameBytes: (bytes: Buffer) => number | null): boolean {
  const length = frameBytes(bytes)
  if (length === null) return false
  return bytes.length < length + 2 || frameBytes(bytes.subarray(length)) !== null
}

/** The length of an ADTS frame of AAC. */
function adtsFrameBytes(bytes: Buffer): number | null {
  if (bytes.length < 7) return bytes[0] === 0xff ? bytes.length : null
  if (bytes[0] !== 0xff || (bytes[1]! & 0xf6) !== 0xf0) return null
  const length = ((bytes[3]! & 3) << 11) | (bytes[4]! << 3) | (bytes[5]! >> 5)
  return length < 7 ? null : length
}

/** Bit rates in kbit/s by version and layer (ISO 11172-3 §2.4.2.3, 13818-3 §2.4.2.3). */
const bitRates: Readonly<Record<string, readonly number[]>> = {
  '1-1': [0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448],
  '1-2': [0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384],
  '1-3': [0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320],
  '2-1': [0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256],
  '2-2': [0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160],
  '2-3': [0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160],
}
const sampleRates: Readonly<Record<number, readonly number[]>> = {
  3: [44_100, 48_000, 32_000],
  2: [22_050, 24_000, 16_000],
  0: [11_025, 12_000, 8_000],
}

/** The length of a frame of MPEG sound, layers 1 to 3. */
function mpegFrameBytes(bytes: Buffer): number | null {
  if (bytes.length < 4) return bytes[0] === 0xff ? bytes.length : null
  const [first, second, third] = [bytes[0]!, bytes[1]!, bytes[2]!]
  if (first !== 0xff || (second & 0xe0) !== 0xe0) return null
  const version = (second >> 3) & 3
  const layer = 4 - ((second >> 1) & 3)
  const sampleRate = sampleRates[version]?.[(third >> 2) & 3]
  const bitRate = bitRates[`${version === 3 ? 1 : 2}-${layer}`]?.[third >> 4]
  if (sampleRate === undefined || bitRate === undefined || bitRate === 0) return null
  const padding = (third >> 1) & 1
  if (layer === 1) return (Math.floor((12_000 * bitRate) / sampleRate) + padding) * 4
  const samples = layer === 3 && version !== 3 ? 72_000 : 144_000
  return Math.floor((samples * bitRate) / sampleRate) + padding
}
