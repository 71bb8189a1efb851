import { EdgeAwayError } from '#http-cache/errors.ts'

/** An edge that takes longer for a purge is away. */
const timeoutMs = 5_000
/** Operators see the beginning of what a vendor says of a failure. */
const textMax = 300

export type EdgeRequest = {
  readonly method: string
  readonly headers: Readonly<Record<string, string>>
  readonly body?: string
}

export type EdgeResponse = {
  readonly status: number
  readonly headers: Headers
  /** The beginning of the body. */
  readonly text: string
}

/** Errors: `EdgeAwayError`. Redirects are not followed: the request has a key in it. */
export async function requestEdge(
  edge: string,
  url: string,
  signal: AbortSignal,
  request: EdgeRequest,
): Promise<EdgeResponse> {
  try {
    const response = await fetch(url, {
      ...request,
      redirect: 'manual',
      signal: AbortSignal.any([signal, AbortSignal.timeout(timeoutMs)]),
    })
    const text = await response.text()
    return { status: response.status, headers: response.headers, text: text.slice(0, textMax) }
  } catch (error) {
    throw new EdgeAwayError(`${edge} does not respond to purges.`, { edge }, { cause: error })
  }
}
