import { hash } from 'node:crypto'
import type { FastifyRequest } from 'fastify'
import { PreconditionError, RequestInvalidError } from '#api/problems/errors.ts'
import type { EntryView, Expected, Precondition, SeenVersion } from '#content/content.ts'

/** One entity tag (RFC 9110 §8.8.3). */
const tagPattern = /^\s*(?:W\/)?"([\x21\x23-\x7e]*)"\s*$/

/**
 * The strong tag of a response, made from its bytes, so that it changes with everything that is
 * visible. For an entry the locale and version come first, `"en.7-…"` in reads and `"en.7"` after
 * writes; `If-Match` takes either.
 */
export function tagOf(body: string | Buffer, version?: string): string {
  const digest = hash('sha1', body, 'base64url')
  return version === undefined ? `"${digest}"` : `"${version}-${digest}"`
}

/**
 * The tag of the same response compressed. A strong tag is that of one sequence of bytes (RFC 9110
 * §8.8.1); this one matches it all the same, here and in `If-Match`.
 */
export function weakTag(tag: string): string {
  return tag.startsWith('W/') ? tag : `W/${tag}`
}

export function versionTag(version: number): string {
  return `"${version}"`
}

/**
 * True when `If-None-Match` holds the tag of the response: 304. Weak comparison (RFC 9110 §13.1.2).
 */
export function notModified(request: FastifyRequest, tag: string): boolean {
  return matchesTag(request.headers['if-none-match'], tag)
}

export function matchesTag(header: string | undefined, tag: string): boolean {
  if (header === undefined) return false
  if (header === tag || header.trim() === '*') return true
  return header.split(',').some((part) => part.trim().replace(/^W\//, '') === tag)
}

/** The tag of an entry in one locale, without what a read adds to it. */
export function entryTag({ locale, version }: EntryView): string {
  return `"${locale}.${version}"`
}

/** The tag of a value that is small: made of all that it is, so it changes with its life too. */
export function valueTag(value: object): string {
  return tagOf(JSON.stringify(value))
}

/**
 * The versions that `If-Match` names, or that `If-None-Match: *` asks to be absent; null: no lock.
 * A tag that no version has can only fail. A `W/` in front is accepted, since proxies that compress
 * put it there, and the lock is by version, not by bytes.
 */
export function expectedVersions(request: FastifyRequest): Expected {
  if (request.headers['if-none-match']?.trim() === '*') return 'absent'
  const tags = tagsIn(request)
  return tags === null ? null : { seen: tags.flatMap(seenVersion) }
}

function seenVersion(tag: string): SeenVersion[] {
  const [, locale = null, number] = /^(?:([A-Za-z0-9-]+)\.)?(\d{1,9})(?:-.*)?$/.exec(tag) ?? []
  return number === undefined ? [] : [{ locale, number: Number(number) }]
}

/** The revisions that `If-Match` names; null: no lock. */
export function expectedRevisions(request: FastifyRequest): readonly number[] | null {
  return tagsIn(request)?.map((tag) => Number(/^(\d{1,9})$/.exec(tag)?.[1] ?? 0)) ?? null
}

/**
 * The condition of `If-Match` and `If-None-Match` for a write to something with the tag `tagFor`,
 * to be checked under the lock of that write. `conflict` makes the error where `If-Match` fails.
 */
export function preconditionOf<Value>(
  request: FastifyRequest,
  tagFor: (current: Value) => string,
  conflict: (current: Value | null) => Error = (current) => changedMeanwhile(current, tagFor),
): Precondition<Value> {
  tagsIn(request)
  const { 'if-match': match, 'if-none-match': noneMatch } = request.headers
  return (current) => {
    if (match !== undefined && (current === null || !matchesTag(match, tagFor(current))))
      throw conflict(current)
    if (noneMatch !== undefined && current !== null && matchesTag(noneMatch, tagFor(current)))
      throw new PreconditionError('If-None-Match asks for it not to be there, and it is.')
  }
}

function changedMeanwhile<Value>(
  current: Value | null,
  tagFor: (current: Value) => string,
): PreconditionError {
  return new PreconditionError(
    current === null
      ? 'If-Match names something that is not there any more.'
      : `It was changed meanwhile: its tag is ${tagFor(current)} now. Read it again.`,
  )
}

/** The tags of `If-Match` without quotes; null: none, or `*`. */
function tagsIn({ headers }: FastifyRequest): string[] | null {
  const header = headers['if-match']
  if (header === undefined || header.trim() === '*') return null
  const tags = header.split(',').map((part) => tagPattern.exec(part)?.[1])
  if (tags.some((tag) => tag === undefined))
    throw new RequestInvalidError({
      in: 'headers',
      path: '/if-match',
      message: 'must be entity tags in quotes, as ETag gave them, separated by commas, or *',
    })
  return tags as string[]
}
