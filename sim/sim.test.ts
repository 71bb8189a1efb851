import assert from 'node:assert/strict'
import { test } from 'node:test'
import { makePlan } from './plan.ts'
import { allRules } from './rules.ts'
import { Run } from './run.ts'
import { shrink } from './shrink.ts'

/** CI runs a bounded number; `npm run sim -- --seeds 10000` is the real thing. */
const seedsInCi = 400
/** Within so many seeds the simulation must notice that a rule is missing. */
const seedsToNotice = 600

test(`${seedsInCi} simulated clusters keep G1, G2, G3, G5 and come to rest`, () => {
  let readings = 0
  for (let seed = 1; seed <= seedsInCi; seed += 1) {
    const outcome = new Run(makePlan(seed), null, { trace: false }).go()
    assert.equal(outcome.violation, null, `npm run sim -- ${seed}\n${outcome.violation?.text}`)
    readings += outcome.readings
  }
  assert.ok(readings > seedsInCi * 50, 'clusters that read nothing prove nothing')
})

for (const rule of allRules) {
  test(`without "${rule}" the simulation finds a violation`, () => {
    for (let seed = 1; seed <= seedsToNotice; seed += 1)
      if (new Run(makePlan(seed), rule, { trace: false }).go().violation !== null) return
    assert.fail(`no violation in ${seedsToNotice} seeds`)
  })
}

test('a seed replays exactly, and its trace shrinks to one that fails in the same way', () => {
  const rule = 'R5 fills are fenced'
  const plan = makePlan(1)
  const first = new Run(plan, rule, { trace: true }).go()
  const second = new Run(plan, rule, { trace: true }).go()
  assert.notEqual(first.violation, null)
  assert.deepEqual(second.lines, first.lines)
  const short = shrink(plan, rule)
  assert.ok(
    short.items.length < plan.items.length / 4,
    `${short.items.length} of ${plan.items.length}`,
  )
  assert.equal(
    new Run(short, rule, { trace: false }).go().violation?.invariant,
    first.violation?.invariant,
  )
})
