import type { ArchiveFile, ArchiveSource } from '#cli/export/archive-source.ts'
import { rankOf } from '#cli/export/archive-source.ts'
import { manifestName } from '#cli/export/archive-sink.ts'
import { formatVersion } from '#cli/export/export-site.ts'
import { ImportSourceError } from '#cli/import/errors.ts'
import type { Report } from '#cli/import/report.ts'
import type { Role } from '#access/access.ts'
import type { Archive, ArchivedEntry, ArchivedRelease } from '#content/bulk/archive.ts'
import type { ContentType } from '#content/content-type.ts'
import type { Locale } from '#content/content.ts'
import { isStorableText } from '#content/query/normal-form.ts'
import type { Asset } from '#media/media.ts'
import { isId } from '#lib/id.ts'

/**
 * What an archive holds, besides the content of its entries. Some 200 bytes for each entry and
 * asset.
 */
export type ArchiveSurvey = {
  readonly locales: readonly Locale[]
  readonly types: readonly ContentType[]
  readonly roles: readonly Role[]
  /** Assets by the blob that they are made of. */
  readonly assets: ReadonlyMap<string, readonly Asset[]>
  /** Ids of entries by type. */
  readonly entries: ReadonlyMap<string, readonly string[]>
  /** Referred to, and not in the archive: they must be in the database. */
  readonly missingEntries: ReadonlySet<string>
  readonly missingAssets: ReadonlySet<string>
  readonly faults: number
}

/**
 * Reads a whole archive and checks it, before anything is written: its form, that every value is of
 * its type, and that what is referred to is there. Each fault is refused in the report. Throws
 * `ImportSourceError` for what is no archive. Null when aborted.
 */
export async function surveyArchive(
  source: ArchiveSource,
  archive: Archive,
  report: Report,
  signal: AbortSignal,
): Promise<ArchiveSurvey | null> {
  const survey = new Survey(archive, report)
  for await (const file of source.files()) {
    if (signal.aborted) return null
    if (survey.isEmpty && file.path !== manifestName)
      throw new ImportSourceError(
        `${source.name} is no export: it does not begin with ${manifestName}.`,
        { source: source.name },
      )
    await survey.take(file)
  }
  if (survey.isEmpty)
    throw new ImportSourceError(`${source.name} is no export: it has no ${manifestName}.`, {
      source: source.name,
    })
  return survey.result()
}

class Survey {
  readonly #archive: Archive
  readonly #report: Report
  #begun = false
  #faults = 0
  #locales: readonly Locale[] = []
  readonly #types = new Map<string, ContentType>()
  readonly #roles: Role[] = []
  readonly #blobs = new Set<string>()
  readonly #assets = new Map<string, Asset[]>()
  readonly #assetIds = new Set<string>()
  readonly #entries = new Map<string, string[]>()
  readonly #entryIds = new Set<string>()
  readonly #wanted = { entries: new Set<string>(), assets: new Set<string>() }

  constructor(archive: Archive, report: Report) {
    this.#archive = archive
    this.#report = report
  }

  get isEmpty(): boolean {
    return !this.#begun
  }

  async take(file: ArchiveFile): Promise<void> {
    const { path } = file
    if (rankOf(path) < 0) return this.#fault('files', path, 'The format has no such file.')
    if (path.startsWith('blobs/')) {
      this.#blobs.add(path.slice('blobs/'.length))
      return
    }
    const value = parse(await file.text())
    if (value === undefined) return this.#fault('files', path, 'It is not JSON.')
    if (path === manifestName) this.#manifest(value)
    else if (path === 'locales.json') this.#takeLocales(path, value)
    else this.#object(path, value)
  }

  #manifest(value: unknown): void {
    const { format, version } = (value ?? {}) as { format?: unknown; version?: unknown }
    if (format !== 'stoa-export')
      throw new ImportSourceError(`${manifestName} is not of an export of Stoa.`, {})
    if (version !== formatVersion)
      throw new ImportSourceError(
        `The export has format version ${String(version)}; this Stoa reads version ` +
          `${formatVersion}. Use the Stoa that wrote it, or a newer one.`,
        {},
      )
    this.#begun = true
  }

  #takeLocales(path: string, value: unknown): void {
    const isLocale = (one: unknown): one is Locale =>
      typeof one === 'object' &&
      one !== null &&
      typeof (one as Locale).code === 'string' &&
      isNullOr(isText, (one as Locale).fallback) &&
      typeof (one as Locale).isDefault === 'boolean'
    if (
      !Array.isArray(value) ||
      !value.every(isLocale) ||
      value.filter((locale) => locale.isDefault).length !== 1
    )
      return this.#fault('files', path, 'It is no list of locales with one default.')
    this.#locales = value
  }

  #object(path: string, value: unknown): void {
    if (typeof value !== 'object' || value === null || Array.isArray(value))
      return this.#fault('files', path, 'It is no object.')
    const [folder = '', ...names] = path.replace(/\.json$/, '').split('/')
    const name = names.at(-1) ?? ''
    const own =
      folder === 'types' || folder === 'roles'
        ? (value as { name?: unknown }).name
        : (value as { id?: unknown }).id
    if (own !== name) return this.#fault('files', path, 'Its name is not that of what is in it.')
    if (folder === 'types') this.#type(path, value as ContentType)
    else if (folder === 'roles') this.#roles.push(value as Role)
    else if (folder === 'assets') this.#asset(path, value as Asset)
    else if (folder === 'entries') this.#entry(path, names[0] ?? '', value as ArchivedEntry)
    else this.#release(path, value as ArchivedRelease)
  }

  #type(path: string, type: ContentType): void {
    if (!Array.isArray(type.fields)) this.#fault('types', path, 'It has no fields.')
    else this.#types.set(type.name, type)
  }

  #asset(path: string, asset: Asset): void {
    const isAsset =
      isId(asset.id) &&
      isText(asset.name) &&
      isTime(asset.createdAt) &&
      isActor(asset.createdBy) &&
      isCount(asset.revision) &&
      typeof asset.alt === 'object' &&
      asset.alt !== null
    if (!isAsset) return this.#fault('assets', path, 'It is no asset.')
    if (!this.#blobs.has(asset.blob))
      return this.#fault('assets', path, 'Its bytes are not in the archive.')
    this.#assetIds.add(asset.id)
    const same = this.#assets.get(asset.blob)
    if (same === undefined) this.#assets.set(asset.blob, [asset])
    else same.push(asset)
  }

  #entry(path: string, typeName: string, entry: ArchivedEntry): void {
    const type = this.#types.get(typeName)
    if (type === undefined || entry.type !== typeName)
      return this.#fault(
        'entries',
        path,
        `The type "${typeName}" is not in the archive, or not the type of the entry.`,
      )
    const shape = shapeFault(entry, new Set(this.#locales.map((locale) => locale.code)))
    if (shape !== null) return this.#fault('entries', path, shape)
    if (this.#entryIds.has(entry.id))
      return this.#fault('entries', path, 'Another entry has the same id.')
    const { faults, entries, assets } = this.#check(path, type, entry)
    for (const fault of faults) this.#fault('entries', path, fault)
    for (const id of entries) this.#wanted.entries.add(id)
    for (const id of assets) if (!this.#assetIds.has(id)) this.#wanted.assets.add(id)
    this.#entryIds.add(entry.id)
    const ids = this.#entries.get(typeName)
    if (ids === undefined) this.#entries.set(typeName, [entry.id])
    else ids.push(entry.id)
  }

  #check(path: string, type: ContentType, entry: ArchivedEntry): ReturnType<Archive['check']> {
    try {
      return this.#archive.check(type, entry)
    } catch (error) {
      // A definition that is no definition: the types are checked by themselves before anything is
      // written.
      return {
        faults: [`The type of ${path} cannot be read: ${messageOf(error)}`],
        entries: [],
        assets: [],
      }
    }
  }

  #release(path: string, release: ArchivedRelease): void {
    const fault = releaseFault(release, new Set(this.#locales.map((locale) => locale.code)))
    if (fault !== null) return this.#fault('releases', path, fault)
    for (const item of release.items) this.#wanted.entries.add(item.entryId)
  }

  #fault(what: string, path: string, reason: string): void {
    this.#faults += 1
    this.#report.refuse(what, path, reason)
  }

  result(): ArchiveSurvey {
    const missingEntries = new Set(
      [...this.#wanted.entries].filter((id) => !this.#entryIds.has(id)),
    )
    return {
      locales: this.#locales,
      types: [...this.#types.values()],
      roles: this.#roles,
      assets: this.#assets,
      entries: this.#entries,
      missingEntries,
      missingAssets: this.#wanted.assets,
      faults: this.#faults,
    }
  }
}

/** The largest number that the database has room for. */
const countMax = 2_147_483_647

const time = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/

function isTime(value: unknown): boolean {
  // For the database there is no year 0.
  return (
    typeof value === 'string' &&
    time.test(value) &&
    !Number.isNaN(Date.parse(value)) &&
    !value.startsWith('0000')
  )
}

function isText(value: unknown): boolean {
  return typeof value === 'string' && isStorableText(value)
}

function isCount(value: unknown): boolean {
  return Number.isSafeInteger(value) && Number(value) >= 1 && Number(value) <= countMax
}

function isNullOr(is: (value: unknown) => boolean, value: unknown): boolean {
  return value === null || is(value)
}

function isActor(value: unknown): boolean {
  if (typeof value !== 'object' || value === null) return false
  const { kind, id, name } = value as { kind?: unknown; id?: unknown; name?: unknown }
  return (
    ['anonymous', 'user', 'token', 'system'].includes(String(kind)) &&
    isNullOr(isText, id) &&
    isText(name)
  )
}

/** Why this is no entry of an archive; null: it is one. */
function shapeFault(entry: ArchivedEntry, locales: ReadonlySet<string>): string | null {
  if (!isId(entry.id)) return 'Its id is no UUID in small letters.'
  if (
    !isTime(entry.createdAt) ||
    !isActor(entry.createdBy) ||
    !(entry.archivedAt === null || isTime(entry.archivedAt))
  )
    return 'It does not say when and by whom it was made.'
  if (typeof entry.locales !== 'object' || entry.locales === null || !Array.isArray(entry.schedule))
    return 'It has no locales or no schedule.'
  for (const [locale, versions] of Object.entries(entry.locales)) {
    if (!locales.has(locale)) return `The locale ${locale} is not in the archive.`
    if (!Array.isArray(versions)) return `The locale ${locale} has no list of versions.`
    for (const version of versions) {
      const dates =
        isTime(version?.createdAt) &&
        isTime(version.savedAt) &&
        [version.publishedAt, version.firstPublishedAt].every((at) => at === null || isTime(at))
      const makers =
        dates &&
        isActor(version.savedBy) &&
        (version.publishedBy === null || isActor(version.publishedBy))
      const flags =
        makers && typeof version.latest === 'boolean' && typeof version.published === 'boolean'
      if (!flags || !isCount(version.number)) return `A version in ${locale} is not complete.`
      if (entry.archivedAt !== null && version.published)
        return `It is archived and has a published version in ${locale}.`
      if (
        typeof version.fields !== 'object' ||
        version.fields === null ||
        Array.isArray(version.fields)
      )
        return `Version ${version.number} in ${locale} has no fields.`
    }
  }
  const isAction = (action: ArchivedEntry['schedule'][number]): boolean =>
    isId(action?.id) &&
    isTime(action.dueAt) &&
    isTime(action.createdAt) &&
    isActor(action.createdBy) &&
    locales.has(action.locale) &&
    ['publish', 'unpublish'].includes(action.action) &&
    isNullOr(isCount, action.version)
  return entry.schedule.every(isAction) ? null : 'An action of its schedule is not complete.'
}

/** Why this is no release of an archive; null: it is one. */
function releaseFault(release: ArchivedRelease, locales: ReadonlySet<string>): string | null {
  if (!isId(release.id) || !isText(release.name) || !Array.isArray(release.items))
    return 'It is no release.'
  const made =
    isTime(release.createdAt) &&
    isActor(release.createdBy) &&
    isNullOr(isTime, release.publishedAt) &&
    isNullOr(isActor, release.publishedBy)
  if (!made || !['open', 'published', 'undone'].includes(release.state))
    return 'It does not say when and by whom it was made, or which state it is in.'
  const isItem = (item: ArchivedRelease['items'][number]): boolean => {
    const place =
      typeof item === 'object' && item !== null && isId(item.entryId) && locales.has(item.locale)
    const before =
      place && isNullOr(isCount, item.versionBefore) && isNullOr(isTime, item.publishedBefore)
    return (
      before &&
      (item.action === 'publish'
        ? isCount(item.version)
        : item.action === 'unpublish' && item.version === null)
    )
  }
  if (!release.items.every(isItem)) return 'An item is not complete.'
  const places = new Set(release.items.map((item) => `${item.entryId} ${item.locale}`))
  return places.size === release.items.length ? null : 'It has an item twice.'
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    // The caller says which file it is.
    return undefined
  }
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}
