import { readFile } from 'node:fs/promises'
import type { Metadata, Sharp, SharpConstructor } from 'sharp'
import { TaskFailure } from '#lib/child-tasks.ts'
import { decodeHeic, measureHeic } from '#media/heic.ts'
import type { RenditionPlan } from '#media/rendition-plan.ts'

export type MeasureInput = {
  readonly path: string
  readonly contentType: string
  readonly pixelsMax: number
}
export type Measured = { readonly width: number; readonly height: number; readonly frames: number }

export type RenderInput = {
  readonly path: string
  /** The rendition is written here. */
  readonly outputPath: string
  readonly contentType: string
  readonly plan: RenditionPlan
  readonly pixelsMax: number
}

/** AVIF looks as good as WebP and JPEG at a lower number. */
const avifQuality: Readonly<Record<number, number>> = { 50: 38, 80: 52, 95: 68 }

/** The content types of the image library's formats. */
const formats: Readonly<Record<string, string>> = {
  jpeg: 'image/jpeg',
  png: 'image/png',
  gif: 'image/gif',
  webp: 'image/webp',
  heif: 'image/avif',
  tiff: 'image/tiff',
}

/** The reason of a failure that no file is to blame for. */
export const libraryMissing = 'libraryMissing'

/** In other formats, what the library calls pages are pages, layers or alternatives. */
const movingFormats: ReadonlySet<string> = new Set(['gif', 'webp'])

/**
 * One thread per image, because several children work at once; nothing cached, because the file
 * store is the cache; and only the loaders of the kinds that Stoa takes, so that a disguised PDF or
 * SVG never reaches its parser.
 */
async function loadSharp(): Promise<SharpConstructor> {
  const { default: sharp } = await import('sharp').catch((error: unknown) => {
    throw new TaskFailure('The image library cannot be loaded.', {
      reason: libraryMissing,
      cause: error instanceof Error ? error.message : String(error),
    })
  })
  sharp.concurrency(1)
  sharp.cache(false)
  sharp.block({ operation: ['VipsForeignLoad'] })
  sharp.unblock({
    operation: [
      'VipsForeignLoadJpeg',
      'VipsForeignLoadPng',
      'VipsForeignLoadNsgif',
      'VipsForeignLoadWebp',
      'VipsForeignLoadHeif',
      'VipsForeignLoadTiff',
    ],
  })
  return sharp
}

/**
 * Reads an image's header, not its pixels: a bomb costs nothing. `width` and `height` are as a
 * viewer sees them, with the EXIF orientation applied. Fails with the facts of
 * `UploadRefusedError`.
 */
export async function measureImage(input: MeasureInput): Promise<Measured> {
  const { contentType, pixelsMax } = input
  const measured =
    contentType === 'image/heic'
      ? await measureHeic(await readFile(input.path))
      : await measureBySharp(input)
  const { width, height } = measured
  if (width * height > pixelsMax) {
    throw new TaskFailure(
      `The image has ${width} × ${height} pixels; at most ${pixelsMax} in all are taken.`,
      { reason: 'tooManyPixels', width, height, pixelsMax },
    )
  }
  return measured
}

async function measureBySharp({ path, contentType }: MeasureInput): Promise<Measured> {
  const sharp = await loadSharp()
  let metadata: Metadata
  try {
    metadata = await sharp(path, { limitInputPixels: false, failOn: 'none' }).metadata()
  } catch {
    throw new TaskFailure(
      `The file begins like ${contentType} but cannot be read as such; it is damaged.`,
      { reason: 'unreadableImage', found: contentType },
    )
  }
  const { width, height } = metadata.autoOrient
  if (formats[metadata.format] !== contentType || !(width > 0 && height > 0)) {
    throw new TaskFailure(`The file begins like ${contentType} but is something else.`, {
      reason: 'unreadableImage',
      found: contentType,
    })
  }
  // The library cannot turn an animation, so one with an orientation is shown by its first frame.
  const moves = movingFormats.has(metadata.format) && (metadata.orientation ?? 1) === 1
  return { width, height, frames: moves ? Math.max(1, metadata.pages ?? 1) : 1 }
}

/**
 * Makes the rendition and returns its number of bytes. EXIF, GPS and other metadata of the original
 * do not come along; colours become sRGB.
 */
export async function renderImage(input: RenderInput): Promise<number> {
  const { plan } = input
  const sharp = await loadSharp()
  try {
    const image = (await openImage(sharp, input)).resize(plan.scaled.width, plan.scaled.height, {
      fit: 'fill',
    })
    if (plan.scaled.width !== plan.width || plan.scaled.height !== plan.height) {
      image.extract({ left: plan.left, top: plan.top, width: plan.width, height: plan.height })
    }
    return (await encode(image, plan).toFile(input.outputPath)).size
  } catch (error) {
    throw new TaskFailure(
      'The original is damaged or cut off, so it cannot be resized; upload it again.',
      { reason: 'damaged', cause: error instanceof Error ? error.message : String(error) },
    )
  }
}

async function openImage(
  sharp: SharpConstructor,
  { path, contentType, plan, pixelsMax }: RenderInput,
): Promise<Sharp> {
  if (contentType === 'image/heic') {
    const { data, width, height } = await decodeHeic(await readFile(path))
    return sharp(data, { raw: { width, height, channels: 4 }, limitInputPixels: pixelsMax })
  }
  return sharp(path, {
    animated: plan.isAnimated,
    limitInputPixels: pixelsMax,
    failOn: 'truncated',
    sequentialRead: true,
  }).autoOrient()
}

function encode(image: Sharp, { format, quality }: RenditionPlan): Sharp {
  if (format === 'avif') return image.avif({ quality: avifQuality[quality] ?? quality, effort: 2 })
  if (format === 'webp') return image.webp({ quality, effort: 3 })
  if (format === 'png') return image.png({ compressionLevel: 8 })
  if (format === 'gif') return image.gif({ effort: 4 })
  return image.flatten({ background: '#ffffff' }).jpeg({ quality, mozjpeg: true })
}
