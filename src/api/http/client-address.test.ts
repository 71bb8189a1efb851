import assert from 'node:assert/strict'
import type { IncomingMessage } from 'node:http'
import { test } from 'node:test'
import { removeForwardedPorts } from '#api/http/client-address.ts'

test('addresses in X-Forwarded-For lose their ports, and keep all else', () => {
  for (const [given, expected] of [
    ['1.2.3.4:5678', '1.2.3.4'],
    ['[2001:db8::1]:443, 10.0.0.1:80', '2001:db8::1, 10.0.0.1'],
    ['[2001:db8::1]', '2001:db8::1'],
    ['2001:db8::1, 1.2.3.4', '2001:db8::1, 1.2.3.4'],
    ['unknown, 1.2.3.4', 'unknown, 1.2.3.4'],
  ] as const) {
    const request = { headers: { 'x-forwarded-for': given } } as unknown as IncomingMessage
    removeForwardedPorts(request)
    assert.equal(request.headers['x-forwarded-for'], expected)
  }
})
