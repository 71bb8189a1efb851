import { TaskFailure } from '#lib/child-tasks.ts'
import type { Measured } from '#media/image-tasks.ts'

const unreadable = new TaskFailure(
  'The file begins like image/heic but cannot be read as such; it is damaged.',
  { reason: 'unreadableImage', found: 'image/heic' },
)

/**
 * HEIC by libheif and libde265 as WebAssembly, because the image library's own build leaves HEVC
 * out for its patents. Loaded with the first HEIC: it takes 1.5 MB of code. Its turns and mirrors
 * are applied.
 */
async function openHeic(data: Buffer) {
  const { default: library } = await import('libheif-js/wasm-bundle.js')
  const images = new library.HeifDecoder().decode(data)
  const image = images.find((each) => each.is_primary()) ?? images[0]
  if (image === undefined) throw unreadable
  return image
}

/** Reads the boxes, not the pixels. */
export async function measureHeic(data: Buffer): Promise<Measured> {
  const image = await openHeic(data)
  const measured = { width: image.get_width(), height: image.get_height(), frames: 1 }
  image.free()
  if (!(measured.width > 0 && measured.height > 0)) throw unreadable
  return measured
}

/** The primary image as RGBA. */
export async function decodeHeic(
  data: Buffer,
): Promise<{ readonly data: Uint8ClampedArray; readonly width: number; readonly height: number }> {
  const image = await openHeic(data)
  const [width, height] = [image.get_width(), image.get_height()]
  const pixels = new Uint8ClampedArray(width * height * 4)
  const { promise, resolve, reject } = Promise.withResolvers<void>()
  image.display({ data: pixels, width, height }, (shown) => {
    if (shown === null) reject(unreadable)
    else resolve()
  })
  await promise
  image.free()
  return { data: pixels, width, height }
}
