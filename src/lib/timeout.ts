/** What `within` gives when the work took too long. */
export const late = Symbol('late')

/**
 * What `work` comes to, or `late`: after `ms`, or when `signal` aborts. Work that is late goes on,
 * and what comes of it then is dropped.
 */
export async function within<T>(
  work: Promise<T>,
  { ms, signal }: { readonly ms: number; readonly signal?: AbortSignal },
): Promise<T | typeof late> {
  const { promise, resolve } = Promise.withResolvers<typeof late>()
  const giveUp = (): void => resolve(late)
  const timer = setTimeout(giveUp, ms)
  signal?.addEventListener('abort', giveUp)
  try {
    if (signal?.aborted === true) giveUp()
    return await Promise.race([work, promise])
  } finally {
    clearTimeout(timer)
    signal?.removeEventListener('abort', giveUp)
  }
}
