import type { Metadata, Sharp, SharpConstructor } from 'sharp'
import { RenditionError, UploadRefusedError } from '#media/errors.ts'
import type { Kind } from '#media/kinds.ts'
import type { RenditionPlan } from '#media/rendition-plan.ts'

/** libvips may not take more time than this over one image. */
const renderSecondsMax = 30

/** AVIF looks as good as WebP and JPEG at a lower number. */
const avifQuality: Readonly<Record<number, number>> = { 50: 38, 80: 52, 95: 68 }

const formats: Readonly<Record<string, string>> = {
  jpeg: 'image/jpeg',
  png: 'image/png',
  gif: 'image/gif',
  webp: 'image/webp',
  heif: 'image/avif',
  tiff: 'image/tiff',
}

let loaded: Promise<SharpConstructor> | null = null

/**
 * Loaded with the first image: libvips costs 20 MB that a node without images need not have. One
 * thread per image, because several are made at once; nothing cached, because the file store is the
 * cache; and only the loaders of the kinds that Stoa takes, so that a disguised PDF or SVG never
 * reaches its parser.
 */
function imaging(): Promise<SharpConstructor> {
  loaded ??= import('sharp').then(({ default: sharp }) => {
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
  })
  return loaded
}

export type Measured = { readonly width: number; readonly height: number; readonly frames: number }

/**
 * Reads an image's header, not its pixels: a bomb costs nothing. `width` and `height` are as a
 * viewer sees them, with the EXIF orientation applied. Throws `UploadRefusedError`.
 */
export async function measure(path: string, kind: Kind, pixelsMax: number): Promise<Measured> {
  const sharp = await imaging()
  let metadata: Metadata
  try {
    metadata = await sharp(path, { limitInputPixels: false, failOn: 'none' }).metadata()
  } catch (error) {
    throw new UploadRefusedError(
      `The file begins like ${kind.contentType} but cannot be read as such; it is damaged.`,
      { reason: 'unreadableImage', found: kind.contentType },
      { cause: error },
    )
  }
  const { width, height } = metadata.autoOrient
  if (formats[metadata.format] !== kind.contentType || !(width > 0 && height > 0)) {
    throw new UploadRefusedError(
      `The file begins like ${kind.contentType} but is something else.`,
      { reason: 'unreadableImage', found: kind.contentType },
    )
  }
  if (width * height > pixelsMax) {
    throw new UploadRefusedError(
      `The image has ${width} × ${height} pixels; at most ${pixelsMax} in all are taken.`,
      { reason: 'tooManyPixels', width, height, pixelsMax },
    )
  }
  return { width, height, frames: Math.max(1, metadata.pages ?? 1) }
}

/**
 * Makes the rendition. EXIF, GPS and other metadata of the original do not come along; colours
 * become sRGB.
 */
export async function render(
  path: string,
  plan: RenditionPlan,
  pixelsMax: number,
): Promise<Buffer> {
  const sharp = await imaging()
  const image = sharp(path, {
    animated: plan.isAnimated,
    limitInputPixels: pixelsMax,
    failOn: 'truncated',
    sequentialRead: true,
  })
    .timeout({ seconds: renderSecondsMax })
    .autoOrient()
    .resize(plan.scaled.width, plan.scaled.height, { fit: 'fill' })
  if (plan.scaled.width !== plan.width || plan.scaled.height !== plan.height) {
    image.extract({ left: plan.left, top: plan.top, width: plan.width, height: plan.height })
  }
  try {
    return await encode(image, plan).toBuffer()
  } catch (error) {
    throw new RenditionError(
      'The original is damaged or cut off, so it cannot be resized; upload it again.',
      { reason: 'damaged' },
      { cause: error },
    )
  }
}

function encode(image: Sharp, { format, quality }: RenditionPlan): Sharp {
  if (format === 'avif') return image.avif({ quality: avifQuality[quality] ?? quality, effort: 2 })
  if (format === 'webp') return image.webp({ quality, effort: 3 })
  if (format === 'png') return image.png({ compressionLevel: 8 })
  if (format === 'gif') return image.gif({ effort: 4 })
  return image.flatten({ background: '#ffffff' }).jpeg({ quality, mozjpeg: true })
}
