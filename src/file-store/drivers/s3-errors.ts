import { FileStoreUnavailableError } from '#file-store/errors.ts'
import type { S3Place } from '#lib/s3-url.ts'

/** The code that the storage gave, or that of the network or the SDK. */
export function codeOf(error: unknown): string {
  if (!(error instanceof Error)) return ''
  const { code, Code } = error as { readonly code?: unknown; readonly Code?: unknown }
  if (typeof Code === 'string') return Code
  return typeof code === 'string' ? code : error.name
}

export function statusOf(error: unknown): number | null {
  const metadata = (error as { readonly $metadata?: { readonly httpStatusCode?: number } })
    .$metadata
  return metadata?.httpStatusCode ?? null
}

/** A response without a body, as to HEAD, has no code but the one that the SDK gives to 404. */
const missingCodes: ReadonlySet<string> = new Set(['NoSuchKey', 'NoSuchUpload', 'NotFound'])

/** Nothing has this key. A bucket, or a user, that is missing is something else. */
export function isMissing(error: unknown): boolean {
  return missingCodes.has(codeOf(error))
}

export function addressOf({ bucket, prefix, endpoint, region }: S3Place): string {
  const folder = prefix === '' ? '' : `/${prefix.slice(0, -1)}`
  return `s3://${bucket}${folder} (${endpoint ?? region})`
}

/** The rights that a key needs, for the message of a refusal. */
const rights =
  's3:GetObject, s3:PutObject, s3:DeleteObject, s3:ListBucket, s3:AbortMultipartUpload, ' +
  's3:ListMultipartUploadParts and s3:ListBucketMultipartUploads'

const wrongKey =
  'the key or its secret is wrong; correct them in STOA_FILES_URL, or AWS_ACCESS_KEY_ID and ' +
  'AWS_SECRET_ACCESS_KEY'
const noKey =
  'there is no key; write KEY:SECRET@ into STOA_FILES_URL, or set AWS_ACCESS_KEY_ID and ' +
  'AWS_SECRET_ACCESS_KEY'
const otherRegion = 'the bucket is in another region; set region= in STOA_FILES_URL'
const notReached =
  'it cannot be reached; see that the endpoint in STOA_FILES_URL is right and that it runs'

const reasons: Readonly<Record<string, string>> = {
  InvalidAccessKeyId: wrongKey,
  SignatureDoesNotMatch: wrongKey,
  XAdminUserNotFound: wrongKey,
  InvalidToken: 'the session token is wrong; renew AWS_SESSION_TOKEN',
  ExpiredToken: 'the session token has expired; renew AWS_SESSION_TOKEN',
  CredentialsProviderError: noKey,
  NoSuchBucket: 'there is no such bucket; make it, or correct STOA_FILES_URL',
  AccessDenied: `the key may not do that; it needs the rights ${rights}`,
  AllAccessDisabled: `the key may not do that; it needs the rights ${rights}`,
  RequestTimeTooSkewed:
    'the clock of this machine and that of the storage are too far apart; run an NTP service on ' +
    'both',
  PermanentRedirect: otherRegion,
  AuthorizationHeaderMalformed: otherRegion,
  IllegalLocationConstraintException: otherRegion,
  QuotaExceeded: 'it is full; raise the quota, or make room',
  XMinioStorageFull: 'it is full; make room',
  SlowDown: 'it asks for fewer requests; try again',
  ECONNREFUSED: notReached,
  ENOTFOUND: notReached,
  EAI_AGAIN: notReached,
  EHOSTUNREACH: notReached,
  ETIMEDOUT: notReached,
  TimeoutError:
    'it does not respond in time; see that it runs and that the network lets us through',
}

/** Refusals whose response has no body, and so no code of their own. */
const reasonsByStatus: Readonly<Record<number, string>> = {
  301: otherRegion,
  403: `the key, its secret or its rights are wrong; it needs ${rights}`,
  507: 'it is full; make room',
}

/** An error of the SDK or the network as one that says what to do; errors of Stoa stay. */
export function unavailable(place: S3Place, error: unknown): FileStoreUnavailableError {
  if (error instanceof FileStoreUnavailableError) return error
  const code = codeOf(error)
  const status = statusOf(error)
  const reason =
    reasons[code] ?? reasonsByStatus[status ?? 0] ?? `it says ${code || 'nothing'}; try again`
  return new FileStoreUnavailableError(
    `The file store ${addressOf(place)} cannot be used: ${reason}.`,
    { reason: code, status },
    { cause: error },
  )
}
