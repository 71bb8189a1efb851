import { createReadStream } from 'node:fs'
import { mkdtemp, realpath, rm, stat } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { basename, join, normalize, sep } from 'node:path'
import { download } from '#cli/import/download.ts'
import { bareHost } from '#cli/import/wordpress/wordpress-survey.ts'
import type { Actor } from '#lib/actor.ts'
import type { Media, Received } from '#media/media.ts'
import { StoaError } from '#lib/stoa-error.ts'

const deadlineMs = 60_000
/** Failures to reach a host after which no more requests go to it. */
const hostFailuresMax = 3

export type FetchOptions = {
  /** A copy of `wp-content/uploads`, looked at before the network. */
  readonly mediaDir: string | null
  readonly download: boolean
  readonly allowPrivate: boolean
  readonly bytesMax: number
  readonly signal: AbortSignal
}

export type Found =
  | { readonly ok: true; readonly file: string; readonly name: string }
  | { readonly ok: false; readonly reason: string }

/** Gets the files of attachments from a folder or from their site, each into a file of its own. */
export class AttachmentFiles implements AsyncDisposable {
  readonly #options: FetchOptions
  readonly #folder: string
  readonly #failures = new Map<string, number>()
  #count = 0

  private constructor(options: FetchOptions, folder: string) {
    this.#options = options
    this.#folder = folder
  }

  static async open(options: FetchOptions): Promise<AttachmentFiles> {
    return new AttachmentFiles(options, await mkdtemp(join(tmpdir(), 'stoa-attachments-')))
  }

  async find(url: string): Promise<Found> {
    if (!URL.canParse(url)) return { ok: false, reason: 'It has no address.' }
    const name = fileName(url)
    const local =
      this.#options.mediaDir === null ? null : await inFolder(this.#options.mediaDir, url)
    if (local !== null) return { ok: true, file: local, name }
    if (!this.#options.download)
      return {
        ok: false,
        reason:
          this.#options.mediaDir === null
            ? 'Downloads are off (--no-download).'
            : `It is not in ${this.#options.mediaDir}, and downloads are off (--no-download).`,
      }
    const { host } = new URL(url)
    const failures = this.#failures.get(host) ?? 0
    if (failures >= hostFailuresMax)
      return {
        ok: false,
        reason: `It was not asked for: ${host} did not respond ${hostFailuresMax} times before.`,
      }
    this.#count += 1
    const file = join(this.#folder, String(this.#count))
    const { bytesMax, allowPrivate, signal } = this.#options
    const outcome = await download(url, file, { bytesMax, allowPrivate, signal, deadlineMs })
    if (outcome.ok) return { ok: true, file, name }
    if (outcome.hostDown) this.#failures.set(host, failures + 1)
    return { ok: false, reason: `It could not be downloaded: ${outcome.reason}.` }
  }

  /** Stores a found file, or returns why it is not taken. A downloaded file is deleted then. */
  async receive(
    media: Media,
    actor: Actor,
    found: Extract<Found, { ok: true }>,
  ): Promise<Received | string> {
    try {
      return await media.receive(actor, {
        name: found.name,
        source: createReadStream(found.file),
        signal: this.#options.signal,
      })
    } catch (error) {
      if (!(error instanceof StoaError) || error.code.startsWith('E_DATABASE_')) throw error
      return error.message
    } finally {
      if (found.file.startsWith(this.#folder)) await rm(found.file, { force: true })
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await rm(this.#folder, { recursive: true, force: true })
  }
}

function fileName(url: string): string {
  const last = new URL(url).pathname.split('/').at(-1) ?? ''
  try {
    return decodeURIComponent(last).slice(0, 200) || 'file'
  } catch {
    // A single % is part of the name.
    return last.slice(0, 200) || 'file'
  }
}

/**
 * Finds the file under its path below `uploads`, under its year and month, or by its name alone.
 * A symbolic link that leads out of the folder is not followed: it could make any file of this
 * machine a public asset.
 */
async function inFolder(folder: string, url: string): Promise<string | null> {
  const root = await realpath(folder).catch(() => null)
  if (root === null) return null
  const segments = normalize(decodePath(new URL(url).pathname))
    .split('/')
    .filter((segment) => segment !== '' && segment !== '..')
  const uploads = segments.lastIndexOf('uploads')
  const candidates = [
    segments.slice(uploads + 1),
    segments,
    segments.slice(-3),
    [basename(segments.join('/'))],
  ]
  for (const candidate of candidates) {
    if (candidate.length === 0) continue
    const path = await realpath(join(root, ...candidate)).catch(() => null)
    if (path === null || !path.startsWith(`${root}${sep}`)) continue
    if ((await stat(path).catch(() => null))?.isFile() === true) return path
  }
  return null
}

function decodePath(path: string): string {
  try {
    return decodeURIComponent(path)
  } catch {
    // The path is not encoded.
    return path
  }
}

/**
 * Returns the address of an image in a form that all its copies share: without query, size, scheme,
 * `www` and the image servers of WordPress.com in front of the host.
 */
export function originalAddress(src: string, siteUrl: string): string | null {
  if (!URL.canParse(src, siteUrl)) return null
  const url = new URL(src, siteUrl)
  const proxied = /^i\d\.wp\.com$/.test(url.host) ? url.pathname.slice(1) : url.host + url.pathname
  const path = proxied.replace(
    /(?:-scaled|-rotated|-e\d{6,15})?(?:-\d{1,5}x\d{1,5})?(?=\.[A-Za-z0-9]{1,5}$)/,
    '',
  )
  return bareHost(path.slice(0, path.indexOf('/'))) + path.slice(path.indexOf('/'))
}
