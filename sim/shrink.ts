import type { Plan } from './plan.ts'
import { Run } from './run.ts'
import type { RuleSwitch } from './rules.ts'

/** Runs that one shrinking may take. */
const runsMax = 600

/**
 * Takes items out of a failing plan for as long as it still fails in the same invariant: halves
 * first, then smaller pieces (Zeller and Hildebrandt, "Simplifying and Isolating Failure-Inducing
 * Input", 2002).
 */
export function shrink(plan: Plan, without: RuleSwitch | null): Plan {
  const invariant = new Run(plan, without, { trace: false }).go().violation?.invariant
  let best = plan
  let runs = 0
  for (let size = Math.ceil(plan.items.length / 2); size >= 1 && runs < runsMax;) {
    let smaller = false
    for (let from = 0; from < best.items.length && runs < runsMax;) {
      const candidate = {
        ...best,
        items: best.items.filter((_, index) => index < from || index >= from + size),
      }
      runs += 1
      if (new Run(candidate, without, { trace: false }).go().violation?.invariant === invariant) {
        best = candidate
        smaller = true
      } else from += size
    }
    if (!smaller || size > 1) size = size === 1 ? 0 : Math.floor(size / 2)
  }
  return best
}
