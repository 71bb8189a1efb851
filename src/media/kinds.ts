/**
 * Kinds of files: their extensions (the first is the one that Stoa gives), and what may be done
 * with them.
 */
export type Kind = {
  readonly contentType: string
  readonly extensions: readonly string[]
  /** Made to be looked at or listened to: a name that says so must hold such bytes. */
  readonly isMedia: boolean
  /** A browser shows it without running anything of it in our origin. Everything else downloads. */
  readonly isInline: boolean
  /** Can be turned into renditions. */
  readonly isRaster: boolean
  /** The type in responses: never one that a browser would run as a script or style of the site. */
  readonly deliveredAs: string
}

type Flags = 'media' | 'inline' | 'raster' | 'inert'

function kind(contentType: string, extensions: string, ...flags: Flags[]): Kind {
  return {
    contentType,
    extensions: extensions === '' ? [] : extensions.split(' '),
    isMedia: flags.includes('media'),
    isInline: flags.includes('inline'),
    isRaster: flags.includes('raster'),
    deliveredAs: flags.includes('inert') ? 'text/plain' : contentType,
  }
}

const known: readonly Kind[] = [
  kind('image/jpeg', 'jpg jpeg jpe jfif', 'media', 'inline', 'raster'),
  kind('image/png', 'png apng', 'media', 'inline', 'raster'),
  kind('image/gif', 'gif', 'media', 'inline', 'raster'),
  kind('image/webp', 'webp', 'media', 'inline', 'raster'),
  kind('image/avif', 'avif', 'media', 'inline', 'raster'),
  kind('image/tiff', 'tif tiff', 'media', 'raster'),
  kind('image/heic', 'heic heif', 'media', 'raster'),
  kind('image/bmp', 'bmp', 'media', 'inline'),
  kind('image/x-icon', 'ico', 'media', 'inline'),
  kind('image/jxl', 'jxl', 'media'),
  kind('image/vnd.adobe.photoshop', 'psd', 'media'),
  kind('video/mp4', 'mp4 m4v', 'media', 'inline'),
  kind('video/webm', 'webm', 'media', 'inline'),
  kind('video/ogg', 'ogv', 'media', 'inline'),
  kind('video/quicktime', 'mov qt', 'media', 'inline'),
  kind('video/matroska', 'mkv', 'media'),
  kind('video/x-msvideo', 'avi', 'media'),
  kind('video/mpeg', 'mpg mpeg vob', 'media'),
  kind('audio/mpeg', 'mp3 mp2', 'media', 'inline'),
  kind('audio/mp4', 'm4a m4b', 'media', 'inline'),
  kind('audio/ogg', 'ogg oga opus spx', 'media', 'inline'),
  kind('audio/wav', 'wav', 'media', 'inline'),
  kind('audio/flac', 'flac', 'media', 'inline'),
  kind('audio/aac', 'aac', 'media', 'inline'),
  kind('application/pdf', 'pdf', 'media', 'inline'),
  kind('image/svg+xml', 'svg'),
  kind('text/html', 'html htm xhtml shtml'),
  kind('application/xml', 'xml xsl xslt rss atom'),
  kind('text/plain', 'txt text log', 'inline'),
  kind('text/markdown', 'md markdown'),
  kind('text/csv', 'csv'),
  kind('text/css', 'css', 'inert'),
  kind('text/javascript', 'js mjs cjs', 'inert'),
  kind('text/vtt', 'vtt'),
  kind('text/calendar', 'ics'),
  kind('application/json', 'json geojson map'),
  kind('application/yaml', 'yaml yml'),
]

/** Other names of these kinds, in the library that reads bytes and elsewhere. */
const aliases: Readonly<Record<string, string>> = {
  'image/apng': 'image/png',
  'image/heif': 'image/heic',
  'image/heic-sequence': 'image/heic',
  'image/heif-sequence': 'image/heic',
  'audio/x-m4a': 'audio/mp4',
  'audio/x-m4b': 'audio/mp4',
  'video/x-m4v': 'video/mp4',
  'audio/vnd.wave': 'audio/wav',
  'audio/x-flac': 'audio/flac',
  'audio/opus': 'audio/ogg',
  'application/ogg': 'audio/ogg',
  'video/x-matroska': 'video/matroska',
  'video/vnd.avi': 'video/x-msvideo',
  'video/mp1s': 'video/mpeg',
  'video/mp2p': 'video/mpeg',
}

const byContentType = new Map(known.map((each) => [each.contentType, each]))
const byExtension = new Map(
  known.flatMap((each) => each.extensions.map((extension) => [extension, each] as const)),
)

/** Images, sound and film that Stoa does not know are media all the same, to be downloaded. */
const unknownMedia = /^(image|audio|video)\//

/** Parameters of `contentType` are ignored. Any type is a kind: unknown ones are downloads. */
export function kindOf(contentType: string, extension = ''): Kind {
  const [essence = ''] = contentType.split(';')
  const name = essence.trim().toLowerCase()
  const found = byContentType.get(aliases[name] ?? name)
  if (found !== undefined) return found
  return unknownMedia.test(name) ? kind(name, extension, 'media') : kind(name, extension)
}

export function kindByExtension(extension: string): Kind | null {
  return byExtension.get(extension.toLowerCase()) ?? null
}
