import type { IncomingMessage } from 'node:http'

/** Requests of monitors, which reach the node without the proxies of the site. */
const monitored = /^\/(healthz|metrics)\b/
const portPattern = /(?:^|[\s,])(?:\[[0-9a-f:.]+\]:|\d{1,3}(?:\.\d{1,3}){3}:)\d{1,5}(?=[\s,]|$)/i

/** Counts how `X-Forwarded-For` arrives, for the doctor: four numbers, since the node started. */
export class ForwardingLog {
  #requests = 0
  #forwarded = 0
  #tooFew = 0
  #withPorts = 0

  /** Call it before anything changes the header. `trusted`: how many proxies are believed. */
  note({ headers, url }: IncomingMessage, trusted: number): void {
    const forwarded = headers['x-forwarded-for']
    if (monitored.test(url ?? '')) return
    this.#requests += 1
    const text = typeof forwarded === 'string' ? forwarded : ''
    if (text !== '') this.#forwarded += 1
    if (trusted > 0 && (text === '' ? 0 : text.split(',').length) < trusted) this.#tooFew += 1
    if (text.includes(':') && portPattern.test(text)) this.#withPorts += 1
  }

  get counts() {
    return {
      requests: this.#requests,
      forwarded: this.#forwarded,
      tooFew: this.#tooFew,
      withPorts: this.#withPorts,
    }
  }
}
