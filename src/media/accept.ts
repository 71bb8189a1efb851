export type RenditionFormat = 'avif' | 'webp' | 'jpeg' | 'png' | 'gif'

/**
 * An `Accept` header longer than this is read only so far; browsers send about a hundred
 * characters.
 */
const acceptLengthMax = 1_000

/** Better compression first; decides between formats that the client likes equally. */
const preferred: readonly RenditionFormat[] = ['avif', 'webp']

/**
 * The best format that `accept` (RFC 9110 §12.5.1) names, of `offered` and the original's `own`.
 * Modern formats must be named: a wildcard, which old clients send too, only ever stands for `own`.
 * When nothing fits it is `own`: an image in another format is more use than a 406.
 */
export function negotiate(
  accept: string,
  own: RenditionFormat,
  offered: readonly RenditionFormat[] = preferred,
): RenditionFormat {
  const ranges = parse(accept)
  const ownQuality =
    ranges.get(`image/${own}`) ??
    ranges.get('image/*') ??
    ranges.get('*/*') ??
    (ranges.size === 0 ? 1 : 0)
  let best: { format: RenditionFormat; quality: number } = { format: own, quality: ownQuality }
  for (const format of [...offered].reverse()) {
    const quality = ranges.get(`image/${format}`) ?? 0
    if (quality > 0 && quality >= best.quality) best = { format, quality }
  }
  return best.format
}

function parse(accept: string): Map<string, number> {
  const ranges = new Map<string, number>()
  for (const part of accept.slice(0, acceptLengthMax).split(',')) {
    const [range = '', ...parameters] = part.split(';').map((piece) => piece.trim().toLowerCase())
    if (range === '') continue
    const weight = parameters.find((parameter) => parameter.startsWith('q='))
    const quality = weight === undefined ? 1 : Number(weight.slice(2))
    ranges.set(range, Number.isFinite(quality) ? Math.min(1, Math.max(0, quality)) : 0)
  }
  return ranges
}
