import type { IncomingMessage } from 'node:http'

/** `192.0.2.1:443` and `[2001:db8::1]:443`, as some gateways write an address with its port. */
const withPort = /^(?:\[([0-9a-f:.]+)\](?::\d{1,5})?|(\d{1,3}(?:\.\d{1,3}){3}):\d{1,5})$/i

/**
 * Takes the ports out of `X-Forwarded-For`. With them each connection of a client would look like
 * another client, or, where an address is needed, like none.
 */
export function removeForwardedPorts({ headers }: IncomingMessage): void {
  const forwarded = headers['x-forwarded-for']
  if (typeof forwarded !== 'string' || !/[:\]]/.test(forwarded)) return
  headers['x-forwarded-for'] = forwarded.split(',').map(withoutPort).join(', ')
}

function withoutPort(text: string): string {
  const address = text.trim()
  const found = withPort.exec(address)
  return found?.[1] ?? found?.[2] ?? address
}

/**
 * The address that was seen by the nearest proxy, which no client can choose, or by this node: who
 * shares turns with whom. Behind several proxies it is that of the second.
 */
export function lastAddress({ headers, socket }: IncomingMessage, behindProxy: boolean): string {
  const forwarded = behindProxy ? headers['x-forwarded-for'] : undefined
  const text = typeof forwarded === 'string' ? forwarded : ''
  return text.slice(text.lastIndexOf(',') + 1).trim() || (socket.remoteAddress ?? '')
}
