import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { sql } from '#database/database.ts'
import { databaseMissing, testDatabase } from '#test/support/database.ts'
import { leaderLeaseMs } from '#test/support/leader-process.ts'

/**
 * G5 on real processes, with the effects of a leader that nothing but its fence keeps from
 * happening twice.
 */
const ticks = 1_000
const nodes = 3
const deadlineMs = 180_000
const program = new URL('support/leader-process.ts', import.meta.url).pathname

const makeTable = sql(
  `create table effect (tick int not null, who text not null,
     at timestamptz not null default clock_timestamp())`,
)
const effects = sql<{ tick: number; who: string }>(`select tick, who from effect order by tick, at`)
const count = sql<{ count: number }>(`select count(*)::int as count from effect`)

type Leader = { readonly process: ChildProcess; readonly ended: Promise<void>; output(): string }

function startLeader(url: string, mode: 'slow' | 'ticks'): Leader {
  const child = spawn(process.execPath, [program, url, mode], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  let output = ''
  child.stdout.on('data', (chunk) => (output += String(chunk)))
  return {
    process: child,
    ended: new Promise((resolve) => child.once('close', () => resolve())),
    output: () => output,
  }
}

async function until(what: () => boolean | Promise<boolean>, text: string): Promise<void> {
  const deadline = Date.now() + deadlineMs
  while (!(await what())) {
    assert.ok(Date.now() < deadline, text)
    await sleep(20)
  }
}

test(
  'a leader that is stopped in the middle of its work, past its lease, commits nothing later',
  { skip: databaseMissing },
  async () => {
    await using db = await testDatabase()
    await db.database.run(makeTable)
    const first = startLeader(db.url, 'slow')
    await until(() => first.output().includes('middle'), 'the first leads')
    first.process.kill('SIGSTOP')
    const second = startLeader(db.url, 'ticks')
    try {
      // The transaction of the first holds the duty until the server ends it, a lease later; then
      // the lease of the duty has to pass.
      await until(async () => (await db.database.run(count))[0]!.count > 10, 'the second took over')
      first.process.kill('SIGCONT')
      await first.ended
      assert.match(first.output(), /refused E_/)
      const all = await db.database.run(effects)
      assert.deepEqual([...new Set(all.map(({ who }) => who))], [String(second.process.pid)])
    } finally {
      for (const { process } of [first, second]) process.kill('SIGKILL')
      await Promise.all([first.ended, second.ended])
    }
  },
)

test(
  `${ticks} ticks of a schedule under random kills and stops: each took effect exactly once`,
  { skip: databaseMissing },
  async (t) => {
    await using db = await testDatabase()
    await db.database.run(makeTable)
    const leaders = Array.from({ length: nodes }, () => startLeader(db.url, 'ticks'))
    let kills = 0
    let stops = 0
    try {
      const deadline = Date.now() + deadlineMs
      while ((await db.database.run(count))[0]!.count < ticks) {
        assert.ok(Date.now() < deadline, `the ticks do not come on after ${kills} kills`)
        await sleep(Math.random() * leaderLeaseMs)
        // The one that leads is the one to harm; the others now and then.
        const [row] = await db.database.run(
          sql<{ who: string }>(`select who from effect order by at desc limit 1`),
        )
        const leading = leaders.findIndex(({ process }) => String(process.pid) === row?.who)
        const at =
          leading === -1 || Math.random() < 0.3 ? Math.floor(Math.random() * nodes) : leading
        const victim = leaders[at]!
        if (Math.random() < 0.5) {
          victim.process.kill('SIGSTOP')
          await sleep(leaderLeaseMs * (0.5 + Math.random() * 2))
          victim.process.kill('SIGCONT')
          stops += 1
        } else {
          victim.process.kill('SIGKILL')
          await victim.ended
          leaders[at] = startLeader(db.url, 'ticks')
          kills += 1
        }
      }
    } finally {
      for (const { process } of leaders) process.kill('SIGKILL')
      await Promise.all(leaders.map(async ({ ended }) => ended))
    }
    const all = (await db.database.run(effects)).map(({ tick }) => tick)
    assert.deepEqual(
      all,
      Array.from({ length: all.length }, (_, index) => index + 1),
      'none twice, none left out',
    )
    t.diagnostic(`${all.length} ticks, ${kills} kills, ${stops} stops`)
  },
)
