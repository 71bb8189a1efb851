import { everyRule } from '#change-feed/rules.ts'
import type { Rules } from '#change-feed/rules.ts'

/** Rules that the database, its schema and its drivers hold. */
const modelRules = [
  'R1 the change is in the write',
  'R3 no logical decoding',
  'R4 the cursor is a snapshot',
  'R5 data and snapshot in one statement',
  'R8 replicas by position',
  'R8 no snapshot of a standby',
  'R11 a crash ends the epoch',
  'G5 effects are fenced',
] as const

/** Rules that the state machines hold, with the switch of each. */
const coreSwitches = {
  'R2 hints are not trusted': 'hintsUntrusted',
  'R5 fills are fenced': 'fillsFenced',
  'R5 an invalidated fill is detached': 'fillsDetached',
  'R6 lease': 'lease',
  'R6 heartbeat': 'heartbeat',
  'R7 tokens': 'tokens',
  'R9 the second level is validated': 'secondLevelChecked',
  'R11 epoch': 'epoch',
  'R11 trimmed changes flush': 'trimmedFlush',
  'R12 the row before counts': 'rowBefore',
} as const satisfies Record<string, keyof Rules>

type CoreRule = keyof typeof coreSwitches
export type RuleSwitch = CoreRule | (typeof modelRules)[number]

const coreNames = Object.keys(coreSwitches) as CoreRule[]

export const allRules: readonly RuleSwitch[] = [...modelRules, ...coreNames]

/** The rules of the state machines when `without` is removed. */
export function coreRules(without: RuleSwitch | null): Rules {
  const name = coreNames.find((known) => known === without)
  return name === undefined
    ? everyRule
    : Object.freeze({ ...everyRule, [coreSwitches[name]]: false })
}
