import { collectDefaultMetrics, Counter, Gauge, Histogram, Registry } from 'prom-client'
import type { ClusterParts } from '#api/api-context.ts'
import type { Database } from '#database/database.ts'

/** Of responses, in seconds. */
const durationBuckets = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30]

/**
 * What this node did and how it is, for Prometheus. Labels are route patterns, never what a client
 * sent.
 */
export class Metrics {
  readonly registry = new Registry()
  readonly #durations: Histogram<'method' | 'route' | 'status'>
  readonly #shed: Counter
  #ready = 0
  #widened = 0

  constructor(database: Database, inFlight: () => number, cluster: ClusterParts | null) {
    const registers = [this.registry]
    collectDefaultMetrics({ register: this.registry })
    this.#durations = new Histogram({
      name: 'stoa_http_request_seconds',
      help: 'Requests by route and status, from the first byte to the end of the response. Status 499: the client left.',
      labelNames: ['method', 'route', 'status'],
      buckets: durationBuckets,
      registers,
    })
    this.#shed = new Counter({
      name: 'stoa_http_requests_shed_total',
      help: 'Requests refused because too many were in flight.',
      registers,
    })
    this.registry.registerMetric(
      gauge(
        'stoa_http_answers_ready_total',
        'Reads that were answered with bytes from memory, before the router. They are not in stoa_http_request_seconds.',
        () => this.#ready,
      ),
    )
    this.registry.registerMetric(
      gauge(
        'stoa_cache_dependencies_widened_total',
        'Parts of filters that only the database can evaluate exactly: answers that hang on them are dropped more often than needed.',
        () => this.#widened,
      ),
    )
    for (const metric of cluster === null ? [] : clusterMetrics(cluster))
      this.registry.registerMetric(metric)
    this.registry.registerMetric(inFlightGauge(inFlight))
    this.registry.registerMetric(poolGauge(database))
  }

  observe(method: string, route: string, status: number, seconds: number): void {
    this.#durations.observe({ method, route, status }, seconds)
  }

  /**
   * A response was ready. A number, since a counter of the library would cost as much as the response.
   */
  ready(): void {
    this.#ready += 1
  }

  /** Part of a filter could not be told to the cache. */
  widened(): void {
    this.#widened += 1
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

/** How this node keeps up with the others, and what its memory is good for. */
function clusterMetrics({ cache, feed, link, texts }: ClusterParts): Gauge<'event' | 'text'>[] {
  const events = new Gauge({
    name: 'stoa_cache_events_total',
    help: 'What happened in the cache: hits, misses, joined, stale, invalidated, evicted, fenced, flushes, refused, second.',
    labelNames: ['event'],
    registers: [],
    collect() {
      const { entries: _entries, bytes: _bytes, waiting: _waiting, ...counts } = cache.counts
      for (const [event, count] of Object.entries(counts)) this.set({ event }, count)
    },
  })
  const rows = new Gauge({
    name: 'stoa_list_rows_total',
    help: 'Rows of lists that were made: reused, whose text was here already; sent by the database.',
    labelNames: ['text'],
    registers: [],
    collect() {
      for (const [text, count] of Object.entries(texts.counts)) this.set({ text }, count)
    },
  })
  return [
    events,
    rows,
    gauge(
      'stoa_cache_bytes',
      'Memory of what the cache holds, and of the texts of rows that lists are made of.',
      () => cache.counts.bytes + texts.bytes,
    ),
    gauge('stoa_cache_entries', 'What the cache holds.', () => cache.counts.entries),
    gauge(
      'stoa_cache_waiting',
      'Readers that wait for a fill or for the change feed.',
      () => cache.counts.waiting,
    ),
    gauge(
      'stoa_feed_age_seconds',
      'Since the last good poll of the change feed began. Past the lease, answers from memory are marked stale.',
      () => Math.max(0, feed.nowMs() - feed.state.polledAtMs) / 1_000,
    ),
    gauge(
      'stoa_link_connected',
      'Whether Cluster Link is connected. Without it changes are found by polling.',
      () => Number(link.connected),
    ),
  ]
}

function inFlightGauge(inFlight: () => number): Gauge {
  return new Gauge({
    name: 'stoa_http_requests_in_flight',
    help: 'Requests being answered now.',
    registers: [],
    collect() {
      this.set(inFlight())
    },
  })
}

function poolGauge(database: Database): Gauge<'state'> {
  return new Gauge({
    name: 'stoa_database_connections',
    help: 'Connections of this node to the database, and requests that wait for one.',
    labelNames: ['state'],
    registers: [],
    collect() {
      const usage = database.usage()
      this.set({ state: 'busy' }, usage.busy)
      this.set({ state: 'idle' }, usage.idle)
      this.set({ state: 'waiting' }, usage.waiting)
    },
  })
}
