/**
 * `npm run bench -- NAME [--json]`: measures one claim against a baseline in the same run, prints
 * every figure, and ends with status 1 below a stated ratio. `npm run bench` lists the names.
 */
import { globSync } from 'node:fs'
import { basename } from 'node:path'
import type { Benchmark, Figure } from './support/benchmark.ts'

const names = globSync(`${import.meta.dirname}/*.ts`)
  .map((file) => basename(file, '.ts'))
  .filter((name) => name !== 'bench')
  .sort()
const args = process.argv.slice(2)
const json = args.includes('--json')
const name = args.find((argument) => !argument.startsWith('--'))

if (name === undefined || !names.includes(name)) {
  process.stderr.write(`usage: npm run bench -- NAME [--json]\nnames: ${names.join(', ')}\n`)
  process.exit(2)
}

const { benchmark } = (await import(`./${name}.ts`)) as { benchmark: Benchmark }
const say = (line: string): void => void process.stderr.write(`${line}\n`)
const { claim } = benchmark
const { figures, notes } = await benchmark.run(say)
const failed = figures.filter(
  (figure) =>
    (figure.atLeast !== undefined && figure.value < figure.atLeast) ||
    (figure.atMost !== undefined && figure.value > figure.atMost),
)

if (json)
  process.stdout.write(
    `${JSON.stringify({ name, claim, figures, notes, ok: failed.length === 0 }, null, 2)}\n`,
  )
else {
  process.stdout.write(`\n${claim}\n`)
  for (const figure of figures) {
    const bound = boundOf(figure)
    const verdict = failed.includes(figure) ? 'MISSED' : 'held'
    const columns = [
      figure.name.padEnd(44),
      String(figure.value).padStart(10),
      figure.unit.padEnd(8),
      bound.padEnd(10),
      bound === '' ? '' : verdict,
    ]
    process.stdout.write(`  ${columns.join(' ')}\n`)
  }
  for (const note of notes) process.stdout.write(`  ${note}\n`)
}
process.exitCode = failed.length === 0 ? 0 : 1

function boundOf({ atLeast, atMost }: Figure): string {
  if (atLeast !== undefined) return `≥ ${atLeast}`
  return atMost === undefined ? '' : `≤ ${atMost}`
}
