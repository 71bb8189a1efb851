/** A bucket, or a folder of one, as `STOA_FILES_URL` names it. */
export type S3Place = {
  readonly bucket: string
  /** Before each key: empty, or ends with a slash. */
  readonly prefix: string
  /** Null: Amazon's own for the region. */
  readonly endpoint: string | null
  readonly region: string
  /** The bucket is in the path of each request, not in the host name. */
  readonly pathStyle: boolean
  /** Null: those that the SDK finds by itself: `AWS_*`, a profile, or the role of the machine. */
  readonly credentials: { readonly accessKeyId: string; readonly secretAccessKey: string } | null
  /** Where browsers reach the bucket; null: they get every file from the nodes. */
  readonly publicEndpoint: string | null
}

const parameters = ['endpoint', 'region', 'pathStyle', 'publicEndpoint'] as const
const regionDefault = 'us-east-1'
const form = 's3://[KEY:SECRET@]BUCKET[/FOLDER][?endpoint=https://HOST&region=REGION]'

/** Throws an error whose message says what is allowed. */
export function parseS3Url(text: string): S3Place {
  let url: URL
  try {
    url = new URL(text)
  } catch {
    throw new Error(`must have the form ${form}; write special characters of SECRET as %XX`)
  }
  const unknown = [...url.searchParams.keys()].find(
    (name) => !parameters.includes(name as (typeof parameters)[number]),
  )
  if (unknown !== undefined)
    throw new Error(`has the parameter ${unknown}; there are ${parameters.join(', ')}`)
  const bucket = url.hostname
  if (url.protocol !== 's3:' || !/^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$/.test(bucket) || url.port)
    throw new Error(`must name a bucket, 3 to 63 small letters, digits, dots and dashes: ${form}`)
  const endpoint = originOf(url, 'endpoint')
  const pathStyle = url.searchParams.get('pathStyle') ?? String(endpoint !== null)
  if (pathStyle !== 'true' && pathStyle !== 'false')
    throw new Error('has a pathStyle that is neither true nor false')
  const folder = decode(url.pathname).replace(/^\/+|\/+$/g, '')
  return {
    bucket,
    prefix: folder === '' ? '' : `${folder}/`,
    endpoint,
    region: url.searchParams.get('region') ?? regionDefault,
    pathStyle: pathStyle === 'true',
    credentials: credentialsOf(url),
    publicEndpoint: originOf(url, 'publicEndpoint'),
  }
}

function credentialsOf({ username, password }: URL): S3Place['credentials'] {
  if (username === '' && password === '') return null
  if (username === '' || password === '')
    throw new Error('must have both KEY and SECRET before the @, or neither')
  return { accessKeyId: decode(username), secretAccessKey: decode(password) }
}

function originOf(url: URL, name: string): string | null {
  const text = url.searchParams.get(name)
  if (text === null) return null
  if (!/^https?:\/\/[^/?#@\s]+\/?$/.test(text) || !URL.canParse(text))
    throw new Error(`has an ${name} that is not of the form https://HOST or http://HOST:PORT`)
  return new URL(text).origin
}

function decode(text: string): string {
  try {
    return decodeURIComponent(text)
  } catch {
    throw new Error('has a % that is not followed by two hexadecimal digits; write it as %25')
  }
}
