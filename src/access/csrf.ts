import { createHash, timingSafeEqual } from 'node:crypto'
import type { Identity } from '#access/access.ts'
import { CsrfError } from '#access/errors.ts'

/**
 * For unsafe methods: throws `CsrfError` when the identity came by session cookie and `header`
 * (`X-CSRF-Token`) is not its token. Nothing to check for API tokens and anonymous requests: a
 * foreign page cannot make a browser send those.
 */
export function requireCsrf(identity: Identity, header: string | null): void {
  if (identity.csrfToken === null) return
  if (header === null || !equalSecrets(header, identity.csrfToken)) throw new CsrfError()
}

/** Compares in a time that does not depend on where, or how much, they differ. */
function equalSecrets(left: string, right: string): boolean {
  const digest = (text: string): Buffer => createHash('sha256').update(text).digest()
  return timingSafeEqual(digest(left), digest(right))
}
