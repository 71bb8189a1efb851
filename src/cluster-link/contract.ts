import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { ClusterLink } from '#cluster-link/cluster-link.ts'
import { linkTextMax } from '#cluster-link/cluster-link.ts'
import { LinkMessageError, LinkUnavailableError } from '#cluster-link/errors.ts'

const messageTimeoutMs = 5_000

/** The suite that every driver of Cluster Link passes. `open` makes links to each other. */
export function linkContract(
  name: string,
  options: {
    readonly skip: string | false
    readonly open: (
      count: number,
    ) => Promise<AsyncDisposable & { readonly links: readonly ClusterLink[] }>
  },
): void {
  const { skip, open } = options

  test(
    `${name}: a message reaches every node that listens on its channel, whole`,
    { skip },
    async () => {
      await using opened = await open(3)
      const [sender, ...others] = opened.links
      const text = 'x'.repeat(linkTextMax)
      const received = others.map((link) => next(link, 'feed'))
      const elsewhere: string[] = []
      others[0]?.listen('other', (one) => elsewhere.push(one))
      await sender?.send('feed', text)
      assert.deepEqual(await Promise.all(received), [text, text])
      assert.deepEqual(elsewhere, [])
    },
  )

  test(`${name}: a listener that was disposed receives nothing more`, { skip }, async () => {
    await using opened = await open(2)
    const [one, other] = opened.links as [ClusterLink, ClusterLink]
    const received: string[] = []
    const listening = other.listen('feed', (text) => received.push(text))
    listening[Symbol.dispose]()
    const last = next(other, 'feed')
    await one.send('feed', 'a b')
    assert.equal(await last, 'a b')
    assert.deepEqual(received, [])
  })

  test(`${name}: refuses what it could not carry`, { skip }, async () => {
    await using opened = await open(1)
    const [link] = opened.links as [ClusterLink]
    for (const [channel, text] of [
      ['Feed', 'x'],
      ['', 'x'],
      ['feed', 'x'.repeat(linkTextMax + 1)],
      ['feed', 'é'],
      ['feed', 'a\nb'],
    ] as const) {
      await assert.rejects(link.send(channel, text), LinkMessageError)
    }
  })

  test(`${name}: a closed link says so, and can be closed again`, { skip }, async () => {
    await using opened = await open(1)
    const [link] = opened.links as [ClusterLink]
    await link.close()
    await link.close()
    assert.equal(link.connected, false)
    await assert.rejects(link.send('feed', 'x'), LinkUnavailableError)
  })
}

async function next(link: ClusterLink, channel: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const timeout = setTimeout(
      () => reject(new Error(`no message on ${channel}`)),
      messageTimeoutMs,
    )
    const listening = link.listen(channel, (text) => {
      clearTimeout(timeout)
      listening[Symbol.dispose]()
      resolve(text)
    })
  })
}
