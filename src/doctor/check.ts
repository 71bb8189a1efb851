import type { Config } from '#config/config.ts'
import type { SecondLevel } from '#cache/second-level.ts'
import type { ClusterLink } from '#cluster-link/cluster-link.ts'
import type { Database } from '#database/database.ts'

/** Something that is not as it should be. */
export type Finding = {
  /** The check that found it; docs/reference/doctor.md lists them. */
  readonly check: string
  /** `error`: data or a guarantee is in danger. `warning`: the rest. */
  readonly severity: 'error' | 'warning'
  /** The nodes that it is about, by name; empty: the cluster as a whole. */
  readonly nodes: readonly string[]
  readonly message: string
  /** The step that removes it. */
  readonly cure: string
}

export type CheckFinding = Omit<Finding, 'check' | 'nodes'> & { readonly nodes?: readonly string[] }

/** The facts that one node found out, as JSON: they travel between the nodes. */
export type Inspected<F> = { readonly node: string; readonly facts: F }

/** The place where a check inspects: a node, or the machine where the command runs. */
export type Surroundings = {
  readonly config: Config
  readonly database: Database
  readonly dataDir: string
  /** Null: a command, which follows no change feed. */
  readonly epoch: string | null
  /** By how much the clock here is ahead of the database's. */
  readonly clockSkewMs: () => Promise<number>
  /** Where others find this node. Null: nowhere. */
  readonly address: string | null
  readonly link: ClusterLink | null
  readonly secondLevel: SecondLevel | null
  /** Rejects where the file store is not the one that the database remembers. */
  readonly checkFiles: () => Promise<void>
  /** Reads the facts of each server that the URL of standbys names. Empty: there is no such URL. */
  readonly standbys: () => Promise<readonly Standby[]>
  /** Counts how requests through proxies arrived. Null: a command. */
  readonly forwarding: ForwardingCounts | null
}

export type Standby = { readonly host: string } & (
  | {
      readonly isStandby: boolean
      readonly feedback: boolean
      readonly system: string
    }
  | { readonly error: string }
)

/** Requests since the node was started, without health checks and metrics. */
export type ForwardingCounts = {
  readonly requests: number
  /** They had X-Forwarded-For. */
  readonly forwarded: number
  /** X-Forwarded-For had fewer addresses than proxies are trusted. */
  readonly tooFew: number
  /** X-Forwarded-For had ports in it. */
  readonly withPorts: number
}

export type Check = {
  readonly name: string
  /** For docs/reference/doctor.md: what it inspects, and what it reports. */
  readonly looksAt: string
  /** `node`: on every node. `once`: where the doctor was called. */
  readonly where: 'node' | 'once'
  readonly inspect: (here: Surroundings) => Promise<unknown>
  readonly evaluate: (inspected: readonly Inspected<unknown>[]) => readonly CheckFinding[]
}

type CheckOf<F> = Omit<Check, 'inspect' | 'evaluate'> & {
  /** Finds out facts, which JSON can carry. It may take a few seconds. */
  readonly inspect: (here: Surroundings) => Promise<F>
  /** Decides on the facts of all nodes, or of the one place. */
  readonly evaluate: (inspected: readonly Inspected<F>[]) => readonly CheckFinding[]
}

/** Makes an entry of the table of checks. */
export function check<F>({ evaluate, ...rest }: CheckOf<F>): Check {
  return {
    ...rest,
    evaluate: (inspected) => evaluate(inspected as readonly Inspected<F>[]),
  }
}

/** The nodes whose facts are so, by name. */
export function nodesWhere<F>(
  inspected: readonly Inspected<F>[],
  isSo: (facts: F) => boolean,
): string[] {
  return inspected.filter(({ facts }) => isSo(facts)).map(({ node }) => node)
}

/** One finding about all nodes whose facts are so; none where there is no such node. */
export function onNodes<F>(
  inspected: readonly Inspected<F>[],
  isSo: (facts: F) => boolean,
  finding: (first: F) => CheckFinding,
): CheckFinding[] {
  const nodes = nodesWhere(inspected, isSo)
  const first = inspected.find(({ facts }) => isSo(facts))
  return first === undefined ? [] : [{ nodes, ...finding(first.facts) }]
}
