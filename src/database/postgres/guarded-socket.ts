import { Socket } from 'node:net'

/**
 * The data may make no sense, as from a damaged proxy or a server of another kind. pg then throws
 * while it reads, where no caller can catch it, and the process would end; here the connection
 * does.
 */
export class GuardedSocket extends Socket {
  override emit(event: string | symbol, ...values: unknown[]): boolean {
    if (event !== 'data') return super.emit(event, ...values)
    try {
      return super.emit(event, ...values)
    } catch (error) {
      this.destroy(new Error('Connection terminated unexpectedly', { cause: error }))
      return true
    }
  }
}
