import type { RouteOptions } from 'fastify'

const text = { type: 'string' }
const unsafe: ReadonlySet<string> = new Set(['POST', 'PUT', 'PATCH', 'DELETE'])

const idempotencyKey = {
  name: 'Idempotency-Key',
  in: 'header',
  schema: { type: 'string', minLength: 1, maxLength: 255, pattern: '^[\\x21-\\x7e]+$' },
  description:
    'Makes the write safe to repeat for 24 hours: a repeat gets the first response, with ' +
    '`Idempotency-Replayed: true`, and changes nothing.',
}
const ifMatch = {
  name: 'If-Match',
  in: 'header',
  schema: { type: 'string', pattern: '^\\s*(\\*|(W/)?"[\\x21\\x23-\\x7e]*")\\s*$' },
  description: 'The `ETag` that you read. After a save by another client: 412 with both sides.',
}
const ifNoneMatch = {
  name: 'If-None-Match',
  in: 'header',
  schema: text,
  description: 'The `ETag` of the copy that you have: 304 if it is still current.',
}
const tokenToSee = {
  name: 'Stoa-Token',
  in: 'header',
  schema: text,
  description:
    'The `Stoa-Token` of a write: the response shows that write, whichever node it comes from.',
}
const prefer = {
  name: 'Prefer',
  in: 'header',
  schema: text,
  description:
    '`wait=cluster`: the response comes when no node shows the state from before the write.',
}

/** The request headers that mean something to a route. */
export function headerParameters({ config }: RouteOptions, method: string): object[] {
  const isWrite = unsafe.has(method)
  return [
    ...(isWrite && config?.idempotent !== false ? [idempotencyKey] : []),
    ...(isWrite ? [prefer] : []),
    ...(config?.ifMatch === true ? [ifMatch] : []),
    ...(config?.ifNoneMatch === true ? [ifNoneMatch] : []),
    ...(config?.whenBusy === true ? [] : [tokenToSee]),
  ]
}

const writeHeaders = {
  'Stoa-Token': {
    schema: text,
    description: 'Send it with later requests: they see this write on every node.',
  },
  'Preference-Applied': { schema: text, description: 'The part of `Prefer` that was followed.' },
}
const replayed = {
  'Idempotency-Replayed': {
    schema: { const: 'true' },
    description: 'This is the response to the first request with this `Idempotency-Key`.',
  },
}
const cachedHeaders = {
  'Cache-Status': {
    schema: text,
    description: 'RFC 9211: whether the response is from memory, new, or stale.',
  },
  Age: { schema: text, description: 'Of a stale response: its age in seconds.' },
}
const entityTag = {
  ETag: { schema: text, description: 'Send it as `If-Match` or `If-None-Match`.' },
}

/** The headers that a successful response of a route may have. */
export function responseHeaders({ config }: RouteOptions, method: string): object {
  const isWrite = unsafe.has(method)
  return {
    ...(isWrite ? writeHeaders : {}),
    ...(isWrite && config?.idempotent !== false ? replayed : {}),
    ...(!isWrite && config?.mayBeStale === true ? cachedHeaders : {}),
    ...(config?.ifMatch === true || config?.ifNoneMatch === true ? entityTag : {}),
  }
}
