import { execFileSync } from 'node:child_process'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { pageOf, purgeOf } from '#http-cache/contract.ts'
import { VarnishHttpCache } from '#http-cache/drivers/varnish.ts'
import { varnishVcl } from '#http-cache/varnish-vcl.ts'
import { freePort, startTestPostgres } from '#test/support/database.ts'
import { EdgeOrigin } from '#test/support/edge-origin.ts'
import { startVarnish, varnishMissing } from '#test/support/varnish.ts'
import type { Varnish } from '#test/support/varnish.ts'
import { createDatabase, sender, startArticleNode } from './support/articles.ts'
import type { ArticleNode } from './support/articles.ts'
import { median, round } from './support/benchmark.ts'
import type { Benchmark, Figure } from './support/benchmark.ts'
import { releaseAtCloudflare } from './support/edge-release.ts'

/** Fetches with a purge in the middle; the published figure is for 10,000. */
const fetches = Number(process.env['STOA_TEST_EDGE_FETCHES'] ?? 2_000)
const publishes = Number(process.env['STOA_TEST_EDGE_PUBLISHES'] ?? 300)
/** Reads with the token of a write that was just made. */
const tokenReads = Number(process.env['STOA_TEST_EDGE_READS'] ?? 5_000)
const inFlight = 40
const phases = ['beforeHeaders', 'beforeBody', 'beforeEnd'] as const
const { signal } = new AbortController()

export const benchmark: Benchmark = {
  claim:
    'A Varnish in front of the nodes keeps nothing that is older than the last purge, is fresh ' +
    'within milliseconds of a publish, and hides no write from a reader with its token.',
  run: async (say) => {
    if (varnishMissing !== false) throw new Error(varnishMissing)
    const figures: Figure[] = []
    say(`${fetches} fetches with a purge in the middle, with the fence and without`)
    figures.push({
      name: 'old responses kept, of those fetches',
      value: await keptOld(true),
      unit: '',
      atMost: 0,
    })
    figures.push({
      name: 'the same with plain purges',
      value: await keptOld(false),
      unit: '',
      atLeast: Math.ceil(fetches / 4),
    })
    figures.push(...(await withNode(say)))
    for (const plan of ['free', 'enterprise'] as const)
      figures.push(...(await releaseAtCloudflare(plan, say)))
    return { figures, notes: [] }
  },
}

/** Each round: a fetch is held in one phase, a purge is sent, the fetch goes on. */
async function keptOld(fenced: boolean): Promise<number> {
  await using origin = await new EdgeOrigin().listen()
  const full = varnishVcl({ nodes: [origin.host], purgeKey: 'key', graceS: 60 })
  const vcl = fenced
    ? full
    : full.replace('if (beresp.http.stoa-old)', 'if (beresp.http.stoa-none)')
  await using varnish = await startVarnish(vcl)
  const hosts = [varnish.host]
  const cache = new VarnishHttpCache({ hosts, purgeKey: 'key', firstByteTimeoutS: null })
  origin.cache = cache
  let count = 1
  let old = 0
  const one = async (at: number): Promise<void> => {
    const path = `/${at}`
    const phase = phases[at % phases.length]!
    const arrived = Promise.withResolvers<void>()
    const held = Promise.withResolvers<void>()
    const before = (count += 1)
    let shown = before
    origin.responses.set(path, () => {
      arrived.resolve()
      const now = { body: `count ${shown}`, tags: pageOf('note', [path]), count: shown }
      return shown === before ? { ...now, [phase]: held.promise } : now
    })
    const first = fetch(`${varnish.origin}${path}`).then((response) => response.text())
    await arrived.promise
    // Its headers may be on their way, or there.
    if (at % 2 === 0) await sleep(at % 7)
    shown = count += 1
    for (const purge of purgeOf(cache, { type: 'note', id: path, count: shown }))
      await cache.edges[0]!.purge(purge, signal)
    held.resolve()
    await first
    const later = await (await fetch(`${varnish.origin}${path}`)).text()
    if (later !== `count ${shown}`) old += 1
    origin.responses.delete(path)
  }
  let next = 0
  const worker = async (): Promise<void> => {
    while (next < fetches) await one((next += 1))
  }
  await Promise.all(Array.from({ length: inFlight }, worker))
  return old
}

/** A real node behind a real Varnish. */
async function withNode(say: (line: string) => void): Promise<Figure[]> {
  const folder = await mkdtemp(join(tmpdir(), 'stoa-edge-'))
  const server = await startTestPostgres({ durable: true })
  const databaseUrl = await createDatabase(server.url, 'edge')
  const port = await freePort()
  try {
    const environment = { STOA_HTTP_CACHE_URL: `varnish://127.0.0.1:${port}` }
    await using node = await startArticleNode({ databaseUrl, folder, environment })
    const vcl = execFileSync(
      process.execPath,
      [join(import.meta.dirname, '..', 'bin', 'stoa.js'), ...vclCommand(node)],
      { env: { ...process.env, STOA_DATABASE_URL: databaseUrl }, encoding: 'utf8' },
    )
    await using varnish = await startVarnish(vcl, port)
    const send = sender(node.origin, node.token)
    await send('PUT', '/api/types/note', {
      name: 'note',
      label: 'Note',
      fields: [{ name: 'title', kind: 'text' }],
    })
    const figures = await freshAfter(node, varnish, say)
    figures.push(await readsWithToken(node, varnish, say))
    figures.push(await servedAfterUnpublish(node, varnish, say))
    return figures
  } finally {
    await server.stop()
    await rm(folder, { recursive: true, force: true })
  }
}

function vclCommand({ origin }: ArticleNode): string[] {
  return ['http-cache', 'vcl', '--backend', new URL(origin).host]
}

type Written = { readonly id: string; readonly token: string }

async function publish(node: ArticleNode, title: string, id?: string): Promise<Written> {
  const response = await fetch(
    `${node.origin}/api/content/note${id === undefined ? '' : `/${id}`}`,
    {
      method: id === undefined ? 'POST' : 'PATCH',
      headers: { authorization: `Bearer ${node.token}`, 'content-type': 'application/json' },
      body: JSON.stringify({ fields: { title }, publish: true }),
    },
  )
  const text = await response.text()
  if (!response.ok) throw new Error(`publish: ${response.status} ${text}`)
  const { data } = JSON.parse(text) as { data: { id: string } }
  return { id: data.id, token: response.headers.get('stoa-token') ?? '' }
}

async function titleAt(url: string, headers: Record<string, string> = {}): Promise<string | null> {
  const response = await fetch(url, { headers })
  const text = await response.text()
  if (!response.ok) return null
  return (JSON.parse(text) as { data: { fields: { title: string } } }).data.fields.title
}

/** From the response to a publish until Varnish serves it. */
async function freshAfter(
  node: ArticleNode,
  varnish: Varnish,
  say: (line: string) => void,
): Promise<Figure[]> {
  say(`${publishes} publishes, one after the other`)
  const { id } = await publish(node, 'first')
  const url = `${varnish.origin}/api/content/note/${id}`
  await titleAt(url)
  const took: number[] = []
  for (let at = 0; at < publishes; at += 1) {
    const title = `title ${at}`
    await publish(node, title, id)
    const writtenMs = performance.now()
    while ((await titleAt(url)) !== title)
      if (performance.now() - writtenMs > 10_000) throw new Error('Varnish stayed old for 10 s')
    took.push(performance.now() - writtenMs)
    // Two writes within the time of gathering would measure that.
    await sleep(60)
  }
  took.sort((one, other) => one - other)
  return [
    {
      name: 'publish to fresh at Varnish, p50',
      value: round(median(took)),
      unit: 'ms',
      atMost: 15,
    },
    {
      name: 'publish to fresh at Varnish, p99',
      value: round(took[Math.floor(took.length * 0.99)]!),
      unit: 'ms',
      atMost: 60,
    },
  ]
}

async function readsWithToken(
  node: ArticleNode,
  varnish: Varnish,
  say: (line: string) => void,
): Promise<Figure> {
  say(`${tokenReads} reads with the token of the last write`)
  let read = 0
  let stale = 0
  const worker = async (name: number): Promise<void> => {
    const { id } = await publish(node, 'first')
    const url = `${varnish.origin}/api/content/note/${id}`
    for (let at = 0; read < tokenReads; at += 1) {
      const title = `${name} ${at}`
      const { token } = await publish(node, title, id)
      for (let time = 0; time < 5; time += 1) {
        read += 1
        if ((await titleAt(url, { 'stoa-token': token })) !== title) stale += 1
      }
    }
  }
  await Promise.all(Array.from({ length: 8 }, (_, name) => worker(name)))
  return { name: `stale, of ${read} reads with a token`, value: stale, unit: '', atMost: 0 }
}

/** Read again and again from the moment on at which the receipt says that it is everywhere. */
async function servedAfterUnpublish(
  node: ArticleNode,
  varnish: Varnish,
  say: (line: string) => void,
): Promise<Figure> {
  say('entries that are unpublished while they are read')
  const authorization = `Bearer ${node.token}`
  let served = 0
  for (let at = 0; at < 50; at += 1) {
    const { id } = await publish(node, 'here')
    const url = `${varnish.origin}/api/content/note/${id}`
    await titleAt(url)
    const gone = await fetch(`${node.origin}/api/content/note/${id}/unpublish`, {
      method: 'POST',
      headers: { authorization, 'content-type': 'application/json' },
      body: '{}',
    })
    await gone.arrayBuffer()
    const token = gone.headers.get('stoa-token') ?? ''
    while (!(await isEverywhere(node, token))) await titleAt(url)
    for (let time = 0; time < 5; time += 1) if ((await titleAt(url)) !== null) served += 1
  }
  return {
    name: 'unpublished entries served after their receipt',
    value: served,
    unit: '',
    atMost: 0,
  }
}

async function isEverywhere(node: ArticleNode, token: string): Promise<boolean> {
  const response = await fetch(`${node.origin}/api/receipts/${token}`, {
    headers: { authorization: `Bearer ${node.token}` },
  })
  return ((await response.json()) as { data: { everywhere: boolean } }).data.everywhere
}
