import { connect } from 'node:tls'
import { check, onNodes } from '#doctor/check.ts'
import type { Check, ForwardingCounts } from '#doctor/check.ts'
import { sql } from '#database/database.ts'
import { parseNodeInfo } from '#nodes/node-info.ts'
import { silentAfterMs } from '#nodes/cluster-status.ts'

const publicTimeoutMs = 4_000
const certificateDaysMin = 14
const dayMs = 86_400_000
/** Fewer requests than that say nothing about the proxies. */
const requestsMin = 20
/** A type that was changed a moment ago is being upgraded. */
const upgradeGraceS = 300

const nodeInfos = sql<{ id: string; info: string; silent_ms: number }>(
  `select id, info, extract(epoch from clock_timestamp() - seen_at)::float8 * 1000 as silent_ms
   from stoa.node order by id limit 1000`,
  'never',
)

type Traits = { readonly name: string; readonly traits: Readonly<Record<string, string>> }

const settings = check<{ readonly nodes: readonly Traits[] }>({
  name: 'settings',
  looksAt: 'settings that should be the same on every node, and are not',
  where: 'once',
  inspect: async ({ database }) => {
    const rows = await database.run(nodeInfos)
    const live = rows.filter(({ silent_ms: silentMs }) => silentMs <= silentAfterMs)
    return {
      nodes: live.map(({ id, info }) => {
        const { name, traits = {} } = parseNodeInfo(id, info)
        return { name, traits }
      }),
    }
  },
  evaluate: ([seen]) => {
    const nodes = seen?.facts.nodes ?? []
    const names = new Set(nodes.flatMap(({ traits }) => Object.keys(traits)))
    return [...names]
      .filter((name) => name.startsWith('setting.'))
      .flatMap((name) => {
        const having = nodes.filter(({ traits }) => traits[name] !== undefined)
        const groups = Map.groupBy(having, ({ traits }) => traits[name])
        if (groups.size < 2) return []
        const text = [...groups.values()].map((group) => group.map((one) => one.name).join(', '))
        return [
          {
            severity: 'warning' as const,
            nodes: having.map((one) => one.name),
            message: `The setting ${name.slice('setting.'.length)} differs: ${text.join(' / ')}.`,
            cure: 'Set it to the same value on every node, and restart those that differ.',
          },
        ]
      })
  },
})

const types = check<{ readonly names: readonly string[] }>({
  name: 'types',
  looksAt: 'content types whose entries were not brought up to date after a change',
  where: 'once',
  inspect: async ({ database }) => {
    const rows = await database.run(
      sql<{ name: string }>(
        `select name from stoa.content_type where settled_revision < revision
           and updated_at < now() - interval '${upgradeGraceS} seconds' order by name limit 20`,
        'never',
      ),
    )
    return { names: rows.map(({ name }) => name) }
  },
  evaluate: ([seen]) =>
    seen === undefined || seen.facts.names.length === 0
      ? []
      : [
          {
            severity: 'warning',
            message: `Not up to date with their type: entries of ${seen.facts.names.join(', ')}.`,
            cure: 'See that a node runs, and look at its log for the job upgrade-types.',
          },
        ],
})

const jobs = check<{ readonly kinds: readonly { kind: string; count: number }[] }>({
  name: 'jobs',
  looksAt: 'jobs that were parked after too many failures',
  where: 'once',
  inspect: async ({ database }) => ({
    kinds: await database.run(
      sql<{ kind: string; count: number }>(
        `select kind, count(*)::int as count from stoa.job where state = 'parked'
         group by kind order by kind limit 50`,
        'never',
      ),
    ),
  }),
  evaluate: ([seen]) =>
    (seen?.facts.kinds ?? []).map(({ kind, count }) => ({
      severity: 'warning' as const,
      message: `${count} ${count === 1 ? 'job' : 'jobs'} of the kind ${kind} failed too often.`,
      cure: 'Look at the reason of each, remove it, and have them retried.',
    })),
})

type Public = {
  readonly url: string | null
  readonly expiresInDays: number | null
  readonly tokenArrives: boolean | null
  readonly problem: string | null
}

const publicUrl = check<Public>({
  name: 'public-url',
  looksAt:
    'STOA_PUBLIC_URL: not reached, without TLS, with a certificate near its end, or through a ' +
    'proxy that strips Stoa-Token',
  where: 'once',
  inspect: async ({ config }) => {
    const { publicUrl: url } = config
    if (url === null) return { url, expiresInDays: null, tokenArrives: null, problem: null }
    const [expiresInDays, arrival] = await Promise.all([certificateDays(url), tokenArrival(url)])
    return { url, expiresInDays, ...arrival }
  },
  evaluate: ([seen]) => (seen === undefined ? [] : publicFindings(seen.facts)),
})

function publicFindings({ url, expiresInDays, tokenArrives, problem }: Public) {
  const findings: readonly (readonly [is: boolean, message: string, cure: string])[] = [
    [
      url?.startsWith('http:') === true && !isLocal(url),
      'STOA_PUBLIC_URL has no TLS: sign-ins and sessions can be read on the way.',
      'Serve the site by https, and set STOA_PUBLIC_URL to that.',
    ],
    [
      expiresInDays !== null && expiresInDays < certificateDaysMin,
      `The certificate of the site ends in ${expiresInDays} days.`,
      'Renew it, and see why it was not renewed by itself.',
    ],
    [
      problem !== null,
      `The site is not reached at STOA_PUBLIC_URL: ${problem}`,
      'Correct STOA_PUBLIC_URL, the name in DNS, or the proxy there.',
    ],
    [
      tokenArrives === false,
      'A proxy at STOA_PUBLIC_URL strips the header Stoa-Token: readers may miss their own writes.',
      'Let the proxy pass Stoa-Token in requests and in responses.',
    ],
  ]
  return findings.flatMap(([is, message, cure]) =>
    is ? [{ severity: 'warning' as const, message, cure }] : [],
  )
}

function isLocal(url: string): boolean {
  return /^(localhost|127\.\d+\.\d+\.\d+|\[::1\])$/.test(new URL(url).hostname)
}

/** A token that means nothing is refused, if it arrives. */
async function tokenArrival(url: string): Promise<Pick<Public, 'tokenArrives' | 'problem'>> {
  try {
    const response = await fetch(new URL('/api/locales', url), {
      headers: { 'stoa-token': 'doctor' },
      redirect: 'manual',
      signal: AbortSignal.timeout(publicTimeoutMs),
    })
    const text = await response.text()
    return { tokenArrives: response.status === 400 && text.includes('stoa-token'), problem: null }
  } catch (error) {
    const cause = error instanceof Error && error.cause instanceof Error ? error.cause : error
    return { tokenArrives: null, problem: cause instanceof Error ? cause.message : String(cause) }
  }
}

/** Null: there is none, or it is not to be had. */
async function certificateDays(url: string): Promise<number | null> {
  const { protocol, hostname, port } = new URL(url)
  if (protocol !== 'https:') return null
  const host = hostname.replace(/^\[(.*)\]$/, '$1')
  return new Promise((resolve) => {
    const socket = connect({
      host,
      port: port === '' ? 443 : Number(port),
      ...(/^[\d.:]+$/.test(host) ? {} : { servername: host }),
      // It is only looked at.
      rejectUnauthorized: false,
    })
    const end = (days: number | null): void => {
      socket.destroy()
      resolve(days)
    }
    socket.setTimeout(publicTimeoutMs, () => end(null))
    socket.once('error', () => end(null))
    socket.once('secureConnect', () => {
      const until = Date.parse(socket.getPeerCertificate().valid_to)
      end(Number.isNaN(until) ? null : Math.floor((until - Date.now()) / dayMs))
    })
  })
}

type Forwarding = { readonly trusted: number; readonly counts: ForwardingCounts | null }

const forwarding = check<Forwarding>({
  name: 'forwarding',
  looksAt: 'X-Forwarded-For as it arrived, against STOA_TRUST_PROXY, and ports in it',
  where: 'node',
  inspect: async ({ config, forwarding: counts }) => ({ trusted: config.trustProxy, counts }),
  evaluate: (inspected) => {
    const seen = inspected.filter(({ facts }) => (facts.counts?.requests ?? 0) >= requestsMin)
    const mostly = (part: number, { requests }: ForwardingCounts): boolean => part > requests / 2
    return [
      ...onNodes(
        seen,
        ({ trusted, counts }) => trusted === 0 && mostly(counts!.forwarded, counts!),
        () => ({
          severity: 'warning',
          message:
            'Requests arrive through a proxy that is not trusted: all clients count as one ' +
            'address.',
          cure: 'Set STOA_TRUST_PROXY to the number of proxies before the node.',
        }),
      ),
      ...onNodes(
        seen,
        ({ trusted, counts }) => trusted > 0 && mostly(counts!.tooFew, counts!),
        ({ trusted }) => ({
          severity: 'error',
          message:
            `STOA_TRUST_PROXY is ${trusted}, and X-Forwarded-For has fewer addresses: clients ` +
            'can choose their own.',
          cure: 'Set STOA_TRUST_PROXY to the number of proxies that add to X-Forwarded-For.',
        }),
      ),
      ...onNodes(
        seen,
        ({ counts }) => mostly(counts!.withPorts, counts!),
        () => ({
          severity: 'warning',
          message: 'A proxy writes ports into X-Forwarded-For; they are taken out.',
          cure: 'Let the proxy add the address alone.',
        }),
      ),
    ]
  },
})

export const siteChecks: readonly Check[] = [settings, types, jobs, publicUrl, forwarding]
