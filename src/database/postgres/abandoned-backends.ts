import type pg from 'pg'

/**
 * A process that is idle, or tries to send what is not taken, has nothing left to do: after a break
 * of the network it may stay for hours.
 */
const atWork = `
  select pid from pg_stat_activity
  where pid = any($1) and application_name = current_setting('application_name')
    and state = 'active' and wait_event_type is distinct from 'Client'`

/**
 * Server processes that did not respond in time and were left, although they may still be at work:
 * a commit that waits for a synchronous standby ends neither by a deadline of the server nor with
 * its client. Each counts as a connection until the server says that it is idle: else a
 * standby that is away for a minute would cost the server all the connections that it has.
 */
export class AbandonedBackends {
  readonly #pids = new Set<number>()

  get count(): number {
    return this.#pids.size
  }

  add(pid: number): void {
    this.#pids.add(pid)
  }

  /**
   * Forgets those that are not at work on the server which takes writes now. One that has replaced
   * another has none of its processes. Errors: those of pg.
   */
  async check(client: pg.Client, timeoutMs: number): Promise<void> {
    const asked = [...this.#pids]
    const query: pg.QueryConfig & { query_timeout: number } = {
      text: atWork,
      values: [asked],
      query_timeout: timeoutMs,
    }
    const { rows } = await client.query<{ pid: number }>(query)
    const still = new Set(rows.map(({ pid }) => pid))
    for (const pid of asked) if (!still.has(pid)) this.#pids.delete(pid)
  }
}
