/**
 * `npm run sim -- SEED` replays one simulated cluster and prints what happened.
 * `npm run sim -- --seeds N [--from SEED]` runs N of them. `--without RULE` removes a rule of
 * DESIGN §5, to see that it is missed. Ends non-zero on a violation, after printing its seed and
 * the shortest trace that still has it.
 */
import { parseArgs } from 'node:util'
import { makePlan } from './plan.ts'
import { allRules } from './rules.ts'
import type { RuleSwitch } from './rules.ts'
import { Run } from './run.ts'
import { shrink } from './shrink.ts'

const seedMax = 2 ** 32 - 1

function usage(problem: string): never {
  process.stderr.write(
    `${problem}\nusage: npm run sim -- SEED | --seeds N [--from SEED] [--without RULE]\nrules:\n` +
      allRules.map((rule) => `  ${rule}\n`).join(''),
  )
  process.exit(2)
}

function number(text: string | undefined, name: string): number {
  const value = Number(text)
  if (text === undefined || !Number.isInteger(value) || value < 0 || value > seedMax)
    usage(`${name} must be a whole number from 0 to ${seedMax}, not ${text ?? 'nothing'}.`)
  return value
}

function rule(text: string | undefined): RuleSwitch | null {
  if (text === undefined) return null
  return (
    allRules.find((known) => known === text || known.startsWith(`${text} `)) ??
    usage(`There is no rule ${text}.`)
  )
}

function explain(seed: number, without: RuleSwitch | null): void {
  const plan = makePlan(seed)
  const short = shrink(plan, without)
  const { violation, lines } = new Run(short, without, { trace: true }).go()
  process.stdout.write(
    [
      '',
      `seed ${seed}: violation, in ${short.items.length} of ${plan.items.length} steps; ` +
        describe(short),
      '',
      ...lines.filter((line) => !line.includes('heartbeat')),
      '',
      violation?.text ?? '',
      '',
    ].join('\n'),
  )
}

function describe(plan: ReturnType<typeof makePlan>): string {
  return [
    `${plan.nodes} nodes`,
    commitsOf(plan),
    ...(plan.replica ? ['fills from the replica'] : []),
    ...(plan.secondLevel ? ['a second level'] : []),
    `${plan.gapMs} ms between polls`,
  ].join(', ')
}

function commitsOf(plan: ReturnType<typeof makePlan>): string {
  if (plan.synchronous) return 'synchronous replication'
  return plan.asynchronousCommit ? 'commits not flushed at once' : 'asynchronous replication'
}

function main(): void {
  const { values, positionals } = parseArgs({
    options: { seeds: { type: 'string' }, from: { type: 'string' }, without: { type: 'string' } },
    allowPositionals: true,
  })
  const without = rule(values.without)
  if (values.seeds === undefined) {
    const seed = number(positionals[0], 'SEED')
    const plan = makePlan(seed)
    const { violation, lines, readings } = new Run(plan, without, { trace: true }).go()
    if (violation === null) {
      process.stdout.write(
        `${lines.join('\n')}\n\n` +
          `seed ${seed}: ${describe(plan)}; ${readings} readings, no violation\n`,
      )
      return
    }
    explain(seed, without)
    process.exitCode = 1
    return
  }
  const seeds = number(values.seeds, '--seeds')
  const from = number(values.from ?? '1', '--from')
  const startedAt = performance.now()
  let readings = 0
  for (let seed = from; seed < from + seeds; seed += 1) {
    const outcome = new Run(makePlan(seed), without, { trace: false }).go()
    readings += outcome.readings
    if (outcome.violation !== null) {
      explain(seed, without)
      process.exitCode = 1
      return
    }
    if (process.stderr.isTTY && seed % 100 === 0)
      process.stderr.write(`\r${seed - from} of ${seeds} seeds`)
  }
  process.stdout.write(
    `${seeds} seeds from ${from}: ${readings} readings checked, 0 violations, ` +
      `${((performance.now() - startedAt) / 1_000).toFixed(1)} s\n`,
  )
}

main()
