import assert from 'node:assert/strict'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { Tasks } from '#lib/tasks.ts'

test('ended waits for all work, also for work that was added meanwhile', async () => {
  const tasks = new Tasks()
  const done: string[] = []
  const first = async (): Promise<void> => {
    await sleep(1)
    tasks.add(sleep(1).then(() => done.push('second')))
    done.push('first')
  }
  tasks.add(first())
  assert.equal(tasks.count, 1)
  await tasks.ended()
  assert.deepEqual([done, tasks.count], [['first', 'second'], 0])
})
