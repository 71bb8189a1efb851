import { Agent } from 'node:http'
import { connect } from 'node:net'
import type { Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { exchange } from './exchange.ts'
import type { Sent } from './exchange.ts'

/**
 * The attacker of the siege, in a process of its own: its event loop is not that of the clients
 * that are measured. Arguments: the name of the attack, and the world as JSON.
 */

export type World = {
  readonly port: number
  readonly token: string
  readonly ids: readonly string[]
  readonly asset: string
}

const connections = 100
/** Attacker and clients have addresses of their own on loopback. */
const attacker = '127.0.0.2'

type Attack = (world: World) => Promise<void>

/** Connections that write a text again whenever they are cut, and read nothing. */
function holding(text: (world: World) => string, trickle?: string): Attack {
  return async (world) => {
    const sockets = new Set<Socket>()
    const open = (): void => {
      const socket = connect({ host: '127.0.0.1', port: world.port, localAddress: attacker })
      sockets.add(socket)
      socket.pause()
      socket.on('error', () => undefined)
      socket.on('connect', () => socket.write(text(world)))
      socket.on('close', () => {
        sockets.delete(socket)
        setTimeout(open, 50)
      })
    }
    for (let count = 0; count < connections; count += 1) open()
    for (;;) {
      await sleep(500)
      if (trickle !== undefined) for (const socket of sockets) socket.write(trickle)
    }
  }
}

/** Loops that send a request, wait for the response and send the next. */
function asking(path: (world: World, counter: number) => string, sent: Sent = {}): Attack {
  return async (world) => {
    const agent = new Agent({ keepAlive: true, localAddress: attacker })
    let counter = 0
    const loop = async (): Promise<void> => {
      for (;;) {
        counter += 1
        await exchange({ port: world.port, agent, path: path(world, counter) }, sent)
      }
    }
    await Promise.all(Array.from({ length: connections }, loop))
  }
}

const locales = 'GET /api/locales HTTP/1.1\r\nHost: x\r\n\r\n'
const postHead =
  'POST /api/session HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: ' +
  '5000\r\n\r\n'
const contains = Array.from(
  { length: 30 },
  (_, at) => `where[or][${at}][title][contains]=x${at}`,
).join('&')

export const attacks: Readonly<Record<string, Attack>> = {
  'pipelined, unread': holding(
    () => `GET /api/content/page?limit=200 HTTP/1.1\r\nHost: x\r\n\r\n${locales.repeat(1_100)}`,
  ),
  'heads without bodies': holding(() => postHead),
  'slow bodies': holding(() => postHead, 'x'),
  'pages of Markdown': asking(({ ids }, at) => `/read/page/${ids[at % ids.length]}`),
  renditions: asking(({ asset }, at) => `/assets/${asset}/picture.png?width=${(at % 1_500) + 16}`),
  'large lists': asking((_world, at) => `/api/content/page?limit=200&where[title][ne]=${at}`),
  'costly filters': asking(
    (_world, at) => `/api/content/page?${contains}&count=true&limit=${(at % 50) + 1}`,
  ),
  'many predicates': asking((_world, at) => `/api/content/page?where[title][contains]=${at}`),
  'failed sign-ins': asking(() => '/api/session', {
    method: 'POST',
    body: { email: 'ada@example.com', password: 'wrong' },
  }),
  'documents and metrics': asking(
    (_world, at) => ['/openapi.json', '/metrics', '/healthz/ready'][at % 3]!,
  ),
}

const [, self, name, world] = process.argv
if (self === import.meta.filename) {
  process.stdout.write('ready\n')
  await attacks[name!]!(JSON.parse(world!) as World)
}
