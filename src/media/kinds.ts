/**
 * What Stoa knows of kinds of files: their extensions (the first is the one it gives), and what may
 * be done with them.
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
}

type Flags = 'media' | 'inline' | 'raster'

function kind(contentType: string, extensions: string, ...flags: Flags[]): Kind {
  return {
    contentType,
    extensions: extensions === '' ? [] : extensions.split(' '),
    isMedia: flags.includes('media'),
    isInline: flags.includes('inline'),
    isRaster: flags.includes('raster'),
  }
}

const known: readonly Kind[] = [
  kind('image/jpeg', 'jpg jpeg jpe jfif', 'media', 'inline', 'raster'),
  kind('image/png', 'png apng', 'media', 'inline', 'raster'),
  kind('image/gif', 'gif', 'media', 'inline', 'raster'),
  kind('image/webp', 'webp', 'media', 'inline', 'raster'),
  kind('image/avif', 'avif', 'media', 'inline', 'raster'),
  kind('image/tiff', 'tif tiff', 'media', 'raster'),
  kind('image/heic', 'heic heif', 'media'),
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
  kind('video/mpeg', 'mpg mpeg', 'media'),
  kind('audio/mpeg', 'mp3', 'media', 'inline'),
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
  kind('text/css', 'css'),
  kind('text/javascript', 'js mjs cjs'),
  kind('text/vtt', 'vtt'),
  kind('text/calendar', 'ics'),
  kind('application/json', 'json geojson map'),
  kind('application/yaml', 'yaml yml'),
]

/** file-type's word for kinds that go by another name here. */
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
}

const byContentType = new Map(known.map((kind) => [kind.contentType, kind]))
const byExtension = new Map(
  known.flatMap((kind) => kind.extensions.map((extension) => [extension, kind] as const)),
)

/**
 * Any content type is a kind: those that Stoa does not know are downloads. `extension`: what to
 * call such a file.
 */
export function kindOf(contentType: string, extension = ''): Kind {
  const [essence = ''] = contentType.split(';')
  const name = essence.trim().toLowerCase()
  return byContentType.get(aliases[name] ?? name) ?? kind(name, extension)
}

export function kindByExtension(extension: string): Kind | null {
  return byExtension.get(extension.toLowerCase()) ?? null
}
