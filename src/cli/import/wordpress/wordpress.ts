import { BatchWriter } from '#cli/import/batch-writer.ts'
import { ensureLocales, saveType } from '#cli/import/model-plan.ts'
import type { Report } from '#cli/import/report.ts'
import type { Addresses } from '#cli/import/rich-text.ts'
import { Schedules } from '#cli/import/schedules.ts'
import { AttachmentFiles, originalAddress } from '#cli/import/wordpress/attachments.ts'
import type { FetchOptions } from '#cli/import/wordpress/attachments.ts'
import { attachmentFields, itemFields } from '#cli/import/wordpress/item-fields.ts'
import {
  addressOf,
  dateOf,
  fateOf,
  surveyWordpress,
} from '#cli/import/wordpress/wordpress-survey.ts'
import type { Term, WordpressSurvey } from '#cli/import/wordpress/wordpress-survey.ts'
import {
  chooseNames,
  existingSlugs,
  extended,
  sameLanguage,
} from '#cli/import/wordpress/wordpress-plan.ts'
import { wordpressKinds, wordpressTypes } from '#cli/import/wordpress/wordpress-types.ts'
import type { WordpressKind } from '#cli/import/wordpress/wordpress-types.ts'
import { readWxr } from '#cli/import/wordpress/wxr.ts'
import type { WxrItem } from '#cli/import/wordpress/wxr.ts'
import type { Output } from '#cli/output.ts'
import type { Bulk, BulkItem, BulkOutcome } from '#content/bulk/bulk.ts'
import type { Call, Content } from '#content/content.ts'
import type { Database } from '#database/database.ts'
import type { Clock } from '#lib/clock.ts'
import type { Media, Received } from '#media/media.ts'

export type WordpressOptions = Omit<FetchOptions, 'signal'> & {
  /** Null: the default locale. */
  readonly locale: string | null
  /** Null: none, or `wp-` where plain names are taken. */
  readonly prefix: string | null
  /** False leaves everything a draft. */
  readonly publish: boolean
  readonly dryRun: boolean
}

export type WordpressTarget = {
  readonly database: Database
  readonly content: Content
  readonly bulk: Bulk
  readonly media: Media
  readonly call: Call
  readonly clock: Clock
}
type Console = { readonly report: Report; readonly output: Output; readonly signal: AbortSignal }

/**
 * Imports a WordPress export. The file is gone through twice as a stream: for what there is, and
 * for its content. Ids derive from the site's address and WordPress's own ids, and equal content
 * makes no version: it can be stopped and run again.
 */
export async function importWordpress(
  path: string,
  target: WordpressTarget,
  options: WordpressOptions,
  console: Console,
): Promise<void> {
  const { content, call } = target
  const { report, signal } = console
  const names = await chooseNames(content, call, options.prefix, report)
  const locales = await content.locales.list(call.db)
  const wanted = options.locale ?? locales.find((each) => each.isDefault)!.code
  const existing = await existingSlugs(target, names, wanted)
  const survey = await surveyWordpress(path, existing, report, signal)
  if (survey === null) return report.interrupted()
  const codes = await ensureLocales(content, call.db, [wanted], { dryRun: options.dryRun, report })
  const locale = codes.get(wanted)!
  if (options.locale === null && !sameLanguage(survey.language, locale))
    report.remark(
      'locale',
      locale,
      `The site says that it is in "${survey.language}"; --locale imports it into another locale.`,
    )
  for (const definition of wordpressTypes(names))
    await saveType(content, call.db, await extended(content, call, definition), {
      dryRun: options.dryRun,
      ...console,
    })
  if (options.dryRun) return survey.losses.report(report)
  await new Importer({ path, target, options, console, survey, names, locale }).run()
}

type WordpressJob = {
  readonly path: string
  readonly target: WordpressTarget
  readonly options: WordpressOptions
  readonly console: Console
  readonly survey: WordpressSurvey
  readonly names: Record<WordpressKind, string>
  readonly locale: string
}

class Importer {
  readonly #path: string
  readonly #target: WordpressTarget
  readonly #options: WordpressOptions
  readonly #console: Console
  readonly #survey: WordpressSurvey
  readonly #names: Record<WordpressKind, string>
  readonly #locale: string
  /** Assets by the attachment's id in WordPress, and by the address of the file. */
  readonly #assets = new Map<string, string>()
  readonly #assetsByAddress = new Map<string, string>()
  readonly #schedules: Schedules
  /** Entries that were refused, and so have no version: nothing refers to them. */
  readonly #refused = new Set<string>()

  constructor(job: WordpressJob) {
    this.#path = job.path
    this.#target = job.target
    this.#options = job.options
    this.#console = job.console
    this.#survey = job.survey
    this.#names = job.names
    this.#locale = job.locale
    this.#schedules = new Schedules(job.target, job.console.report)
  }

  async run(): Promise<void> {
    const { report, output, signal } = this.#console
    const progress = output.progress('WordPress')
    await this.#reserve()
    await this.#termsAndAuthors()
    await this.#attachments((done) => progress.update(done, this.#survey.items.size))
    await this.#items((done) => progress.update(done, this.#survey.items.size))
    if (signal.aborted) {
      report.interrupted()
      progress.end('Stopped')
      return
    }
    await this.#schedules.save()
    await this.#release()
    this.#survey.losses.report(report)
    progress.end(`${this.#survey.counts.entries} entries`)
  }

  #idsOf(kind: WordpressKind): string[] {
    const { authors, categories, tags, items } = this.#survey
    if (kind === 'author') return [...authors.values()].map(({ id }) => id)
    if (kind === 'category' || kind === 'tag')
      return [...(kind === 'category' ? categories : tags).values()].map(({ id }) => id)
    return [...items.values()].filter((item) => item.kind === kind).map(({ id }) => id)
  }

  async #reserve(): Promise<void> {
    const { bulk, call } = this.#target
    for (const kind of Object.keys(this.#names) as WordpressKind[]) {
      const ids = this.#idsOf(kind)
      for (let at = 0; at < ids.length; at += 5_000)
        await bulk.reserve(call, this.#names[kind], ids.slice(at, at + 5_000))
    }
  }

  /** Deletes entries that got no version. One that others refer to stays, and is reported. */
  async #release(): Promise<void> {
    const { bulk, call } = this.#target
    for (const kind of wordpressKinds) {
      const ids = this.#idsOf(kind)
      const released = new Set<string>()
      for (let at = 0; at < ids.length; at += 5_000)
        for (const id of await bulk.release(call, this.#names[kind], ids.slice(at, at + 5_000)))
          released.add(id)
      for (const id of ids.filter((one) => this.#refused.has(one) && !released.has(one)))
        this.#console.report.leaveOut(
          this.#names[kind],
          id,
          'It was refused, and other entries refer to it: it stays as an entry without content.',
        )
    }
  }

  /** Notes an entry that was refused. */
  #note(id: string): (outcome: BulkOutcome['outcome']) => void {
    return (outcome) => {
      if (outcome === 'refused') this.#refused.add(id)
    }
  }

  #writer(kind: WordpressKind, what: string): BatchWriter {
    const { bulk, call } = this.#target
    return new BatchWriter({
      bulk,
      call,
      type: this.#names[kind],
      report: this.#console.report,
      what,
    })
  }

  #item(
    id: string,
    fields: Readonly<Record<string, unknown>>,
    more: Partial<BulkItem> = {},
  ): BulkItem {
    return { id, locale: this.#locale, fields, publish: this.#options.publish, ...more }
  }

  async #termsAndAuthors(): Promise<void> {
    const authors = this.#writer('author', 'authors')
    for (const { id, login, name, firstName, lastName, slug } of this.#survey.authors.values()) {
      await authors.add(
        this.#item(id, {
          name,
          slug,
          ...(firstName === '' ? {} : { firstName }),
          ...(lastName === '' ? {} : { lastName }),
        }),
        login,
        100,
        this.#note(id),
      )
    }
    await authors.finish()
    await this.#terms('category', 'categories', this.#survey.categories)
    await this.#terms('tag', 'tags', this.#survey.tags)
  }

  async #terms(
    kind: 'category' | 'tag',
    what: string,
    terms: ReadonlyMap<string, Term>,
  ): Promise<void> {
    const writer = this.#writer(kind, what)
    const byName = new Map([...terms.values()].map((term) => [term.name, term]))
    for (const { id, name, slug, description, parent } of terms.values()) {
      // WXR 1.0 names the parent by its name.
      const parentId = parent === null ? undefined : (terms.get(parent) ?? byName.get(parent))?.id
      if (parent !== null && parentId === undefined)
        this.#console.report.remark(what, slug, `Its parent "${parent}" is not in the export.`)
      await writer.add(
        this.#item(id, {
          name,
          slug,
          ...(description === '' ? {} : { description }),
          ...(parentId === undefined ? {} : { parent: parentId }),
        }),
        slug,
        100,
        this.#note(id),
      )
    }
    await writer.finish()
  }

  async #attachments(progress: (done: number) => void): Promise<void> {
    const existing = await this.#existingFiles()
    await using files = await AttachmentFiles.open({
      ...this.#options,
      signal: this.#console.signal,
    })
    let done = 0
    for await (const record of readWxr(this.#path)) {
      if (this.#console.signal.aborted) return
      if (record.is !== 'item' || record.item.kind !== 'attachment') continue
      const known = this.#survey.items.get(record.item.id)
      if (known?.kind !== 'attachment') continue
      await this.#attachment(record.item, known.id, existing.get(known.id) ?? null, files)
      done += 1
      progress(done)
    }
  }

  /** Files that an earlier run got: they are not asked for again. */
  async #existingFiles(): Promise<Map<string, string>> {
    const result = new Map<string, string>()
    for (let after: string | null = null; ;) {
      const states = await this.#target.bulk.states(this.#target.call, this.#names.attachment, {
        after,
        limit: 500,
      })
      for (const { id, filterJson } of states) {
        const { file } = JSON.parse(filterJson) as { file?: unknown }
        if (typeof file === 'string') result.set(id, file)
      }
      const last = states.at(-1)
      if (last === undefined) return result
      after = last.id
    }
  }

  async #attachment(
    item: WxrItem,
    id: string,
    existing: string | null,
    files: AttachmentFiles,
  ): Promise<void> {
    const { report } = this.#console
    const found = existing === null ? await files.find(item.attachmentUrl) : null
    if (this.#console.signal.aborted) return
    const received =
      found?.ok === true
        ? await files.receive(this.#target.media, this.#target.call.authority.actor, found)
        : null
    const reason = found?.ok === false ? found.reason : null
    const refusal = typeof received === 'string' ? received : reason
    if (refusal !== null) report.refuse('attachment files', item.attachmentUrl, refusal)
    const file = await this.#saveAttachment(
      item,
      id,
      existing,
      typeof received === 'string' ? null : received,
    )
    if (file === null) return
    report.count('attachment files', existing === null ? 'made' : 'unchanged')
    this.#assets.set(item.id, file)
    const address = originalAddress(item.attachmentUrl, this.#survey.siteUrl)
    if (address !== null) this.#assetsByAddress.set(address, file)
  }

  /**
   * The asset and the entry that remembers it are made in one transaction: a crash leaves both or
   * neither.
   */
  async #saveAttachment(
    item: WxrItem,
    id: string,
    existing: string | null,
    received: Received | null,
  ): Promise<string | null> {
    const { report } = this.#console
    const { database, bulk, media, call, clock } = this.#target
    const at = dateOf(item)
    const alt = item.meta.get('_wp_attachment_image_alt')?.trim() ?? ''
    return database.transaction(async (tx) => {
      const file =
        received === null
          ? existing
          : (
              await media.create(
                tx,
                call.authority.actor,
                received,
                alt === '' ? {} : { [this.#locale]: alt },
              )
            ).id
      const publish = this.#options.publish && fateOf(item, clock.nowMs()).is === 'publish'
      const saved = this.#item(id, attachmentFields(item, this.#survey, file), {
        publish,
        ...(at === null ? {} : { at: { createdAt: at, publishedAt: at } }),
      })
      const [outcome] = await bulk.save({ ...call, db: tx }, this.#names.attachment, [saved])
      if (outcome!.outcome === 'refused')
        report.refuse('attachments', item.attachmentUrl, outcome!.reason)
      else report.count('attachments', outcome!.outcome)
      return file
    })
  }

  async #items(progress: (done: number) => void): Promise<void> {
    const writers = { post: this.#writer('post', 'posts'), page: this.#writer('page', 'pages') }
    const addresses: Addresses = {
      entry: (href) => {
        const address = addressOf(href.replace(/#.*$/s, ''), this.#survey.siteUrl)
        return address === null ? null : (this.#survey.byAddress.get(address) ?? null)
      },
      asset: (src) =>
        this.#assetsByAddress.get(originalAddress(src, this.#survey.siteUrl) ?? '') ?? null,
    }
    const around = {
      survey: this.#survey,
      addresses,
      assetOf: (id: string) => this.#assets.get(id) ?? null,
      isRefused: (id: string) => this.#refused.has(id),
    }
    let done = this.#idsOf('attachment').length
    const seen = new Set<string>()
    for await (const record of readWxr(this.#path)) {
      if (this.#console.signal.aborted) break
      if (record.is !== 'item') continue
      const { item } = record
      const known = this.#survey.items.get(item.id)
      if (
        known === undefined ||
        known.kind !== item.kind ||
        known.kind === 'attachment' ||
        seen.has(item.id)
      )
        continue
      seen.add(item.id)
      await writers[known.kind].add(
        this.#itemToSave(item, known.id, itemFields(item, around)),
        `${item.id} "${item.title.slice(0, 80)}"`,
        item.content.length + 1_000,
        (outcome) => {
          this.#note(known.id)(outcome)
          this.#countComments(item, outcome)
        },
      )
      done += 1
      progress(done)
    }
    await writers.post.finish()
    await writers.page.finish()
  }

  #itemToSave(item: WxrItem, id: string, fields: Record<string, unknown>): BulkItem {
    const { report } = this.#console
    const where = `${item.id} "${item.title.slice(0, 80)}"`
    const fate = fateOf(item, this.#target.clock.nowMs())
    if (fate.is === 'draft' && fate.remark !== null)
      report.remark(`${item.kind}s`, where, fate.remark)
    if (
      item.parent !== '' &&
      item.parent !== '0' &&
      item.kind === 'page' &&
      fields['parent'] === undefined
    )
      report.remark('pages', where, `Its parent ${item.parent} is not in the export.`)
    if (fate.is === 'schedule' && this.#options.publish)
      this.#schedules.add({
        id,
        type: this.#names[item.kind === 'page' ? 'page' : 'post'],
        locale: this.#locale,
        action: 'publish',
        dueAt: fate.dueAt,
        where,
      })
    const at = dateOf(item)
    return this.#item(id, fields, {
      publish: this.#options.publish && fate.is === 'publish',
      ...(at === null || fate.is === 'schedule' ? {} : { at: { createdAt: at, publishedAt: at } }),
    })
  }

  #countComments(item: WxrItem, outcome: 'made' | 'changed' | 'unchanged' | 'refused'): void {
    const approved = item.comments.filter((comment) => comment.approved).length
    if (approved > 0) this.#console.report.count('comments', outcome, approved)
    for (const comment of item.comments)
      if (!comment.approved)
        this.#console.report.refuse(
          'comments',
          `${comment.id} on ${item.id}`,
          'It is not approved in WordPress.',
        )
  }
}
