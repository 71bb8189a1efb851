/**
 * `Cache-Status` (RFC 9211) and `Age` of a response that may be out of date, because the database
 * could not be asked for `ageMs`.
 */
export function staleHeaders(ageMs: number): readonly [status: string, age: string] {
  const ageS = Math.ceil(ageMs / 1_000)
  return [`stoa; hit; ttl=-${ageS}; detail=stale`, String(ageS)]
}
