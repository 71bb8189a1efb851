/**
 * Side lengths beyond this are no measure of a picture; such an SVG counts as one without a size.
 */
const sideMax = 100_000

/**
 * The size that an SVG gives itself, by `width` and `height` in pixels or else by its `viewBox`. It
 * is read from the root tag; nothing is rendered.
 */
export function measureSvg(text: string): { width: number | null; height: number | null } {
  const tag = rootTag(text)
  const side = (name: string): number =>
    Number(
      new RegExp(`\\s${name}\\s*=\\s*["']\\s*(\\d+(?:\\.\\d+)?)(?:px)?\\s*["']`, 'i').exec(
        tag,
      )?.[1] ?? NaN,
    )
  const box =
    /\sviewBox\s*=\s*["']\s*[-\d.]+[\s,]+[-\d.]+[\s,]+(\d+(?:\.\d+)?)[\s,]+(\d+(?:\.\d+)?)\s*["']/i.exec(
      tag,
    )
  const [width, height] = [side('width'), side('height')]
  const size =
    Number.isNaN(width) || Number.isNaN(height)
      ? [Number(box?.[1] ?? NaN), Number(box?.[2] ?? NaN)]
      : [width, height]
  const [w, h] = size.map((value) => Math.round(value)) as [number, number]
  return w >= 1 && h >= 1 && w <= sideMax && h <= sideMax
    ? { width: w, height: h }
    : { width: null, height: null }
}

/**
 * The attributes of the first tag; empty where it never ends. The expression is tried at that place
 * only: at each of many, a text made for it would take a second.
 */
function rootTag(text: string): string {
  const start = /<(?:[a-z][\w.-]*:)?svg\b/i.exec(text)
  if (start === null) return ''
  const attributes = /((?:[^>"']|"[^"]*"|'[^']*')*)>/y
  attributes.lastIndex = start.index + start[0].length
  return attributes.exec(text)?.[1] ?? ''
}
