import type { Check, Finding, Inspected, Surroundings } from '#doctor/check.ts'
import type { CallReply } from '#nodes/calls.ts'
import { timedOut, withTimeout } from '#lib/timeout.ts'

/** The call by which a node inspects itself. */
export const doctorMethod = 'doctor'
/** One check, wherever it runs; all of them run at once. */
const inspectMaxMs = 6_500
/** A node that has not replied by then is reported. */
const askDeadlineMs = 8_000
const findingsMax = 500

/** The outcome of each check in one place. A text is the reason why there are no facts. */
export type Inspection = Readonly<
  Record<string, { readonly facts: unknown } | { readonly problem: string }>
>

export type Diagnosis = {
  readonly findings: readonly Finding[]
  /** The nodes that were inspected, by name. */
  readonly nodes: readonly string[]
  readonly checks: number
}

/** Runs those checks here, all at once, each with a deadline. Never rejects. */
export async function inspectHere(
  checks: readonly Check[],
  where: Check['where'],
  here: Surroundings,
): Promise<Inspection> {
  const outcomes = checks
    .filter((one) => one.where === where)
    .map(async ({ name, inspect }) => [name, await outcomeOf(inspect(here))] as const)
  return Object.fromEntries(await Promise.all(outcomes))
}

async function outcomeOf(work: Promise<unknown>): Promise<Inspection[string]> {
  try {
    const facts = await withTimeout(work, inspectMaxMs)
    return facts === timedOut
      ? { problem: `it took longer than ${inspectMaxMs / 1_000} s` }
      : { facts }
  } catch (error) {
    return { problem: error instanceof Error ? error.message : String(error) }
  }
}

export type DiagnoseOptions = {
  readonly checks: readonly Check[]
  /** The place where the doctor was called. */
  readonly here: Surroundings
  /** Its name, where it is inspected in place of nodes if none replies. Null: it is a node. */
  readonly name: string | null
  /** Calls a method on every node that lives. */
  readonly ask: (method: string, options: { deadlineMs: number }) => Promise<readonly CallReply[]>
}

/** Inspects every node and this place, and decides. Takes less than ten seconds. */
export async function diagnose(options: DiagnoseOptions): Promise<Diagnosis> {
  const { checks, here, name, ask } = options
  const [once, local, asked] = await Promise.all([
    inspectHere(checks, 'once', here),
    name === null ? {} : inspectHere(checks, 'node', here),
    askAll(ask),
  ])
  const inNodes = asked.inspections
  const inPlace = name === null ? [] : [{ node: name, facts: local }]
  const perNode = inNodes.length > 0 ? inNodes : inPlace
  const findings = [
    ...asked.findings,
    ...checks.flatMap((one) =>
      evaluated(one, one.where === 'once' ? [{ node: '', facts: once }] : perNode),
    ),
    ...problemsOf([{ node: '', facts: once }, ...perNode]),
  ]
  return {
    findings: findings
      .slice(0, findingsMax)
      .map((finding) => ({ ...finding, nodes: finding.nodes.toSorted() })),
    nodes: inNodes.map(({ node }) => node),
    checks: checks.length,
  }
}

type Asked = {
  readonly inspections: readonly Inspected<Inspection>[]
  readonly findings: readonly Finding[]
}

async function askAll(ask: DiagnoseOptions['ask']): Promise<Asked> {
  let replies: readonly CallReply[] = []
  try {
    const asked = await withTimeout(
      ask(doctorMethod, { deadlineMs: askDeadlineMs }),
      askDeadlineMs + 500,
    )
    if (asked === timedOut) throw new Error('the database did not respond in time')
    replies = asked
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error)
    return { inspections: [], findings: [notAsked(reason)] }
  }
  return {
    inspections: replies.flatMap((reply) =>
      reply.ok ? [{ node: reply.name, facts: reply.value as Inspection }] : [],
    ),
    findings: replies.flatMap((reply) =>
      reply.ok ? [] : [notInspected(reply.name, reply.error.message)],
    ),
  }
}

function notAsked(reason: string): Finding {
  return {
    check: 'nodes',
    severity: 'error',
    nodes: [],
    message: `The nodes could not be asked: ${reason}`,
    cure: 'See that the database can be reached from here; what follows is about this machine.',
  }
}

function notInspected(node: string, reason: string): Finding {
  return {
    check: 'nodes',
    severity: 'warning',
    nodes: [node],
    message: `The node could not be inspected: ${reason}`,
    cure: 'Look at its log; if it runs another version, bring all nodes to the same one.',
  }
}

function evaluated(one: Check, places: readonly Inspected<Inspection>[]): Finding[] {
  const inspected = places.flatMap(({ node, facts }) => {
    const outcome = facts[one.name]
    return outcome !== undefined && 'facts' in outcome ? [{ node, facts: outcome.facts }] : []
  })
  if (inspected.length === 0) return []
  return one
    .evaluate(inspected)
    .map((finding) => ({ check: one.name, ...finding, nodes: finding.nodes ?? [] }))
}

/** One finding for each reason, since a database that is away stops many checks. */
function problemsOf(places: readonly Inspected<Inspection>[]): Finding[] {
  const byReason = new Map<string, { checks: Set<string>; nodes: Set<string> }>()
  for (const { node, facts } of places)
    for (const [name, outcome] of Object.entries(facts)) {
      if (!('problem' in outcome)) continue
      const group = byReason.get(outcome.problem) ?? { checks: new Set(), nodes: new Set() }
      group.checks.add(name)
      if (node !== '') group.nodes.add(node)
      byReason.set(outcome.problem, group)
    }
  return [...byReason].map(([reason, { checks, nodes }]) => ({
    check: [...checks][0]!,
    severity: 'warning',
    nodes: [...nodes],
    message: `Not examined (${[...checks].join(', ')}): ${reason}`,
    cure: 'Remove the reason, and run stoa doctor again.',
  }))
}
