import type { Rule } from '#change-feed/change.ts'

/** Rules that the database, its schema and its drivers hold; the others are in the cores. */
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

export type RuleSwitch = Rule | (typeof modelRules)[number]

const coreRules: readonly Rule[] = [
  'R2 hints are not trusted',
  'R5 fills are fenced',
  'R5 an invalidated fill is detached',
  'R6 lease',
  'R6 heartbeat',
  'R7 tokens',
  'R9 the second level is validated',
  'R11 epoch',
  'R11 trimmed changes flush',
  'R12 the row before counts',
]

export const allRules: readonly RuleSwitch[] = [...modelRules, ...coreRules]

export function coreRule(rule: RuleSwitch | null): Rule | undefined {
  return coreRules.find((known) => known === rule)
}
