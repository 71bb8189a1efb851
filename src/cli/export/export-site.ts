import type { ArchiveSink } from '#cli/export/archive-sink.ts'
import { manifestName } from '#cli/export/archive-sink.ts'
import { ExportInterrupted } from '#cli/export/errors.ts'
import { stableJson } from '#cli/export/stable-json.ts'
import type { Report } from '#cli/import/report.ts'
import type { Output } from '#cli/output.ts'
import type { Site } from '#node/site.ts'
import { sql } from '#database/database.ts'
import type { Queryable } from '#database/database.ts'

/** Grows when an older Stoa could misread what this one writes. */
export const formatVersion = 1
const entriesPerPage = 100
const assetsPerPage = 500

/** The export reads one snapshot, and may wait long for a disk between two statements. */
const oneSnapshot = sql<object>('set transaction isolation level repeatable read, read only')
const noIdleLimit = sql<object>('set local idle_in_transaction_session_timeout = 0')

type Console = { readonly report: Report; readonly output: Output; readonly signal: AbortSignal }
type ExportedSite = Pick<Site, 'database' | 'content' | 'media' | 'access' | 'logger'>

/**
 * Writes everything a site holds, as of one moment, except users and what lets them in. Equal
 * content makes equal bytes. When `signal` aborts, nothing of an archive stays, and the report says
 * so.
 */
export async function exportSite(
  site: ExportedSite,
  sink: ArchiveSink,
  options: { readonly history: boolean },
  console: Console,
): Promise<void> {
  try {
    await site.database.transaction(async (tx) => {
      await tx.run(oneSnapshot)
      await tx.run(noIdleLimit)
      await new Exporter({ site, tx, sink, options, console }).run()
    })
    await sink.finish()
  } catch (error) {
    if (!(error instanceof ExportInterrupted)) throw error
    console.report.interrupted()
  }
}

type ExportJob = {
  readonly site: ExportedSite
  readonly tx: Queryable
  readonly sink: ArchiveSink
  readonly options: { readonly history: boolean }
  readonly console: Console
}

class Exporter {
  readonly #site: ExportedSite
  readonly #tx: Queryable
  readonly #sink: ArchiveSink
  readonly #options: { readonly history: boolean }
  readonly #console: Console

  constructor(job: ExportJob) {
    this.#site = job.site
    this.#tx = job.tx
    this.#sink = job.sink
    this.#options = job.options
    this.#console = job.console
  }

  /** Writes in the order of the format: what others refer to comes first. */
  async run(): Promise<void> {
    const { content, access } = this.#site
    await this.#sink.text(
      manifestName,
      stableJson({ format: 'stoa-export', version: formatVersion, history: this.#options.history }),
    )
    await this.#sink.text(
      'locales.json',
      stableJson(
        (await content.locales.list(this.#tx)).toSorted((left, right) =>
          left.code < right.code ? -1 : 1,
        ),
      ),
    )
    const types = (await content.types.list(this.#tx))
      .map(({ definition }) => definition)
      .toSorted((left, right) => (left.name < right.name ? -1 : 1))
    // The order of a type's fields means something, and so the keys of a definition stay as they
    // are.
    for (const type of types)
      await this.#write('types', `types/${type.name}.json`, `${JSON.stringify(type, null, 2)}\n`)
    for (const role of (await access.roles.list()).toSorted((left, right) =>
      left.name < right.name ? -1 : 1,
    ))
      await this.#write('roles', `roles/${role.name}.json`, stableJson(role))
    await this.#assets()
    const progress = this.#console.output.progress('Entries')
    let done = 0
    for (const { name } of types)
      done = await this.#entries(name, done, (count) => progress.update(count, null))
    progress.end(`${done} entries`)
    await this.#releases()
  }

  async #write(what: string, path: string, text: string): Promise<void> {
    if (this.#console.signal.aborted) throw new ExportInterrupted()
    await this.#sink.text(path, text)
    this.#console.report.count(what, 'made')
  }

  /** Bytes first, each once and in the order of their hashes, then the assets that name them. */
  async #assets(): Promise<void> {
    const { media } = this.#site
    const blobs = new Map<string, { readonly id: string; readonly bytes: number }>()
    for (let after: string | null = null; ;) {
      const page = await media.page(this.#tx, { after, limit: assetsPerPage })
      for (const { id, blob, bytes } of page) if (!blobs.has(blob)) blobs.set(blob, { id, bytes })
      const last = page.at(-1)
      if (last === undefined) break
      after = last.id
    }
    for (const blob of [...blobs.keys()].sort()) {
      if (this.#console.signal.aborted) throw new ExportInterrupted()
      const { id, bytes } = blobs.get(blob)!
      await this.#sink.bytes(`blobs/${blob}`, bytes, async () =>
        media.original(await media.find(this.#tx, id)).open(),
      )
    }
    for (let after: string | null = null; ;) {
      const page = await media.page(this.#tx, { after, limit: assetsPerPage })
      for (const asset of page)
        await this.#write('assets', `assets/${asset.id}.json`, stableJson(asset))
      const last = page.at(-1)
      if (last === undefined) break
      after = last.id
    }
  }

  async #entries(type: string, before: number, progress: (done: number) => void): Promise<number> {
    const { archive } = this.#site.content
    let done = before
    for (let after: string | null = null; ;) {
      const page = await archive.entries(this.#call(), type, {
        after,
        limit: entriesPerPage,
        history: this.#options.history,
      })
      for (const entry of page)
        await this.#write('entries', `entries/${type}/${entry.id}.json`, stableJson(entry))
      done += page.length
      progress(done)
      const last = page.at(-1)
      if (last === undefined) return done
      after = last.id
    }
  }

  async #releases(): Promise<void> {
    const { archive } = this.#site.content
    for (let after: string | null = null; ;) {
      const page = await archive.releases(this.#call(), { after, limit: entriesPerPage })
      for (const release of page)
        await this.#write('releases', `releases/${release.id}.json`, stableJson(release))
      const last = page.at(-1)
      if (last === undefined) return
      after = last.id
    }
  }

  #call(): {
    readonly db: Queryable
    readonly authority: Site['access']['systemIdentity']['authority']
  } {
    return { db: this.#tx, authority: this.#site.access.systemIdentity.authority }
  }
}
