import { createWriteStream } from 'node:fs'
import { lookup } from 'node:dns'
import type { LookupAddress } from 'node:dns'
import { get as httpGet } from 'node:http'
import type { IncomingMessage } from 'node:http'
import { get as httpsGet } from 'node:https'
import { BlockList, isIP } from 'node:net'
import type { LookupFunction } from 'node:net'
import { Transform } from 'node:stream'
import { pipeline } from 'node:stream/promises'

const redirectsMax = 5

export type DownloadOptions = {
  readonly bytesMax: number
  /** For the whole download, redirects included. */
  readonly deadlineMs: number
  /**
   * An export file comes from strangers: unless the user says so, it may not make this machine
   * connect to its own network.
   */
  readonly allowPrivate: boolean
  readonly signal: AbortSignal
}

export type DownloadOutcome =
  | { readonly ok: true }
  | {
      readonly ok: false
      readonly reason: string
      /** The host does not respond: other files of it are not asked for. */
      readonly hostDown: boolean
    }

class DownloadProblem extends Error {
  readonly hostDown: boolean

  constructor(message: string, hostDown = false) {
    super(message)
    this.hostDown = hostDown
  }
}

/** Addresses that are not the public internet (RFC 6890 and its registries). */
const privateAddresses = new BlockList()
for (const [net, prefix] of [
  ['0.0.0.0', 8],
  ['10.0.0.0', 8],
  ['100.64.0.0', 10],
  ['127.0.0.0', 8],
  ['169.254.0.0', 16],
  ['172.16.0.0', 12],
  ['192.0.0.0', 24],
  ['192.0.2.0', 24],
  ['192.88.99.0', 24],
  ['192.168.0.0', 16],
  ['198.18.0.0', 15],
  ['198.51.100.0', 24],
  ['203.0.113.0', 24],
  ['224.0.0.0', 4],
  ['240.0.0.0', 4],
] as const)
  privateAddresses.addSubnet(net, prefix, 'ipv4')
for (const [net, prefix] of [
  ['::', 96],
  ['64:ff9b::', 96],
  ['64:ff9b:1::', 48],
  ['100::', 64],
  ['2001::', 23],
  ['2001:db8::', 32],
  ['2002::', 16],
  ['fc00::', 7],
  ['fe80::', 10],
  ['fec0::', 10],
  ['ff00::', 8],
] as const) {
  privateAddresses.addSubnet(net, prefix, 'ipv6')
}

export function isPrivateAddress(address: string): boolean {
  const mapped = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/i.exec(address)
  if (mapped !== null) return privateAddresses.check(mapped[1]!, 'ipv4')
  if (/^::ffff:/i.test(address)) return true
  const family = isIP(address)
  return family === 0 || privateAddresses.check(address, family === 6 ? 'ipv6' : 'ipv4')
}

/**
 * Downloads `url` into `file`. Never throws for what the other side does: the outcome says why not.
 * It connects to the address that was checked, so a name cannot resolve to another one.
 */
export async function download(
  url: string,
  file: string,
  options: DownloadOptions,
): Promise<DownloadOutcome> {
  const signal = AbortSignal.any([options.signal, AbortSignal.timeout(options.deadlineMs)])
  try {
    const response = await follow(url, options.allowPrivate, signal)
    let received = 0
    const bounded = new Transform({
      transform: (chunk: Buffer, _encoding, done) => {
        received += chunk.length
        done(
          received > options.bytesMax
            ? new DownloadProblem(`it is larger than ${options.bytesMax} bytes`)
            : null,
          chunk,
        )
      },
    })
    await pipeline(response, bounded, createWriteStream(file), { signal })
    const announced = response.headers['content-length']
    if (announced !== undefined && Number(announced) !== received)
      throw new DownloadProblem('the connection ended before the file did')
    return { ok: true }
  } catch (error) {
    if (error instanceof DownloadProblem)
      return { ok: false, reason: error.message, hostDown: error.hostDown }
    if (signal.aborted)
      return {
        ok: false,
        reason: options.signal.aborted
          ? 'the import was interrupted'
          : `it took longer than ${options.deadlineMs} ms`,
        hostDown: !options.signal.aborted,
      }
    const code = error instanceof Error && 'code' in error ? String(error.code) : ''
    return {
      ok: false,
      reason:
        `the server cannot be reached ` +
        `(${code || (error instanceof Error ? error.message : String(error))})`,
      hostDown: code !== '',
    }
  }
}

async function follow(
  url: string,
  allowPrivate: boolean,
  signal: AbortSignal,
): Promise<IncomingMessage> {
  let at = url
  for (let hop = 0; hop <= redirectsMax; hop += 1) {
    const response = await request(at, allowPrivate, signal)
    const status = response.statusCode ?? 0
    const { location } = response.headers
    if (status >= 300 && status < 400 && location !== undefined) {
      response.destroy()
      if (!URL.canParse(location, at))
        throw new DownloadProblem('it is redirected to what is no address')
      at = new URL(location, at).toString()
    } else if (status === 200) return response
    else {
      response.destroy()
      throw new DownloadProblem(`the server responded with status ${status}`)
    }
  }
  throw new DownloadProblem(`it is redirected more than ${redirectsMax} times`)
}

async function request(
  url: string,
  allowPrivate: boolean,
  signal: AbortSignal,
): Promise<IncomingMessage> {
  const target = URL.canParse(url) ? new URL(url) : null
  if (target === null || (target.protocol !== 'http:' && target.protocol !== 'https:'))
    throw new DownloadProblem('its address is not an http or https one')
  const host = target.hostname.replace(/^\[|\]$/g, '')
  if (!allowPrivate && isIP(host) !== 0 && isPrivateAddress(host))
    throw new DownloadProblem(refusal(host))
  const get = target.protocol === 'https:' ? httpsGet : httpGet
  return new Promise((resolve, reject) => {
    const asking = get(
      target,
      {
        signal,
        agent: false,
        lookup: allowPrivate ? lookup : publicLookup,
        headers: { 'user-agent': 'stoa-import', accept: '*/*' },
      },
      resolve,
    )
    asking.once('error', reject)
  })
}

const publicLookup: LookupFunction = (name, options, done) => {
  lookup(name, { ...options, all: true }, (error, addresses: LookupAddress[]) => {
    if (error !== null) {
      done(error, [])
      return
    }
    const bad = addresses.find(({ address }) => isPrivateAddress(address))
    if (bad !== undefined) {
      done(new DownloadProblem(refusal(bad.address)), [])
      return
    }
    const [first] = addresses
    if (options.all === true) done(null, addresses)
    else done(null, first?.address ?? '', first?.family)
  })
}

function refusal(address: string): string {
  return (
    `its address leads into a private network (${address}); --allow-private-addresses permits ` +
    `that`
  )
}
