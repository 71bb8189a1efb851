import type { Persona } from '#test/support/site.ts'

/**
 * [what, METHOD url, status, code, options]; ID and OTHER are an entry that exists and an id that
 * does not.
 */
export type Options = {
  readonly body?: unknown
  readonly raw?: string | Buffer
  readonly headers?: Readonly<Record<string, string>>
  readonly as?: Persona
}
export type Bad = readonly [
  what: string,
  request: string,
  status: number,
  code: string,
  options?: Options,
]

export const json = { 'content-type': 'application/json' }

export const entry = (fields: unknown, more: object = {}): Options => ({
  body: { fields, ...more },
})

/** Bodies that are no JSON, or hold what JSON alone lets through. */
export const badJson: readonly Bad[] = [
  [
    'a body that ends too early',
    'POST /api/content/thing',
    400,
    'E_JSON_MALFORMED',
    { raw: '{"fields":', headers: json },
  ],
  [
    'a stray character',
    'POST /api/content/thing',
    400,
    'E_JSON_MALFORMED',
    { raw: '{"fields": oops}', headers: json },
  ],
  [
    'single quotes',
    'POST /api/content/thing',
    400,
    'E_JSON_MALFORMED',
    { raw: "{'fields':{}}", headers: json },
  ],
  [
    'a comma too many',
    'POST /api/content/thing',
    400,
    'E_JSON_MALFORMED',
    { raw: '{"fields":{},}', headers: json },
  ],
  [
    'bytes that are not UTF-8',
    'POST /api/content/thing',
    400,
    'E_JSON_MALFORMED',
    { raw: Buffer.from([0x7b, 0x22, 0xff, 0x22, 0x3a, 0x31, 0x7d]), headers: json },
  ],
  [
    'nesting of a thousand',
    'POST /api/content/thing',
    400,
    'E_JSON_MALFORMED',
    { raw: `{"fields":${'['.repeat(1_000)}${']'.repeat(1_000)}}`, headers: json },
  ],
  [
    '__proto__',
    'POST /api/content/thing',
    400,
    'E_JSON_MALFORMED',
    { raw: '{"fields":{"__proto__":{"a":1}}}', headers: json },
  ],
  ['no body where one is needed', 'POST /api/content/thing', 400, 'E_REQUEST_INVALID'],
  [
    'an empty body that calls itself JSON',
    'POST /api/content/thing',
    400,
    'E_REQUEST_INVALID',
    { raw: '', headers: json },
  ],
  [
    'null for a body',
    'POST /api/content/thing',
    400,
    'E_REQUEST_INVALID',
    { raw: 'null', headers: json },
  ],
  [
    'an array for a body',
    'POST /api/content/thing',
    400,
    'E_REQUEST_INVALID',
    { raw: '[]', headers: json },
  ],
  [
    'XML',
    'POST /api/content/thing',
    415,
    'E_MEDIA_TYPE_UNSUPPORTED',
    { raw: '<a/>', headers: { 'content-type': 'application/xml' } },
  ],
  [
    'a form',
    'POST /api/content/thing',
    415,
    'E_MEDIA_TYPE_UNSUPPORTED',
    { raw: 'a=1', headers: { 'content-type': 'application/x-www-form-urlencoded' } },
  ],
  [
    'JSON in Latin-1',
    'POST /api/content/thing',
    415,
    'E_MEDIA_TYPE_UNSUPPORTED',
    { raw: '{}', headers: { 'content-type': 'application/json; charset=latin1' } },
  ],
  [
    'no media type at all',
    'POST /api/content/thing',
    415,
    'E_MEDIA_TYPE_UNSUPPORTED',
    { raw: '{"fields":{}}', headers: { 'content-type': '' } },
  ],
  [
    'a body over 1 MiB',
    'POST /api/content/thing',
    413,
    'E_BODY_TOO_LARGE',
    { raw: `{"fields":{"title":"${'a'.repeat(1_100_000)}"}}`, headers: json },
  ],
]

/** One condition more than a filter may have. */
const sixtyFive = Array.from({ length: 65 }, (_, at) => at)

export const badQueries: readonly Bad[] = [
  ['an unknown parameter of a list', 'GET /api/content/thing?foo=1', 400, 'E_QUERY_PARAMETER'],
  ['a parameter twice', 'GET /api/content/thing?limit=1&limit=2', 400, 'E_QUERY_PARAMETER'],
  ['limit 0', 'GET /api/content/thing?limit=0', 400, 'E_QUERY_LIMIT'],
  ['limit 1000000', 'GET /api/content/thing?limit=1000000', 400, 'E_QUERY_LIMIT'],
  ['a limit in words', 'GET /api/content/thing?limit=ten', 400, 'E_QUERY_PARAMETER'],
  ['a sort by what is not filterable', 'GET /api/content/thing?sort=body', 400, 'E_QUERY_FIELD'],
  ['a sort by nothing', 'GET /api/content/thing?sort=nothing', 400, 'E_QUERY_FIELD'],
  ['a search across types without words', 'GET /api/search', 400, 'E_QUERY_PARAMETER'],
  ['a search in an unknown type', 'GET /api/search?q=x&types=no', 400, 'E_QUERY_PARAMETER'],
  ['a search with an unknown parameter', 'GET /api/search?q=x&s=1', 400, 'E_QUERY_PARAMETER'],
  ['a search by an unknown facet', 'GET /api/search?q=x&facets=no', 400, 'E_QUERY_FIELD'],
  ['a search with a garbled cursor', 'GET /api/search?q=x&after=no', 400, 'E_QUERY_CURSOR'],
  ['a search for 51', 'GET /api/search?q=x&limit=51', 400, 'E_QUERY_LIMIT'],
  ['a search of a release', 'GET /api/search?q=x&perspective=release:a', 400, 'E_QUERY_PARAMETER'],
  ['a search in no locale', 'GET /api/search?q=x&locale=xx', 404, 'E_LOCALE_NOT_FOUND'],
  ['suggestions for nothing', 'GET /api/search/suggestions?q=', 400, 'E_QUERY_PARAMETER'],
  ['too many suggestions', 'GET /api/search/suggestions?q=x&limit=21', 400, 'E_QUERY_LIMIT'],
  ['a search of no word', 'GET /api/content/thing?search=!', 400, 'E_QUERY_PARAMETER'],
  ['an empty search', 'GET /api/content/thing?search=', 400, 'E_QUERY_PARAMETER'],
  ['a search for what is not there', 'GET /api/content/thing?search=-a', 400, 'E_QUERY_PARAMETER'],
  [
    'a search that is too long',
    `GET /api/content/thing?search=${'x'.repeat(201)}`,
    400,
    'E_QUERY_LIMIT',
  ],
  [
    'a search of a type that has nothing to search',
    'GET /api/content/thing?search=x',
    400,
    'E_QUERY_FIELD',
  ],
  ['an unknown comparison', 'GET /api/content/thing?where[rank][like]=1', 400, 'E_QUERY_OPERATOR'],
  [
    'a comparison with the wrong kind',
    'GET /api/content/thing?where[rank][eq]=abc',
    400,
    'E_QUERY_VALUE',
  ],
  [
    'a condition without comparison',
    'GET /api/content/thing?where[rank]=1',
    400,
    'E_QUERY_PARAMETER',
  ],
  ['a cursor of our own making', 'GET /api/content/thing?after=abc', 400, 'E_QUERY_CURSOR'],
  ['a cursor of jobs that is no number', 'GET /api/jobs?after=1e9', 400, 'E_REQUEST_INVALID'],
  ['a state that no job has', 'GET /api/jobs?state=sleeping', 400, 'E_REQUEST_INVALID'],
  ['a job that is not there', 'GET /api/jobs/1', 404, 'E_JOB_NOT_FOUND'],
  ['an id that no job can have', 'POST /api/jobs/1e9/retry', 404, 'E_JOB_NOT_FOUND'],
  ['a job that was cancelled by none', 'POST /api/jobs/%00/cancel', 404, 'E_JOB_NOT_FOUND'],
  [
    'an include of what is no reference',
    'GET /api/content/thing?include=title',
    400,
    'E_QUERY_FIELD',
  ],
  ['fields that are none', 'GET /api/content/thing?fields=nothing', 400, 'E_QUERY_FIELD'],
  [
    'a perspective that is none',
    'GET /api/content/thing?perspective=latest',
    400,
    'E_QUERY_PARAMETER',
  ],
  ['broken percent-encoding', 'GET /api/content/thing?sort=%zz', 400, 'E_QUERY_PARAMETER'],
  [
    'a filter of sixty-five conditions',
    `GET /api/content/thing?${sixtyFive.map((at) => `where[or][${at}][rank][eq]=1`).join('&')}`,
    400,
    'E_QUERY_LIMIT',
  ],
  [
    'an unknown parameter of one entry',
    'GET /api/content/thing/ID?limit=1',
    400,
    'E_QUERY_PARAMETER',
  ],
  [
    'an unknown parameter of a write',
    'PATCH /api/content/thing/ID?locale=de',
    400,
    'E_REQUEST_INVALID',
    entry({}),
  ],
  [
    'a URL of 9,000 characters',
    `GET /api/content/thing?search=${'a'.repeat(9_000)}`,
    414,
    'E_URL_TOO_LONG',
  ],
]
