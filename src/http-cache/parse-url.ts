import { HttpCacheUrlError } from '#http-cache/errors.ts'

const pattern = /^([a-z]+):\/\/(?:[^:@/?#]*:([^@/?#]*)@)?([^@/?#]+)\/?(?:\?([^#]*))?$/

/** The setting, taken apart. Which driver it names is decided by its scheme. */
export type HttpCacheUrl = {
  readonly scheme: string
  readonly password: string
  /** The part between the password and the query, cut at commas. */
  readonly hosts: readonly string[]
  readonly options: ReadonlyMap<string, string>
}

/** `allowed`: options by scheme. Errors: `HttpCacheUrlError`. */
export function parseHttpCacheUrl(
  url: string,
  allowed: Readonly<Record<string, readonly string[]>>,
): HttpCacheUrl {
  const match = pattern.exec(url)
  const [, scheme = '', password = '', authority = '', query = ''] = match ?? []
  const known = allowed[scheme]
  if (match === null || known === undefined)
    throw new HttpCacheUrlError(
      'STOA_HTTP_CACHE_URL must be like varnish://cache1:80,cache2:80, ' +
        'fastly://:TOKEN@SERVICE or cloudflare://:TOKEN@ZONE?plan=pro.',
    )
  const options = new Map(new URLSearchParams(query))
  for (const name of options.keys())
    if (!known.includes(name))
      throw new HttpCacheUrlError(
        `STOA_HTTP_CACHE_URL has the option "${name}"; ${scheme} knows ${known.join(', ')}.`,
        { option: name },
      )
  return { scheme, password: decodeURIComponent(password), hosts: authority.split(','), options }
}
