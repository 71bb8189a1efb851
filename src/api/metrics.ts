import { collectDefaultMetrics, Counter, Gauge, Histogram, Registry } from 'prom-client'
import type { Metric } from 'prom-client'
import type { ApiContext, ClusterParts } from '#api/api-context.ts'
import { jobsGauge } from '#api/job-metrics.ts'
import type { Database } from '#database/database.ts'

/** Buckets of response times, in seconds. */
const durationBuckets = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30]
/** Gauges of the library that are named like counters; the same are there by type. */
const misnamed = ['handles', 'requests', 'resources'].map((each) => `nodejs_active_${each}_total`)
/** The text is made at most this often, since anyone may ask for it. */
const textMs = 100

export type Observation = {
  readonly method: string
  readonly route: string
  readonly status: number
  readonly seconds: number
}

/**
 * What this node did and how it is, for Prometheus. Labels are route patterns, never what a client
 * sent.
 */
export class Metrics {
  readonly registry = new Registry()
  readonly #durations: Histogram<'method' | 'route' | 'status'>
  readonly #shed: Counter
  readonly #nowMs: () => number
  #text: { readonly atMs: number; readonly made: Promise<string> } | null = null
  #fast = 0
  #inexact = 0

  constructor(context: ApiContext) {
    const { cluster, clock, database, places, version } = context
    const registers = [this.registry]
    this.#nowMs = () => clock.monotonicMs()
    collectDefaultMetrics({ register: this.registry })
    for (const name of misnamed) this.registry.removeSingleMetric(name)
    this.#durations = new Histogram({
      name: 'stoa_http_request_seconds',
      help:
        'Requests by route and status, from the first byte to the end of the response. ' +
        'Status 499: the client left.',
      labelNames: ['method', 'route', 'status'],
      buckets: durationBuckets,
      registers,
    })
    this.#shed = new Counter({
      name: 'stoa_http_requests_shed_total',
      help: 'Requests refused because too many were in flight.',
      registers,
    })
    const build = new Gauge({
      name: 'stoa_build_info',
      help: 'The version of this node; the value is always 1.',
      labelNames: ['version', 'node_version'],
      registers,
    })
    build.set({ version, node_version: process.version }, 1)
    const metrics: readonly Metric[] = [
      counter(
        'stoa_http_fast_responses_total',
        'Reads served with bytes from memory, before the router. They are not in ' +
          'stoa_http_request_seconds.',
        () => this.#fast,
      ),
      counter(
        'stoa_cache_dependencies_inexact_total',
        'Parts of filters that only the database can evaluate exactly: responses that depend ' +
          'on them are dropped more often than needed.',
        () => this.#inexact,
      ),
      gauge('stoa_http_requests_in_flight', 'Requests at work now.', () => places.inFlight),
      ...clusterMetrics(cluster),
      ...levelMetrics(cluster),
      connectionsGauge(database),
      jobsGauge(database, this.#nowMs),
    ]
    for (const metric of metrics) this.registry.registerMetric(metric)
  }

  /** The text for a scrape; scrapes that come together share one. */
  text(): Promise<string> {
    const nowMs = this.#nowMs()
    if (this.#text === null || nowMs - this.#text.atMs >= textMs)
      this.#text = { atMs: nowMs, made: this.registry.metrics() }
    return this.#text.made
  }

  observe({ method, route, status, seconds }: Observation): void {
    this.#durations.observe({ method, route, status }, seconds)
  }

  /** A number, since a counter of the library would cost as much as the response. */
  fastResponse(): void {
    this.#fast += 1
  }

  /** A dependency of a cached response is wider than its filter. */
  inexactDependency(): void {
    this.#inexact += 1
  }

  shed(): void {
    this.#shed.inc()
  }
}

function gauge(name: string, help: string, value: () => number): Gauge {
  return new Gauge({
    name,
    help,
    registers: [],
    collect() {
      this.set(value())
    },
  })
}

/** A counter whose value is kept elsewhere. */
function counter(name: string, help: string, value: () => number): Counter {
  return new Counter({
    name,
    help,
    registers: [],
    collect() {
      this.reset()
      this.inc(value())
    },
  })
}

/** Several counters of one name, which differ by one label. */
function counters<Label extends string>(
  name: string,
  help: string,
  label: Label,
  values: () => Readonly<Record<string, number>>,
): Counter<Label> {
  return new Counter<Label>({
    name,
    help,
    labelNames: [label],
    registers: [],
    collect() {
      this.reset()
      for (const [key, count] of Object.entries(values()))
        this.inc({ [label]: key } as Record<Label, string>, count)
    },
  })
}

/** How this node keeps up with the others, and what its memory serves. */
function clusterMetrics({ cache, feed, link, texts, duties }: ClusterParts): Metric[] {
  return [
    counters(
      'stoa_cache_events_total',
      'Events in the cache: hits, misses, joined, stale, invalidated, evicted, fenced, ' +
        'flushes, refused, second.',
      'event',
      () => {
        const { entries: _e, bytes: _b, waiting: _w, unchecked: _u, ...counts } = cache.counts
        return counts
      },
    ),
    counters(
      'stoa_list_rows_total',
      'Rows of lists that were made: reused, whose text was here already; sent by the database.',
      'text',
      () => texts.counts,
    ),
    gauge(
      'stoa_cache_bytes',
      'Memory of what the cache holds, and of the texts of rows that lists are made of.',
      () => cache.counts.bytes + texts.bytes,
    ),
    gauge(
      'stoa_cache_lists_unchecked',
      'Cached lists that are dropped by any change in their part of the index: too many to check.',
      () => cache.counts.unchecked,
    ),
    gauge('stoa_cache_entries', 'Entries of the cache.', () => cache.counts.entries),
    gauge(
      'stoa_cache_waiting',
      'Readers that wait for a fill or for the change feed.',
      () => cache.counts.waiting,
    ),
    gauge(
      'stoa_feed_age_seconds',
      'Age of the last good poll of the change feed. Past the lease, responses from memory ' +
        'are marked stale.',
      () => Math.max(0, feed.nowMs() - feed.state.polledAtMs) / 1_000,
    ),
    gauge(
      'stoa_database_up',
      'Whether the primary has responded to this node within the lease.',
      () => Number(cache.leased),
    ),
    gauge('stoa_lease_held', '0: the node serves only what it marks as stale.', () =>
      Number(cache.leased),
    ),
    gauge(
      'stoa_link_connected',
      'Whether Cluster Link is connected. Without it changes are found by polling.',
      () => Number(link.connected),
    ),
    dutiesGauge(duties),
  ]
}

/** Helpers of the cache that this node has, and whether they can be reached. */
function levelMetrics({ cache }: ClusterParts): Metric[] {
  const { replica, secondLevel } = cache.config
  return [
    ...(secondLevel
      ? [
          gauge(
            'stoa_cache_second_level_up',
            'Whether the second level of the cache can be reached.',
            () => Number(!cache.missing.secondLevel),
          ),
        ]
      : []),
    ...(replica
      ? [
          gauge('stoa_standby_up', 'Whether the standby for reads can be reached.', () =>
            Number(!cache.missing.replica),
          ),
        ]
      : []),
  ]
}

function dutiesGauge(duties: () => readonly string[]): Gauge<'duty'> {
  return new Gauge({
    name: 'stoa_leads',
    help: 'The duties that this node leads: 1 for each.',
    labelNames: ['duty'],
    registers: [],
    collect() {
      this.reset()
      for (const duty of duties()) this.set({ duty }, 1)
    },
  })
}

function connectionsGauge(database: Database): Gauge<'state'> {
  return new Gauge({
    name: 'stoa_database_connections',
    help: 'Connections of this node to the database, and requests that wait for one.',
    labelNames: ['state'],
    registers: [],
    collect() {
      const { busy, idle, waiting } = database.usage()
      for (const [state, count] of Object.entries({ busy, idle, waiting }))
        this.set({ state }, count)
    },
  })
}
