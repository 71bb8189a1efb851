import { negotiate } from '#media/accept.ts'
import type { RenditionFormat } from '#media/accept.ts'
import { RenditionError } from '#media/errors.ts'
import type { RenditionOptions } from '#media/media.ts'

/**
 * Anyone may ask for a rendition, so what can be asked for is a small, fixed set: widths are raised
 * to the next step, the shape of a crop goes to the nearest ratio, qualities to the nearest of
 * three. No stranger can fill the disk with one variant per pixel, no URL needs a signature, and
 * pages whose layouts differ by a few pixels share renditions.
 */
export const widthSteps = [
  32, 64, 96, 128, 192, 256, 384, 512, 640, 768, 1_024, 1_280, 1_536, 1_920, 2_560, 3_840,
] as const
const landscape = [
  1,
  5 / 4,
  4 / 3,
  7 / 5,
  3 / 2,
  16 / 10,
  16 / 9,
  1_200 / 630,
  2,
  21 / 9,
  3,
  4,
] as const
export const cropRatios: readonly number[] = [
  ...landscape.slice(1).map((ratio) => 1 / ratio),
  ...landscape,
]
export const qualitySteps = [50, 80, 95] as const
const qualityDefault = 80

/** AVIF takes about ten times as long as WebP; above this size `auto` takes WebP instead. */
const avifAutoPixelsMax = 3_000_000

/** More than this in all frames together, and an animation is shown by its first frame. */
export const animationPixelsMax = 50_000_000
/** Each frame costs time of its own, however small it is. */
export const animationFramesMax = 500

/** The longest side that each format, or its encoder, can have. */
export const sideMax: Readonly<Record<RenditionFormat, number>> = {
  webp: 16_383,
  avif: 16_384,
  jpeg: 65_500,
  gif: 65_535,
  png: 1_000_000,
}

/**
 * The original as far as a rendition depends on it. `width` and `height` are those a viewer sees,
 * orientation applied.
 */
export type RenditionSource = {
  readonly contentType: string
  readonly width: number
  readonly height: number
  readonly frames: number
  readonly focalPoint: { readonly x: number; readonly y: number } | null
}

/**
 * First scale the whole image to `scaled`, then cut `width` × `height` out of it at `left`, `top`.
 * All in pixels.
 */
export type RenditionPlan = {
  readonly key: string
  readonly format: RenditionFormat
  readonly quality: number
  readonly isAnimated: boolean
  readonly scaled: { readonly width: number; readonly height: number }
  readonly left: number
  readonly top: number
  readonly width: number
  readonly height: number
}

/**
 * The rendition of `source` that `options` ask for. Equal keys are equal pixels. Never enlarges.
 * Throws `RenditionError` for options that cannot be.
 */
export function planRendition(
  source: RenditionSource,
  options: RenditionOptions,
  accept: string,
): RenditionPlan {
  checkOptions(options)
  const { format, isAnimated } = chooseFormat(source, options, accept)
  const box = boxOf(source, options, sideMax[format])
  const quality =
    format === 'png' || format === 'gif'
      ? 100
      : nearest(qualitySteps, options.quality ?? qualityDefault)
  const kind = isCrop(options)
    ? `crop${box.left},${box.top},${box.scaled.width}x${box.scaled.height}`
    : 'whole'
  return {
    ...box,
    format,
    quality,
    isAnimated,
    key: `${box.width}x${box.height}-${kind}-q${quality}${isAnimated ? '-animated' : ''}.${format}`,
  }
}

/** True when the bytes depend on the focal point, which an editor may move. */
export function isCrop(options: RenditionOptions): boolean {
  return options.fit !== 'contain' && options.width !== undefined && options.height !== undefined
}

type Box = Pick<RenditionPlan, 'scaled' | 'left' | 'top' | 'width' | 'height'>

function checkOptions({ width, height, quality }: RenditionOptions): void {
  for (const [name, value, max] of [
    ['width', width, 100_000],
    ['height', height, 100_000],
    ['quality', quality, 100],
  ] as const) {
    if (value !== undefined && !(Number.isInteger(value) && value >= 1 && value <= max)) {
      throw new RenditionError(`${name} must be a whole number from 1 to ${max}.`, {
        reason: 'options',
        option: name,
      })
    }
  }
}

/** No side of the box is longer than `longest`. */
function boxOf(source: RenditionSource, options: RenditionOptions, longest: number): Box {
  const { width, height } = options
  return isCrop(options)
    ? cropBox(source, { width: width!, height: height!, longest })
    : containBox(source, options, longest)
}

function containBox(
  source: RenditionSource,
  { width, height }: RenditionOptions,
  longest: number,
): Box {
  const ratio = source.width / source.height
  const wanted = Math.min(width ?? Infinity, height === undefined ? Infinity : height * ratio)
  const target = Math.min(
    stepUp(Number.isFinite(wanted) ? wanted : source.width),
    source.width,
    longest,
    Math.max(1, Math.floor(longest * ratio)),
  )
  const scaled = {
    width: target,
    height: Math.min(longest, Math.max(1, Math.round(target / ratio))),
  }
  return { scaled, left: 0, top: 0, ...scaled }
}

function cropBox(
  source: RenditionSource,
  { width, height, longest }: { width: number; height: number; longest: number },
): Box {
  const ratio = nearest(cropRatios, width / height)
  // The widest crop of this shape that the source has without enlarging.
  const widest = Math.min(source.width, Math.round(source.height * ratio), longest)
  const target = Math.max(1, Math.min(stepUp(width), widest))
  const tall = Math.max(1, Math.min(source.height, longest, Math.round(target / ratio)))
  const scale = Math.max(target / source.width, tall / source.height)
  const scaled = {
    width: Math.max(target, Math.round(source.width * scale)),
    height: Math.max(tall, Math.round(source.height * scale)),
  }
  const focal = source.focalPoint ?? { x: 0.5, y: 0.5 }
  return {
    scaled,
    left: around(focal.x, scaled.width, target),
    top: around(focal.y, scaled.height, tall),
    width: target,
    height: tall,
  }
}

/** Where a cut of `length` begins so that its middle is as near to the point as the edges allow. */
function around(point: number, whole: number, length: number): number {
  return Math.min(whole - length, Math.max(0, Math.round(point * whole - length / 2)))
}

function chooseFormat(
  source: RenditionSource,
  options: RenditionOptions,
  accept: string,
): { format: RenditionFormat; isAnimated: boolean } {
  const isAnimated = moves(source)
  const asked = options.format ?? 'auto'
  if (asked !== 'auto') return { format: asked, isAnimated: isAnimated && asked === 'webp' }
  const { width, height } = boxOf(source, options, Infinity)
  const fits = (format: RenditionFormat): boolean => Math.max(width, height) <= sideMax[format]
  // AVIF animations cannot be made, so what moves is WebP or stays GIF.
  const offered: RenditionFormat[] =
    isAnimated || width * height > avifAutoPixelsMax ? ['webp'] : ['avif', 'webp']
  const own = ownFormat(source, accept)
  const format = negotiate(accept, fits(own) ? own : 'png', offered.filter(fits))
  return { format, isAnimated: isAnimated && (format === 'webp' || format === 'gif') }
}

/** Only these formats have frames; the library's pages of others are none. */
function moves({ contentType, frames, width, height }: RenditionSource): boolean {
  return (
    (contentType === 'image/gif' || contentType === 'image/webp') &&
    frames > 1 &&
    frames <= animationFramesMax &&
    width * height * frames <= animationPixelsMax
  )
}

/** The original's own kind where every browser shows it, or else its nearest. */
function ownFormat(source: RenditionSource, accept: string): RenditionFormat {
  if (source.contentType === 'image/png') return 'png'
  if (source.contentType === 'image/gif') return 'gif'
  if (source.contentType === 'image/webp') return 'webp'
  return source.contentType === 'image/avif' && negotiate(accept, 'jpeg', ['avif']) === 'avif'
    ? 'avif'
    : 'jpeg'
}

function stepUp(width: number): number {
  return widthSteps.find((step) => step >= width) ?? widthSteps.at(-1)!
}

/** The nearest in proportion. */
function nearest(steps: readonly number[], value: number): number {
  let best = steps[0]!
  for (const step of steps)
    if (Math.abs(Math.log(step / value)) < Math.abs(Math.log(best / value))) best = step
  return best
}
