import assert from 'node:assert/strict'
import { request } from 'node:http'
import type { ClientRequest } from 'node:http'
import { setTimeout as sleep } from 'node:timers/promises'

const deadlineMs = 20_000

export type SentEvent = {
  readonly name: string
  readonly data: {
    readonly id: string
    readonly action: string
    readonly type: string
    readonly entry: string
    readonly locale: string
    readonly token: string
    readonly tags: readonly string[]
    readonly reason?: string
  }
}

/** A client of `/api/events` that does as browsers do: it comes again with the last cursor. */
export class EventClient implements AsyncDisposable {
  /** Each once, by its own id. */
  readonly events: SentEvent[] = []
  readonly statuses: number[] = []
  repeated = 0
  connections = 0
  lastEventId: string
  readonly #urls: () => readonly string[]
  readonly #headers: Readonly<Record<string, string>>
  readonly #known = new Set<string>()
  #current: ClientRequest | null = null
  #isClosed = false
  readonly #running: Promise<void>

  /** `urls`: of the nodes, which it tries in turn. */
  constructor(
    urls: () => readonly string[],
    headers: Readonly<Record<string, string>> = {},
    lastEventId = '',
  ) {
    this.#urls = urls
    this.#headers = headers
    this.lastEventId = lastEventId
    this.#running = this.#run()
  }

  /** Waits until what it got is as wanted. */
  async until(holds: (client: EventClient) => boolean, what: string): Promise<void> {
    const end = Date.now() + deadlineMs
    while (!holds(this)) {
      assert.ok(Date.now() < end, `${what}; shown: ${JSON.stringify(this.events).slice(-2_000)}`)
      await sleep(10)
    }
  }

  /** Waits until the stream has begun. */
  async begun(): Promise<this> {
    await this.until(({ lastEventId }) => lastEventId !== '', 'no stream began')
    return this
  }

  /** Cuts the connection; it comes again. */
  cut(): void {
    this.#current?.destroy()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#isClosed = true
    this.cut()
    await this.#running
  }

  async #run(): Promise<void> {
    for (let turn = 0; !this.#isClosed; turn += 1) {
      const urls = this.#urls()
      const url = urls[turn % urls.length]
      if (url !== undefined) await this.#follow(url)
      if (!this.#isClosed) await sleep(10)
    }
  }

  async #follow(url: string): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>()
    const headers = {
      ...this.#headers,
      ...(this.lastEventId === '' ? {} : { 'last-event-id': this.lastEventId }),
    }
    this.#current = request(url, { headers, agent: false }, (response) => {
      this.statuses.push(response.statusCode ?? 0)
      this.connections += 1
      let text = ''
      response.setEncoding('utf8')
      response.on('data', (chunk: string) => {
        text += chunk
        const blocks = text.split('\n\n')
        text = blocks.pop() ?? ''
        if (response.statusCode === 200) for (const block of blocks) this.#read(block)
      })
      response.on('error', () => undefined)
      response.on('close', resolve)
    })
    this.#current.on('error', () => resolve())
    this.#current.end()
    await promise
  }

  #read(block: string): void {
    const fields = new Map(
      block.split('\n').map((line) => {
        const at = line.indexOf(': ')
        return [line.slice(0, at), line.slice(at + 2)] as const
      }),
    )
    this.lastEventId = fields.get('id') ?? this.lastEventId
    const data = fields.get('data')
    if (data === undefined) return
    const event = { name: fields.get('event') ?? '', data: JSON.parse(data) } as SentEvent
    const id = event.data.id ?? `restart ${this.events.length}`
    if (this.#known.has(id)) this.repeated += 1
    else this.events.push(event)
    this.#known.add(id)
  }
}
