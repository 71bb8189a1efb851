import assert from 'node:assert/strict'
import { test } from 'node:test'
import { lookUp } from '#access/credential-lookup.ts'
import type { CredentialSource, Validity } from '#access/credential-lookup.ts'
import { lastUseResolutionMs } from '#access/last-use.ts'
import { Cache } from '#cache/cache.ts'
import { sql } from '#database/database.ts'
import { HandClock, testAccess, testPassword, until } from '#test/support/access.ts'
import { databaseMissing as skip, testDatabase } from '#test/support/database.ts'
import { testSite } from '#test/support/site.ts'

type Found = { readonly from: string; readonly validity: Validity }

test('before a credential is refused the primary is asked', { skip }, async () => {
  await using site = await testSite()
  const cache = new Cache({ feed: site.feed, database: site.database })
  const find = async (
    key: string,
    cached: Found | null,
    primary: Found | null,
  ): Promise<string | null> => {
    const source: CredentialSource<Found> = {
      key,
      fill: async (fill) => {
        await fill.run(sql(`select 1`))
        return cached
      },
      readPrimary: async () => primary,
      validity: (found) => found.validity,
    }
    return (await lookUp({ cache }, source, { fresh: false }))?.found.from ?? null
  }
  const primary: Found = { from: 'primary', validity: 'valid' }
  const from = (validity: Validity): Found => ({ from: 'cache', validity })
  assert.equal(await find('a', from('valid'), null), 'cache')
  assert.equal(await find('b', null, primary), 'primary', 'a standby does not have it yet')
  assert.equal(await find('c', from('doubtful'), primary), 'primary', 'used on another node')
  assert.equal(await find('d', from('ended'), primary), null)
  assert.equal(await find('e', null, null), null)
  cache.close()
})

test('signing in gives a token like any write, and signing out too', { skip }, async () => {
  await using site = await testSite()
  await site.access.users.create(site.database, site.access.systemIdentity, {
    email: 'ada@example.com',
    name: 'Ada',
    password: testPassword,
    roles: ['author'],
  })
  const signIn = await site.request('POST', '/api/session', {
    as: 'anonymous',
    body: { email: 'ada@example.com', password: testPassword },
  })
  assert.match(signIn.headers['stoa-token'] ?? '', /^\S+-\d+$/)
  const cookie = String(signIn.headers['set-cookie']).match(/stoa_session=[^;]+/)![0]
  const signOut = await site.request('DELETE', '/api/session', {
    as: 'anonymous',
    headers: { cookie, 'x-csrf-token': signIn.json.data.csrfToken },
  })
  assert.equal(signOut.status, 204)
  assert.match(signOut.headers['stoa-token'] ?? '', /^\S+-\d+$/)
})

test(
  'uses of sessions and API tokens are recorded, and announced to no node',
  { skip },
  async () => {
    await using db = await testDatabase()
    const clock = new HandClock()
    const access = testAccess(db.database, clock)
    const { token, info } = await access.tokens.create(db.database, access.systemIdentity, {
      name: 'site',
      roles: ['author'],
      expiresAt: null,
    })
    const changes = async (): Promise<number> => {
      const count = sql<{ count: number }>(`select count(*)::int as count from stoa.change`)
      return (await db.database.run(count))[0]!.count
    }
    const before = await changes()
    for (let use = 0; use < 3; use += 1) {
      await access.identify({ bearer: token, sessionCookie: null })
      const now = new Date(clock.nowMs()).toISOString()
      await until(async () => {
        const found = (await access.tokens.list()).find((one) => one.id === info.id)
        return found?.lastUsedAt === now
      })
      clock.advance(lastUseResolutionMs)
    }
    assert.equal(await changes(), before)
  },
)
