/** The result of `withTimeout` when the time is up first. */
export const timedOut = Symbol('timedOut')

/**
 * Resolves or rejects as `work` does, or resolves to `timedOut` after `ms` or when `signal` aborts,
 * whichever comes first. The work itself goes on; its late result or error is dropped.
 */
export async function withTimeout<T>(
  work: Promise<T>,
  ms: number,
  signal?: AbortSignal,
): Promise<T | typeof timedOut> {
  const { promise, resolve } = Promise.withResolvers<typeof timedOut>()
  const expire = (): void => resolve(timedOut)
  const timer = setTimeout(expire, ms)
  signal?.addEventListener('abort', expire)
  try {
    if (signal?.aborted === true) expire()
    return await Promise.race([work, promise])
  } finally {
    clearTimeout(timer)
    signal?.removeEventListener('abort', expire)
  }
}
