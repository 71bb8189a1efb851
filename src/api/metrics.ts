import { collectDefaultMetrics, Counter, Gauge, Histogram, Registry } from 'prom-client'
import type { Database } from '#database/database.ts'

/** Of answers, in seconds. */
const durationBuckets = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30]

/** What this node did and how it is, for Prometheus. Labels are route patterns, never what a client sent. */
export class Metrics {
  readonly registry = new Registry()
  readonly #durations: Histogram<'method' | 'route' | 'status'>
  readonly #shed: Counter
  #ready = 0

  constructor(database: Database, inFlight: () => number) {
    const registers = [this.registry]
    collectDefaultMetrics({ register: this.registry })
    this.#durations = new Histogram({
      name: 'stoa_http_request_seconds',
      help: 'Requests by route and status, from the first byte to the end of the answer. Status 499: the client left.',
      labelNames: ['method', 'route', 'status'],
      buckets: durationBuckets,
      registers,
    })
    this.#shed = new Counter({ name: 'stoa_http_requests_shed_total', help: 'Requests refused because too many were in flight.', registers })
    const ready = (): number => this.#ready
    this.registry.registerMetric(
      new Gauge({
        name: 'stoa_http_answers_ready_total',
        help: 'Reads that were answered with bytes from memory, before the router. They are not in stoa_http_request_seconds.',
        registers: [],
        collect() {
          this.set(ready())
        },
      }),
    )
    this.registry.registerMetric(inFlightGauge(inFlight))
    this.registry.registerMetric(poolGauge(database))
  }

  observe(method: string, route: string, status: number, seconds: number): void {
    this.#durations.observe({ method, route, status }, seconds)
  }

  /** An answer was ready. A number, since a counter of the library would cost as much as the answer. */
  ready(): void {
    this.#ready += 1
  }

  shed(): void {
    this.#shed.inc()
  }
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
