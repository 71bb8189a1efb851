import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import type { OpenApi } from '#api/openapi/document.ts'
import { databaseMissing } from '#test/support/database.ts'
import { SchemaValues } from '#test/support/schema-values.ts'
import { testSite } from '#test/support/site.ts'
import type { Persona, Site } from '#test/support/site.ts'
import { ResponseChecker } from '#test/support/openapi.ts'

/**
 * Requests per operation of the document. `STOA_FUZZ_RUNS` and `STOA_FUZZ_SEED` ask for more, or
 * for the same again.
 */
const runs = Number(process.env['STOA_FUZZ_RUNS'] ?? 15)
const seed = Number(process.env['STOA_FUZZ_SEED'] ?? Date.now() % 2 ** 31)

const personas: readonly Persona[] = [
  'administrator',
  'administrator',
  'editor',
  'author',
  'anonymous',
]

type Parameter = {
  readonly name: string
  readonly in: 'path' | 'query' | 'header'
  readonly required?: boolean
  readonly schema: Record<string, unknown>
}
type Operation = {
  readonly operationId: string
  readonly parameters?: readonly Parameter[]
  readonly requestBody?: {
    readonly content: Readonly<Record<string, { readonly schema: Record<string, unknown> }>>
  }
}
type Planned = {
  readonly method: string
  readonly url: string
  readonly as: Persona
  readonly headers: Record<string, string>
  readonly payload: { readonly type: string; readonly text: string } | null
}

const everyKind = {
  label: 'Everything',
  fields: [
    {
      name: 'title',
      kind: 'text',
      required: true,
      localized: true,
      filterable: true,
      lengthMax: 200,
    },
    { name: 'slug', kind: 'slug', from: 'title', localized: true },
    { name: 'sku', kind: 'text', unique: true },
    { name: 'body', kind: 'markdown' },
    { name: 'rich', kind: 'richText' },
    { name: 'rank', kind: 'number', filterable: true, integer: true },
    { name: 'price', kind: 'number', filterable: true, min: 0 },
    { name: 'hot', kind: 'boolean', filterable: true },
    { name: 'at', kind: 'dateTime', filterable: true },
    { name: 'color', kind: 'select', options: ['red', 'blue'], filterable: true },
    { name: 'tags', kind: 'select', options: ['a', 'b', 'c'], many: true, filterable: true },
    { name: 'extra', kind: 'json' },
    { name: 'image', kind: 'asset' },
    {
      name: 'parent',
      kind: 'reference',
      types: ['everything'],
      filterable: true,
      onDelete: 'unset',
    },
    { name: 'related', kind: 'reference', many: true, filterable: true },
    {
      name: 'seo',
      kind: 'group',
      fields: [
        { name: 'text', kind: 'text' },
        { name: 'index', kind: 'boolean' },
      ],
    },
    { name: 'links', kind: 'list', of: { name: 'link', kind: 'text' }, filterable: true },
    {
      name: 'parts',
      kind: 'blocks',
      blocks: [
        { name: 'quote', fields: [{ name: 'words', kind: 'text' }] },
        { name: 'picture', fields: [{ name: 'image', kind: 'asset' }] },
      ],
    },
  ],
}

/** A stream does not end by itself: these parameters make it one response. */
const ending: Readonly<Record<string, string>> = { '/api/events': 'follow=false' }

/** Something of everything, so that valid requests have something to be about. */
async function furnish(site: Site): Promise<string[]> {
  assert.equal(
    (await site.request('PUT', '/api/locales/de', { body: { fallback: 'en' } })).status,
    200,
  )
  assert.equal(
    (await site.request('PUT', '/api/types/everything', { body: everyKind })).status,
    201,
  )
  site.forgetDocument()
  const known = [
    'everything',
    'en',
    'de',
    'administrator',
    'editor',
    'title',
    '-rank',
    'related',
    'published',
    'draft',
  ]
  for (let at = 0; at < 4; at += 1) {
    const made = await site.request('POST', '/api/content/everything', {
      body: {
        fields: { title: `Entry ${at}`, rank: at, tags: ['a'], links: ['x'] },
        publish: at % 2 === 0,
      },
    })
    assert.equal(made.status, 201, made.text)
    known.push(made.json.data.id, made.json.data.fields.slug)
  }
  const release = await site.request('POST', '/api/releases', { body: { name: 'Spring' } })
  known.push(release.json.data.id, `release:${release.json.data.id}`)
  const asset = await site.request('POST', '/api/assets', {
    headers: { 'content-type': formType },
    body: formOf(['file', 'drawing.svg', '<svg width="9" height="9"/>']),
  })
  assert.equal(asset.status, 201, asset.text)
  const upload = await site.request('POST', '/api/uploads', {
    headers: { 'tus-resumable': '1.0.0', 'upload-length': '4' },
  })
  known.push(
    asset.json.data[0].id,
    String(upload.headers['location']).split('/').at(-1)!,
    '1.0.0',
    '0',
    '4',
  )
  return known
}

const formType = 'multipart/form-data; boundary=part'

function formOf(
  ...parts: readonly (readonly [name: string, filename: string | null, value: string])[]
): string {
  const texts = parts.map(([name, filename, value]) => {
    const file = filename === null ? '' : `; filename="${filename}"`
    return `--part\r\ncontent-disposition: form-data; name="${name}"${file}\r\n\r\n${value}\r\n`
  })
  return `${texts.join('')}--part--\r\n`
}

/** Bodies of routes that take files: forms, well-formed ones and others, and bare bytes. */
function fileBodies(
  type: string,
  bad: number,
): fc.Arbitrary<{ readonly type: string; readonly text: string }> {
  const text = fc.oneof(
    fc.string({ maxLength: 40 }),
    fc.constantFrom(
      '<html>',
      '<svg/>',
      '{"en":"x"}',
      '{"en":1}',
      '',
      '\u0000',
      'GIF89a',
      '%PDF-',
      '\ufeff',
    ),
  )
  if (type !== 'multipart/form-data') return text.map((text) => ({ type, text }))
  const name = fc.constantFrom('file', 'file', 'alt', 'other', '__proto__', '')
  const form = fc
    .array(
      fc.tuple(name, fc.option(fc.constantFrom('a.txt', 'b.jpg', '../c.svg', '', 'd.html')), text),
      { maxLength: 3 },
    )
    .map((parts) => ({ type: formType, text: formOf(...parts) }))
  const damaged = fc
    .tuple(form, fc.nat(200))
    .map(([{ type, text }, length]) => ({ type, text: text.slice(0, length) }))
  return bad === 0
    ? form
    : fc.oneof(
        form,
        damaged,
        text.map((text) => ({ type: formType, text })),
        form.map(({ text }) => ({ type: 'multipart/form-data', text })),
      )
}

function plan(
  document: OpenApi,
  path: string,
  method: string,
  values: SchemaValues,
): fc.Arbitrary<Planned> {
  const operation = document.paths[path]![method] as Operation
  const parameters = operation.parameters ?? []
  const damage = fc.constantFrom(0, 0, 5, 30)
  return damage.chain((bad) => {
    const given = fc.record(
      Object.fromEntries(
        parameters.map((parameter) => [
          `${parameter.in} ${parameter.name}`,
          values.of(parameter.schema, bad),
        ]),
      ),
      {
        requiredKeys: parameters
          .filter(
            (parameter) => parameter.in === 'path' || (parameter.required === true && bad === 0),
          )
          .map((parameter) => `${parameter.in} ${parameter.name}`),
      },
    )
    const schema = operation.requestBody?.content['application/json']?.schema
    const [type = ''] = Object.keys(operation.requestBody?.content ?? {})
    const json =
      schema === undefined
        ? fc.constant(null)
        : values
            .of(schema, bad)
            .map((value) =>
              value === undefined
                ? null
                : { type: 'application/json', text: JSON.stringify(value) },
            )
    const body = schema === undefined && type !== '' ? fileBodies(type, bad) : json
    // Many optional parameters at once rarely go together: a few are kept.
    const keep = fc.array(fc.nat(1_000), { maxLength: 4 })
    return fc
      .tuple(given, body, fc.constantFrom(...personas), keep)
      .map(([all, payload, as, kept]) =>
        request({ path, method, parameters }, { given: all, payload, as, kept }),
      )
  })
}

type Target = {
  readonly path: string
  readonly method: string
  readonly parameters: readonly Parameter[]
}
type Values = Pick<Planned, 'payload' | 'as'> & {
  readonly given: Record<string, unknown>
  readonly kept: readonly number[]
}

function request(
  { path, method, parameters }: Target,
  { given, payload, as, kept }: Values,
): Planned {
  const optional = parameters.filter(
    (parameter) =>
      parameter.in !== 'path' && given[`${parameter.in} ${parameter.name}`] !== undefined,
  )
  const chosen = new Set(kept.map((number) => optional[number % Math.max(1, optional.length)]))
  let url = path
  const end = ending[path]
  const query: string[] = end === undefined ? [] : [end]
  const headers: Record<string, string> = {}
  for (const parameter of parameters) {
    if (end?.startsWith(`${parameter.name}=`) === true) continue
    const value = given[`${parameter.in} ${parameter.name}`]
    const text = typeof value === 'string' ? value : (JSON.stringify(value) ?? '')
    if (parameter.in === 'path')
      url = url.replace(
        `{${parameter.name}}`,
        encodeURIComponent(text.toWellFormed() || '-').replaceAll('.', '%2E'),
      )
    else if (!chosen.has(parameter)) continue
    else if (parameter.in === 'query')
      query.push(`${encodeURIComponent(parameter.name)}=${encodeURIComponent(text.toWellFormed())}`)
    else headers[parameter.name] = text.replace(/[^\x20-\x7e]/g, '?')
  }
  return {
    method: method.toUpperCase(),
    url: query.length === 0 ? url : `${url}?${query.join('&')}`,
    as,
    headers,
    payload,
  }
}

test(
  `every response to a random request is documented and none is a failure (seed ${seed})`,
  { skip: databaseMissing },
  async () => {
    await using site = await testSite()
    const known = await furnish(site)
    const document = await site.document()
    const checker = new ResponseChecker(document)
    const values = new SchemaValues(document.components.schemas, known)
    const seen = new Map<number, number>()
    const failures: string[] = []
    for (const [path, methods] of Object.entries(document.paths)) {
      for (const method of Object.keys(methods)) {
        const operation = plan(document, path, method, values)
        const result = await fc.check(
          fc.asyncProperty(operation, async (planned) => {
            const token = site.tokens.get(planned.as)
            const response = await site.server.inject({
              method: planned.method,
              url: planned.url,
              headers: {
                ...planned.headers,
                ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
                ...(planned.payload === null ? {} : { 'content-type': planned.payload.type }),
              },
              ...(planned.payload === null ? {} : { payload: planned.payload.text }),
            })
            seen.set(response.statusCode, (seen.get(response.statusCode) ?? 0) + 1)
            checker.check(planned.method, planned.url, response)
          }),
          { numRuns: runs, seed },
        )
        if (result.failed)
          failures.push(`${JSON.stringify(result.counterexample)}\n${String(result.errorInstance)}`)
      }
    }
    assert.deepEqual(failures, [])
    // A fuzz in which nothing ever succeeds, or nothing is ever refused, shows nothing.
    for (const status of [200, 201, 400, 401, 403, 404, 422])
      assert.ok(
        (seen.get(status) ?? 0) > 0,
        `no response was ${status}: ${JSON.stringify([...seen])}`,
      )
  },
)
