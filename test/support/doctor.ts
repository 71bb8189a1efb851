import assert from 'node:assert/strict'
import { tmpdir } from 'node:os'
import { readConfig } from '#config/config.ts'
import type { Config } from '#config/config.ts'
import type { Finding, Surroundings } from '#doctor/check.ts'
import { checks } from '#doctor/checks.ts'
import { diagnose } from '#doctor/doctor.ts'

/** A place to inspect, with all defaults but what is given. */
export function testSurroundings(
  given: Pick<Surroundings, 'database'> & Partial<Surroundings>,
): Surroundings {
  return {
    config: readConfig({ file: {}, environment: {}, flags: {} }).config,
    dataDir: tmpdir(),
    epoch: null,
    clockSkewMs: async () => 0,
    address: null,
    link: null,
    secondLevel: null,
    checkFiles: async () => undefined,
    standbys: async () => [],
    forwarding: null,
    ...given,
  }
}

export function configWith(environment: Readonly<Record<string, string>>): Config {
  return readConfig({ file: {}, environment, flags: {} }).config
}

/** The findings of one check, each as `severity: message`. */
export async function found(name: string, here: Surroundings): Promise<string[]> {
  const { findings } = await diagnose({
    checks: checks.filter((one) => one.name === name),
    here,
    name: 'one',
    ask: async () => [],
  })
  return textsOf(findings)
}

export function textsOf(findings: readonly Finding[]): string[] {
  for (const { cure } of findings) assert.ok(cure.length > 20, cure)
  return findings.map(({ severity, message }) => `${severity}: ${message}`)
}

/** The findings of one check on these facts, one entry for each node. */
export function decided(name: string, facts: Readonly<Record<string, unknown>>): readonly string[] {
  const one = checks.find((each) => each.name === name)
  assert.ok(one !== undefined)
  return one
    .evaluate(Object.entries(facts).map(([node, each]) => ({ node, facts: each })))
    .map(({ severity, nodes = [], message }) => `${severity} ${nodes.join(',')}: ${message}`)
}
