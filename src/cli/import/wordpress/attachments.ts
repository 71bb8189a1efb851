import { createReadStream } from 'node:fs'
import { mkdtemp, rm, stat } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { basename, join, normalize } from 'node:path'
import { download } from '#cli/import/download.ts'
import type { Actor } from '#lib/actor.ts'
import type { Media, Received } from '#media/media.ts'
import { StoaError } from '#lib/stoa-error.ts'

const deadlineMs = 60_000
/** After so many failures to reach a host nothing more is asked of it. */
const hostFailuresMax = 3

export type FetchOptions = {
  /** Copies of what lay under `wp-content/uploads`; asked before the network. */
  readonly mediaDir: string | null
  readonly download: boolean
  readonly allowPrivate: boolean
  readonly bytesMax: number
  readonly signal: AbortSignal
}

export type Found =
  | { readonly ok: true; readonly file: string; readonly name: string }
  | { readonly ok: false; readonly reason: string }

/**
 * Gets the files of attachments, from a folder or from the site that they were on, each into a file
 * of its own.
 */
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
            ? 'Nothing is downloaded, as was asked.'
            : `It is not in ${this.#options.mediaDir}, and nothing is downloaded, as was asked.`,
      }
    const { host } = new URL(url)
    const failures = this.#failures.get(host) ?? 0
    if (failures >= hostFailuresMax)
      return {
        ok: false,
        reason: `It could not be downloaded: ${host} did not answer ${hostFailuresMax} times before.`,
      }
    this.#count += 1
    const file = join(this.#folder, String(this.#count))
    const { bytesMax, allowPrivate, signal } = this.#options
    const outcome = await download(url, file, { bytesMax, allowPrivate, signal, deadlineMs })
    if (outcome.ok) return { ok: true, file, name }
    if (outcome.hostDown) this.#failures.set(host, failures + 1)
    return { ok: false, reason: `It could not be downloaded: ${outcome.reason}.` }
  }

  /**
   * Puts a found file into the file store, or says why it is not taken. A downloaded file is gone
   * after it.
   */
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
    // A stray % in a name is a name all the same.
    return last.slice(0, 200) || 'file'
  }
}

/** The file under its path below `uploads`, under its year and month, or by its name alone. */
async function inFolder(folder: string, url: string): Promise<string | null> {
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
    const path = join(folder, ...candidate)
    if ((await stat(path).catch(() => null))?.isFile() === true) return path
  }
  return null
}

function decodePath(path: string): string {
  try {
    return decodeURIComponent(path)
  } catch {
    // As it stands, then.
    return path
  }
}

/**
 * The address of an image without query and without the size that WordPress adds to resized copies.
 */
export function originalAddress(src: string, siteUrl: string): string | null {
  if (!URL.canParse(src, siteUrl)) return null
  const url = new URL(src, siteUrl)
  return `${url.host}${url.pathname.replace(/-\d{1,5}x\d{1,5}(?=\.[A-Za-z0-9]{1,5}$)/, '')}`
}
