import type { Locale, Locales } from '#content/content.ts'
import { atomically } from '#content/context.ts'
import { LocaleInUseError, LocaleInvalidError, LocaleNotFoundError } from '#content/errors.ts'
import { sql } from '#database/database.ts'
import type { Queryable } from '#database/database.ts'

/** Each locale of a chain costs a list one more index scan. */
const fallbacksMax = 5
const localesMax = 200

const codePattern = /^[a-z]{2,3}(-[A-Za-z0-9]{2,8})*$/
const codeLengthMax = 35

type Row = { readonly code: string; readonly fallback: string | null; readonly is_default: boolean }

const listLocales = sql<Row>(
  `select code, fallback, is_default from stoa.locale order by is_default desc, code`,
)
/** Writers of locales queue for the model's row: a cycle could otherwise be made by two at once. */
const lockModel = sql<object>(`select 1 from stoa.model for no key update`)
const clearDefault = sql<object>(
  `update stoa.locale set is_default = false where is_default and code <> $1`,
)
const upsert = sql<object>(`
  insert into stoa.locale (code, fallback, is_default) values ($1, $2, $3)
  on conflict (code) do update set fallback = excluded.fallback, is_default = excluded.is_default`)
const lockVersions = sql<object>(`lock table stoa.version in share row exclusive mode`)
const versionOfLocale = sql<object>(`select 1 from stoa.version where locale = $1 limit 1`)
const remove = sql<object>(`delete from stoa.locale where code = $1`)

async function read(db: Queryable): Promise<Locale[]> {
  return (await db.run(listLocales)).map((row) => ({
    code: row.code,
    fallback: row.fallback,
    isDefault: row.is_default,
  }))
}

function check(locale: Locale, all: readonly Locale[]): void {
  if (!codePattern.test(locale.code) || locale.code.length > codeLengthMax) {
    throw new LocaleInvalidError(
      'A locale is named by its language tag, such as "en", "pt-BR" or "zh-Hant".',
      { locale: locale.code.slice(0, 40) },
    )
  }
  const same = all.find((one) => one.code.toLowerCase() === locale.code.toLowerCase())
  if (same !== undefined && same.code !== locale.code)
    throw new LocaleInvalidError(
      `The locale "${locale.code}" is there already as "${same.code}": upper and lower case make ` +
        'no difference in a language tag. Change that one.',
      { locale: locale.code, existing: same.code },
    )
  const known = new Map([...all.map((one) => [one.code, one] as const), [locale.code, locale]])
  if (known.size > localesMax)
    throw new LocaleInvalidError(`There can be at most ${localesMax} locales.`, {
      code: locale.code,
    })
  const before = all.find((one) => one.code === locale.code)
  if (!locale.isDefault && before?.isDefault === true)
    throw new LocaleInvalidError('One locale is the default: make another the default instead.', {
      code: locale.code,
    })
  for (const start of known.values()) {
    const seen = new Set<string>()
    for (
      let at: Locale | undefined = start;
      at !== undefined;
      at = at.fallback === null ? undefined : known.get(at.fallback)
    ) {
      if (at.fallback !== null && !known.has(at.fallback))
        throw new LocaleNotFoundError(at.fallback)
      if (seen.has(at.code))
        throw new LocaleInvalidError(
          `The fallbacks of "${start.code}" lead back to "${at.code}".`,
          { locale: locale.code },
        )
      seen.add(at.code)
      if (seen.size > fallbacksMax + 1)
        throw new LocaleInvalidError(
          `A locale has at most ${fallbacksMax} fallbacks, one after the other.`,
          { locale: locale.code },
        )
    }
  }
}

export function createLocales(): Locales {
  return {
    list: read,
    save: (db, locale, precondition) =>
      atomically(db, async (tx) => {
        await tx.run(lockModel)
        const all = await read(tx)
        precondition?.(all.find((one) => one.code === locale.code) ?? null)
        check(locale, all)
        if (locale.isDefault) await tx.run(clearDefault, [locale.code])
        await tx.run(upsert, [locale.code, locale.fallback, locale.isDefault])
      }),
    delete: (db, code, precondition) =>
      atomically(db, async (tx) => {
        await tx.run(lockModel)
        const all = await read(tx)
        const locale = all.find((one) => one.code === code)
        if (locale === undefined) throw new LocaleNotFoundError(code)
        precondition?.(locale)
        if (locale.isDefault)
          throw new LocaleInUseError(
            'The default locale cannot be deleted: make another the default first.',
            { locale: code },
          )
        const dependent = all.find((one) => one.fallback === code)
        if (dependent !== undefined)
          throw new LocaleInUseError(
            `The locale "${dependent.code}" falls back to it: change that first.`,
            { locale: code, dependent: dependent.code },
          )
        // For a moment no version is written, so none can appear between the look and the deleting.
        await tx.run(lockVersions)
        if ((await tx.run(versionOfLocale, [code])).length > 0)
          throw new LocaleInUseError('Entries have versions in this locale.', { locale: code })
        await tx.run(remove, [code])
      }),
  }
}
