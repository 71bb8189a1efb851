import assert from 'node:assert/strict'
import type { Site, SiteResponse, SiteJson } from '#test/support/site.ts'

/** Requests with an API token of one role. */
export type RoleClient = {
  (method: string, url: string, body?: unknown, headers?: Headers): Promise<SiteResponse>
  readonly tokenId: string
}
type Headers = Readonly<Record<string, string>>

/** The JSON of a response that must not be a refusal. */
export async function accepted(response: Promise<SiteResponse>): Promise<SiteJson> {
  const { status, text, json } = await response
  assert.ok(status < 300, `${status} ${text}`)
  return json
}

/** Makes a role and an API token that has it. */
export async function roleClient(
  site: Site,
  name: string,
  content: readonly object[],
  system: readonly string[] = [],
): Promise<RoleClient> {
  await accepted(
    site.request('PUT', `/api/roles/${name}`, { body: { label: name, content, system } }),
  )
  const { data } = await accepted(
    site.request('POST', '/api/tokens', { body: { name, roles: [name] } }),
  )
  const request: RoleClient = Object.assign(
    (method: string, url: string, body?: unknown, headers: Headers = {}) =>
      site.request(method, url, {
        as: 'anonymous',
        headers: { authorization: `Bearer ${data.token}`, ...headers },
        ...(body === undefined ? {} : { body }),
      }),
    { tokenId: data.info.id as string },
  )
  return request
}

/** A grant of `actions` on one type, limited by `limits`. */
export function grantOn(
  type: string,
  actions: readonly string[],
  limits: { readonly filter?: object; readonly fields?: readonly string[] } = {},
): object {
  return { type, actions, filter: limits.filter ?? null, fields: limits.fields ?? null }
}

export function equals(field: string, value: unknown): object {
  return { op: 'compare', field, test: { is: 'eq', value } }
}
