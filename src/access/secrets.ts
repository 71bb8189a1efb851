import { createHmac, hash, randomBytes } from 'node:crypto'
import { crc32 } from 'node:zlib'

/**
 * Every secret that Stoa hands out has 256 random bits, so a plain SHA-256 of it can be stored:
 * there is nothing to guess.
 */
const secretBytes = 32

const tokenPrefix = 'stoa_'
const digits = '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz'
/** 62^43 > 2^256, and 62^6 > 2^32. */
const bodyLength = 43
const checksumLength = 6
const tokenPattern = new RegExp(
  `^${tokenPrefix}([0-9A-Za-z]{${bodyLength}})([0-9A-Za-z]{${checksumLength}})$`,
)
const hintLength = 10

const sessionPattern = /^[A-Za-z0-9_-]{43}$/

export function newSecret(): string {
  return randomBytes(secretBytes).toString('base64url')
}

/** The database keeps this hash of a secret. */
export function hashSecret(secret: string): Buffer {
  return hash('sha256', secret, 'buffer')
}

/**
 * False for what cannot be a session's id (or a first administrator's secret), without asking the
 * database.
 */
export function looksLikeSecret(text: string): boolean {
  return sessionPattern.test(text)
}

/**
 * An API token: `stoa_`, 256 random bits in base 62, and their CRC-32 in base 62, so that scanners
 * recognise a leaked one and a mistyped one is refused without asking the database. No separators
 * inside: a double click selects all.
 */
export function newApiToken(): { token: string; hint: string } {
  const body = base62(BigInt(`0x${randomBytes(secretBytes).toString('hex')}`), bodyLength)
  const token = `${tokenPrefix}${body}${checksum(body)}`
  return { token, hint: token.slice(0, hintLength) }
}

export function looksLikeApiToken(text: string): boolean {
  const match = tokenPattern.exec(text)
  return match !== null && checksum(match[1]!) === match[2]
}

/**
 * Bound to the session by a key that only the nodes have, so it needs no column and a cookie's
 * thief by write cannot make one.
 */
export function csrfTokenOf(sessionCookie: string, secret: string): string {
  return createHmac('sha256', secret)
    .update('stoa csrf\0')
    .update(sessionCookie)
    .digest('base64url')
}

function checksum(body: string): string {
  return base62(BigInt(crc32(body)), checksumLength)
}

function base62(value: bigint, length: number): string {
  let text = ''
  for (let rest = value; text.length < length; rest /= 62n)
    text = digits[Number(rest % 62n)]! + text
  return text
}
