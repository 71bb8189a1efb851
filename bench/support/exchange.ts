import { request as httpRequest } from 'node:http'
import type { Agent } from 'node:http'

export type Sent = { readonly method?: string; readonly body?: object; readonly token?: string }

export type Target = { readonly port: number; readonly agent: Agent; readonly path: string }

/** One request and its response; 599 where the connection failed. */
export function exchange(
  { port, agent, path }: Target,
  { method = 'GET', body, token }: Sent,
): Promise<{ readonly status: number; readonly text: string }> {
  const headers = {
    ...(body === undefined ? {} : { 'content-type': 'application/json' }),
    ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
  }
  return new Promise((resolve) => {
    const sent = httpRequest(
      { host: '127.0.0.1', port, path, method, agent, headers },
      (response) => {
        let text = ''
        response.setEncoding('utf8')
        response.on('data', (chunk: string) => (text += chunk))
        response.on('end', () => resolve({ status: response.statusCode ?? 0, text }))
        response.on('error', () => resolve({ status: 599, text: '' }))
      },
    )
    sent.on('error', () => resolve({ status: 599, text: '' }))
    sent.end(body === undefined ? undefined : JSON.stringify(body))
  })
}
