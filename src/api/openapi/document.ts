import { STATUS_CODES } from 'node:http'
import type { FastifySchema, RouteOptions } from 'fastify'
import { Components } from '#api/openapi/components.ts'
import type { Schema } from '#api/openapi/components.ts'
import { headerParameters, responseHeaders } from '#api/openapi/headers.ts'
import { problemSchema } from '#api/schemas/shared.ts'
import { statuses } from '#api/problems/statuses.ts'

export type Operation = { readonly [key: string]: unknown }
export type OpenApi = {
  readonly openapi: string
  readonly info: Schema
  readonly paths: Record<string, Record<string, Operation>>
  readonly components: {
    readonly schemas: Record<string, Schema>
    readonly securitySchemes: Schema
  }
  readonly tags?: readonly Schema[]
  readonly [key: string]: unknown
}

const unsafe: ReadonlySet<string> = new Set(['POST', 'PUT', 'PATCH', 'DELETE'])
/** Statuses of the errors that any request may get. */
const always = [400, 401, 408, 414, 431, 500, 503]

/** The part of the document that does not depend on content types. */
export function describeRoutes(routes: readonly RouteOptions[], version: string): OpenApi {
  const components = new Components()
  components.add(problemSchema)
  const paths: Record<string, Record<string, Operation>> = {}
  for (const route of routes) {
    const path = pathOf(route.url)
    for (const method of [route.method].flat())
      (paths[path] ??= {})[method.toLowerCase()] = operationOf(route, method, components)
  }
  return {
    openapi: '3.1.0',
    info: {
      title: 'Stoa',
      version,
      description:
        'Entries are read at `/api/content/{type}` and written on the same resources. Errors ' +
        'are problem documents (RFC 9457).',
      license: { name: 'MIT', identifier: 'MIT' },
    },
    servers: [{ url: '/' }],
    paths,
    components: {
      schemas: components.schemas,
      securitySchemes: {
        token: { type: 'http', scheme: 'bearer', description: 'An API token.' },
        session: {
          type: 'apiKey',
          in: 'cookie',
          name: 'stoa_session',
          description:
            'A signed-in browser; behind TLS the name is `__Host-stoa_session`. Writes repeat ' +
            '`csrfToken` of `GET /api/session` in `X-CSRF-Token`.',
        },
      },
    },
  }
}

/** `/a/:id` is `/a/{id}`; a wildcard has a name of its own. */
export function pathOf(url: string): string {
  return url.replace(/:(\w+)/g, '{$1}').replace(/\*$/, '{rest}')
}

function operationOf(route: RouteOptions, method: string, components: Components): Operation {
  const schema = route.schema ?? {}
  const {
    params = schema.params,
    querystring = schema.querystring,
    body = schema.body,
  } = schema.documented ?? {}
  const parameters = [
    ...pathParameters(route.url, params, components),
    ...parametersOf(querystring, 'query', components),
    ...parametersOf(schema.headers, 'header', components),
    ...headerParameters(route, method),
  ]
  return {
    operationId: schema.operationId,
    ...(schema.summary === undefined ? {} : { summary: schema.summary }),
    ...(schema.description === undefined ? {} : { description: schema.description }),
    ...(schema.tags === undefined ? {} : { tags: schema.tags }),
    security: securityOf(route),
    ...(parameters.length === 0 ? {} : { parameters }),
    ...(body === undefined ? {} : { requestBody: bodyOf(body, components) }),
    responses: {
      ...responsesOf(schema, components, responseHeaders(route, method)),
      ...errorsOf(errorStatuses(route, method)),
    },
  }
}

function securityOf(route: RouteOptions): readonly object[] {
  const access = route.config?.access
  const known = [{ token: [] }, { session: [] }]
  return access === 'public' || access === 'content' ? [{}, ...known] : known
}

/** A variable of the path without a schema is a text. */
function pathParameters(url: string, schema: unknown, components: Components): object[] {
  const known = parametersOf(schema, 'path', components) as { name: string }[]
  const names = [...pathOf(url).matchAll(/\{(\w+)\}/g)].map((match) => match[1]!)
  return names.map(
    (name) =>
      known.find((parameter) => parameter.name === name) ?? {
        name,
        in: 'path',
        required: true,
        schema: { type: 'string' },
      },
  )
}

function parametersOf(
  schema: unknown,
  place: 'path' | 'query' | 'header',
  components: Components,
): object[] {
  const { properties = {}, required = [] } = (schema ?? {}) as {
    properties?: Record<string, Schema>
    required?: readonly string[]
  }
  return Object.entries(properties).map(([name, property]) => {
    const { description, ...rest } = components.add(property)
    const isRequired = place === 'path' || required.includes(name)
    return {
      name,
      in: place,
      ...(isRequired ? { required: true } : {}),
      ...(description === undefined ? {} : { description }),
      schema: rest,
    }
  })
}

function bodyOf(body: unknown, components: Components): object {
  const { content } = body as { content?: Record<string, { schema: unknown }> }
  const media =
    content === undefined
      ? { 'application/json': { schema: components.add(body) } }
      : Object.fromEntries(
          Object.entries(content).map(([type, each]) => [
            type,
            { schema: components.add(each.schema) },
          ]),
        )
  return { required: !acceptsNull(body), content: media }
}

function acceptsNull(schema: unknown): boolean {
  const { anyOf, type } = schema as { anyOf?: readonly { type?: unknown }[]; type?: unknown }
  return type === 'null' || (anyOf?.some((one) => one.type === 'null') ?? false)
}

function responsesOf(
  schema: FastifySchema,
  components: Components,
  common: object,
): Record<string, object> {
  const responses: Record<string, object> = {}
  for (const [status, response] of Object.entries(
    (schema.response ?? {}) as Record<string, Schema>,
  )) {
    const described = response as {
      description?: string
      content?: Record<string, { schema: unknown }>
      headers?: object
      type?: unknown
    }
    const description = described.description ?? STATUS_CODES[status] ?? status
    const all = { ...common, ...described.headers }
    const headers = Object.keys(all).length === 0 ? {} : { headers: all }
    if (described.type === 'null') responses[status] = { description, ...headers }
    else if (described.content === undefined)
      responses[status] = {
        description,
        ...headers,
        content: { 'application/json': { schema: components.add(response) } },
      }
    else {
      const content = Object.fromEntries(
        Object.entries(described.content).map(([type, each]) => [
          type,
          { schema: components.add(each.schema) },
        ]),
      )
      responses[status] = {
        description,
        ...headers,
        content,
      }
    }
  }
  return responses
}

/** Statuses of the problem documents that a route may return. */
function errorStatuses(route: RouteOptions, method: string): number[] {
  const { access, whenBusy, ifMatch, errors = [] } = route.config ?? {}
  const found = new Set(
    whenBusy === true && access === 'public' ? always.filter((status) => status !== 401) : always,
  )
  if (access !== 'public' || unsafe.has(method)) found.add(403)
  if (route.url.includes(':') || route.url.includes('*')) found.add(404)
  if (unsafe.has(method)) for (const status of [409, 413, 415, 422]) found.add(status)
  if (ifMatch === true) found.add(412)
  for (const code of errors) {
    const row = statuses[code]
    if (row === undefined)
      throw new Error(`${route.url} names the error ${code}, which has no row in statuses.ts`)
    found.add(row[0])
  }
  return [...found].sort((a, b) => a - b)
}

export function errorsOf(found: readonly number[]): Record<string, object> {
  return Object.fromEntries(
    found.map((status) => [
      status,
      {
        description: STATUS_CODES[status] ?? 'Error',
        content: {
          'application/problem+json': { schema: { $ref: '#/components/schemas/Problem' } },
        },
      },
    ]),
  )
}
