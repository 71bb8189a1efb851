import { hash } from 'node:crypto'
import type { FastifyRequest } from 'fastify'
import { RequestInvalidError } from '#api/problems/errors.ts'
import type { Expected } from '#content/content.ts'

/** A number that no version has: an `If-Match` which is not of ours can only fail. */
const neverAVersion = 0

/**
 * Tags are strong. Of a whole response: made from its bytes, so that they change with everything that
 * is visible. Of an entry: the version first, `"7-…"` in reads and `"7"` in answers to writes, and
 * `If-Match` takes either.
 */
export function tagOf(body: string | Buffer, version?: number): string {
  const digest = hash('sha1', body, 'base64url')
  return version === undefined ? `"${digest}"` : `"${version}-${digest}"`
}

/**
 * Of the same response compressed. A strong tag is that of one sequence of bytes (RFC 9110 §8.8.1);
 * this one matches it all the same, here and in `If-Match`.
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

/**
 * The version that `If-Match` names; null: no lock. A `W/` in front is let pass: proxies that
 * compress put it there, and the lock is by version, not by bytes.
 */
export function expectedVersion(request: FastifyRequest): Expected {
  const header = request.headers['if-match']
  if (header === undefined || header.trim() === '*') return null
  const tag = /^\s*(?:W\/)?"([\x21\x23-\x7e]*)"\s*$/.exec(header)?.[1]
  if (tag === undefined)
    throw new RequestInvalidError({
      in: 'headers',
      path: '/if-match',
      message: 'must be one entity tag in quotes, as ETag gave it, or *',
    })
  const version = /^(\d{1,9})(?:-.*)?$/.exec(tag)?.[1]
  return version === undefined ? neverAVersion : Number(version)
}
