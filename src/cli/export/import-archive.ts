import type { Readable } from 'node:stream'
import { isDeepStrictEqual } from 'node:util'
import type { ArchiveSource } from '#cli/export/archive-source.ts'
import { planTypes, saveTypes } from '#cli/export/save-types.ts'
import { sorted } from '#cli/export/stable-json.ts'
import { surveyArchive } from '#cli/export/survey-archive.ts'
import type { ArchiveSurvey } from '#cli/export/survey-archive.ts'
import { ImportPlanError } from '#cli/import/errors.ts'
import type { Report } from '#cli/import/report.ts'
import type { Output } from '#cli/output.ts'
import type { Site } from '#node/site.ts'
import type { Role } from '#access/access.ts'
import type { Archive, ArchivedEntry, ArchivedRelease } from '#content/bulk/archive.ts'
import type { Bulk } from '#content/bulk/bulk.ts'
import type { Call, Locale } from '#content/content.ts'
import { sql } from '#database/database.ts'
import type { Queryable } from '#database/database.ts'
import { StoaError } from '#lib/stoa-error.ts'

/** A batch of entries is one transaction. */
const entriesPerBatch = 50
const idsPerStatement = 5_000

const knownEntries = sql<{ id: string }>('select id from stoa.entry where id = any($1::uuid[])')
const knownAssets = sql<{ id: string }>('select id from stoa.asset where id = any($1::uuid[])')

type Parts = {
  readonly site: Pick<Site, 'database' | 'content' | 'media' | 'access' | 'logger'>
  readonly bulk: Bulk
  readonly call: Call
}
type Console = { readonly report: Report; readonly output: Output; readonly signal: AbortSignal }

export type ArchiveOptions = {
  readonly dryRun: boolean
  /** Roles of this site that differ from those of the archive become as those are. */
  readonly replaceRoles: boolean
}

/**
 * Imports what `exportSite` wrote. All of it is read and checked first; if anything is wrong,
 * nothing is written. Then it is written batch by batch, and can be stopped and run again. Into an
 * empty database, the result exports to the same bytes.
 */
export async function importArchive(
  source: ArchiveSource,
  parts: Parts,
  options: ArchiveOptions,
  console: Console,
): Promise<void> {
  const { content } = parts.site
  const { archive } = content
  const survey = await surveyArchive(source, archive, console.report, console.signal)
  if (survey === null) return console.report.interrupted()
  const absent = await countAbsent(survey, parts, console.report)
  const isEmpty = (await content.types.list(parts.site.database)).length === 0
  await plan(survey, parts, console)
  const roles = await planRoles(survey.roles, parts, { ...options, isEmpty }, console.report)
  const wrong = await tryRoles(roles, parts, console.report)
  if (survey.faults + absent + wrong > 0)
    return console.output.line('Nothing was written: the archive has faults.')
  if (options.dryRun) return console.output.line('Nothing was written: this was a dry run.')
  await saveLocales(survey.locales, parts, { isEmpty, report: console.report })
  // Before the types: a filter that does not fit its type any more matches nothing, and stays.
  await saveRoles(roles, parts, console.report)
  await parts.site.database.transaction((tx) =>
    saveTypes(content, tx, survey.types, { allowLoss: false }),
  )
  for (const [type, ids] of survey.entries) {
    for (let at = 0; at < ids.length; at += idsPerStatement)
      await parts.bulk.reserve(parts.call, type, ids.slice(at, at + idsPerStatement))
  }
  await new Writer(parts, archive, survey, console).run(source)
  if (console.signal.aborted) console.report.interrupted()
}

/** References that lead neither into the archive nor into the database. */
async function countAbsent(survey: ArchiveSurvey, parts: Parts, report: Report): Promise<number> {
  let absent = 0
  for (const [what, ids, statement] of [
    ['entry', survey.missingEntries, knownEntries],
    ['asset', survey.missingAssets, knownAssets],
  ] as const) {
    const all = [...ids]
    for (let at = 0; at < all.length; at += idsPerStatement) {
      const some = all.slice(at, at + idsPerStatement)
      const known = new Set((await parts.site.database.run(statement, [some])).map((row) => row.id))
      for (const id of some.filter((one) => !known.has(one))) {
        absent += 1
        report.refuse(
          'references',
          id,
          `The archive refers to this ${what}, which is neither in it nor in the database.`,
        )
      }
    }
  }
  return absent
}

async function plan(
  survey: ArchiveSurvey,
  { site }: Parts,
  { report, output }: Console,
): Promise<void> {
  const plans = await planTypes(
    site.content,
    site.database,
    survey.types,
    async (definition, made) => {
      try {
        return await made()
      } catch (error) {
        if (!(error instanceof StoaError) || !error.code.startsWith('E_TYPE_')) throw error
        throw new ImportPlanError(
          `types/${definition.name}.json: ${error.message}`,
          { type: definition.name, ...error.facts },
          { cause: error },
        )
      }
    },
  )
  const outcome = { create: 'made', update: 'changed', none: 'unchanged' } as const
  for (const [index, { change, steps }] of plans.entries()) {
    const { name } = survey.types[index]!
    report.count('types', outcome[change])
    const losing = steps.filter((step) => step.losesData)
    if (losing.length > 0)
      throw new ImportPlanError(
        `The type "${name}" of the archive would lose values that entries here have: ` +
          `${losing.map((step) => step.name).join(', ')}. Nothing was written.`,
        { type: name },
      )
    for (const step of change === 'update' ? steps : [])
      output.line(
        `Type ${name}: ${step.what} ${step.name}${step.note === '' ? '' : `: ${step.note}`}`,
      )
  }
}

/**
 * First without fallbacks, because those may come in any order. A locale that only an empty
 * database has goes.
 */
async function saveLocales(
  locales: readonly Locale[],
  { site }: Parts,
  options: { readonly isEmpty: boolean; readonly report: Report },
): Promise<void> {
  const { content, database } = site
  await database.transaction(async (tx) => {
    const before = await content.locales.list(tx)
    const same = (locale: Locale): boolean =>
      before.some(
        (one) =>
          one.code === locale.code &&
          one.fallback === locale.fallback &&
          one.isDefault === locale.isDefault,
      )
    for (const locale of locales) {
      const there = before.some((one) => one.code === locale.code)
      const outcome = there ? 'changed' : 'made'
      options.report.count('locales', same(locale) ? 'unchanged' : outcome)
      if (!there) await content.locales.save(tx, { ...locale, fallback: null, isDefault: false })
    }
    const changed = locales
      .filter((locale) => !same(locale))
      .toSorted((left, right) => Number(right.isDefault) - Number(left.isDefault))
    for (const locale of changed) await content.locales.save(tx, locale)
    if (!options.isEmpty) return
    for (const { code } of before)
      if (!locales.some((locale) => locale.code === code)) await content.locales.delete(tx, code)
  })
}

/**
 * Returns the roles that are written. One that exists and differs says what people may do on this
 * site: it is replaced only where the caller says so, or where the site is empty.
 */
async function planRoles(
  roles: readonly Role[],
  { site }: Parts,
  options: ArchiveOptions & { readonly isEmpty: boolean },
  report: Report,
): Promise<PlannedRole[]> {
  const existing = new Map((await site.access.roles.list()).map((role) => [role.name, role]))
  const written: PlannedRole[] = []
  for (const role of roles) {
    const before = existing.get(role.name)
    if (before !== undefined && isDeepStrictEqual(plain(before), plain(role)))
      report.count('roles', 'unchanged')
    else if (before === undefined || options.isEmpty || options.replaceRoles) {
      if (before !== undefined && !options.isEmpty)
        report.remark('role', role.name, 'It differs from that of this site and replaces it.')
      written.push({ role, isNew: before === undefined })
    } else
      report.leaveOut(
        'role',
        role.name,
        'It differs from that of this site, which stays; --replace-roles replaces it.',
      )
  }
  return written
}

type PlannedRole = { readonly role: Role; readonly isNew: boolean }

/** Saves a role in a transaction; the reason if that is refused, null if it was saved. */
async function saveRole({ site }: Parts, tx: Queryable, role: Role): Promise<string | null> {
  const { builtIn: _builtIn, ...input } = role
  try {
    await tx.transaction((inner) =>
      site.access.roles.save(inner, site.access.systemIdentity, input),
    )
    return null
  } catch (error) {
    if (!(error instanceof StoaError) || error.code.startsWith('E_DATABASE_')) throw error
    return error.message
  }
}

class RolledBack extends Error {}

/** Refuses the roles that cannot be saved, and writes nothing. Returns how many. */
async function tryRoles(
  roles: readonly PlannedRole[],
  parts: Parts,
  report: Report,
): Promise<number> {
  let refused = 0
  const trying = parts.site.database.transaction(async (tx) => {
    for (const { role } of roles) {
      const reason = await saveRole(parts, tx, role)
      if (reason === null) continue
      refused += 1
      report.refuse('roles', role.name, reason)
    }
    throw new RolledBack()
  })
  await trying.catch((error: unknown) => {
    if (!(error instanceof RolledBack)) throw error
  })
  return refused
}

async function saveRoles(
  roles: readonly PlannedRole[],
  parts: Parts,
  report: Report,
): Promise<void> {
  for (const { role, isNew } of roles) {
    const reason = await saveRole(parts, parts.site.database, role)
    if (reason === null) report.count('roles', isNew ? 'made' : 'changed')
    else report.refuse('roles', role.name, reason)
  }
}

function plain(value: unknown): unknown {
  return JSON.parse(JSON.stringify(sorted(value)))
}

class Writer {
  readonly #parts: Parts
  readonly #archive: Archive
  readonly #survey: ArchiveSurvey
  readonly #console: Console
  #batch: ArchivedEntry[] = []
  /** Entries that were refused, by type. */
  readonly #refused = new Map<string, string[]>()
  #done = 0

  constructor(parts: Parts, archive: Archive, survey: ArchiveSurvey, console: Console) {
    this.#parts = parts
    this.#archive = archive
    this.#survey = survey
    this.#console = console
  }

  async run(source: ArchiveSource): Promise<void> {
    const progress = this.#console.output.progress('Entries')
    const total = [...this.#survey.entries.values()].reduce((sum, ids) => sum + ids.length, 0)
    for await (const file of source.files()) {
      if (this.#console.signal.aborted) break
      if (file.path.startsWith('blobs/'))
        await this.#blob(file.path.slice('blobs/'.length), file.stream)
      else if (file.path.startsWith('entries/'))
        await this.#entry(JSON.parse(await file.text()) as ArchivedEntry)
      else if (file.path.startsWith('releases/'))
        await this.#release(JSON.parse(await file.text()) as ArchivedRelease)
      progress.update(this.#done, total)
    }
    await this.#flush()
    await this.#releaseRefused()
    progress.end(`${this.#done} entries`)
  }

  /** Deletes entries that were refused and have no content; one that others refer to stays. */
  async #releaseRefused(): Promise<void> {
    const { bulk, call } = this.#parts
    for (const [type, ids] of this.#refused) {
      const released = new Set(await bulk.release(call, type, ids))
      for (const id of ids.filter((one) => !released.has(one)))
        this.#console.report.leaveOut(
          'entries',
          `${type}/${id}`,
          'It was refused, and other entries refer to it: it stays as it was, or without content.',
        )
    }
  }

  /** The bytes are stored once, and every asset that is made of them and not there yet is made. */
  async #blob(blob: string, open: () => Readable): Promise<void> {
    const { site } = this.#parts
    const assets = this.#survey.assets.get(blob) ?? []
    const known = new Set(
      (await site.database.run(knownAssets, [assets.map((asset) => asset.id)])).map(
        (row) => row.id,
      ),
    )
    const missing = assets.filter((asset) => !known.has(asset.id))
    this.#console.report.count('assets', 'unchanged', assets.length - missing.length)
    const [first] = missing
    if (first === undefined) return
    try {
      const received = await site.media.receive(site.access.systemIdentity.authority.actor, {
        name: first.name,
        source: open(),
        signal: this.#console.signal,
      })
      for (const asset of missing) {
        await site.media.restore(site.database, asset, { ...received, name: asset.name })
        this.#console.report.count('assets', 'made')
      }
    } catch (error) {
      if (this.#console.signal.aborted) return
      if (!(error instanceof StoaError) || error.code.startsWith('E_DATABASE_')) throw error
      for (const asset of missing) this.#console.report.refuse('assets', asset.name, error.message)
    }
  }

  async #entry(entry: ArchivedEntry): Promise<void> {
    if (
      this.#batch.length >= entriesPerBatch ||
      (this.#batch[0] !== undefined && this.#batch[0].type !== entry.type)
    )
      await this.#flush()
    this.#batch.push(entry)
  }

  async #flush(): Promise<void> {
    const batch = this.#batch
    this.#batch = []
    const [first] = batch
    if (first === undefined) return
    const outcomes = await this.#archive.restore(this.#parts.call, first.type, batch)
    outcomes.forEach((result, index) => {
      const { id } = batch[index]!
      if (result.outcome === 'refused') {
        this.#console.report.refuse('entries', `${first.type}/${id}`, result.reason)
        this.#refused.set(first.type, [...(this.#refused.get(first.type) ?? []), id])
      } else this.#console.report.count('entries', result.outcome)
    })
    this.#done += batch.length
  }

  async #release(release: ArchivedRelease): Promise<void> {
    await this.#flush()
    const result = await this.#archive.restoreRelease(this.#parts.call, release)
    if (result.outcome === 'refused')
      this.#console.report.refuse('releases', release.name, result.reason)
    else this.#console.report.count('releases', result.outcome)
  }
}
