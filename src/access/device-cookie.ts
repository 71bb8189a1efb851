import { createHmac, randomBytes, timingSafeEqual } from 'node:crypto'

/**
 * A browser that has signed in to an account keeps a signed cookie that says so, and has a budget
 * of its own for wrong passwords: attempts of strangers at the account do not close it. The cookie
 * gives no access. After OWASP's "Slow Down Online Guessing Attacks with Device Cookies".
 */
const nonceBytes = 16
const pattern = /^([0-9a-f-]{36})\.([A-Za-z0-9_-]{22})\.([A-Za-z0-9_-]{43})$/

export function newDeviceCookie(userId: string, secret: string): string {
  const nonce = randomBytes(nonceBytes).toString('base64url')
  return `${userId}.${nonce}.${signature(userId, nonce, secret).toString('base64url')}`
}

/** The device that a cookie names; null: the cookie was not made for this account. */
export function deviceOf(
  cookie: string | null,
  userId: string | null,
  secret: string,
): string | null {
  const [, owner = '', nonce = '', signed = ''] = pattern.exec(cookie ?? '') ?? []
  if (userId === null || owner !== userId) return null
  const right = timingSafeEqual(Buffer.from(signed, 'base64url'), signature(owner, nonce, secret))
  return right ? nonce : null
}

function signature(userId: string, nonce: string, secret: string): Buffer {
  return createHmac('sha256', secret).update(`stoa device\0${userId}\0${nonce}`).digest()
}
