import { ChildPool, TaskCrashedError, TaskFailedError, TaskTimeoutError } from '#lib/child-pool.ts'
import type { Perform } from '#lib/child-pool.ts'
import type { Clock } from '#lib/clock.ts'
import { QueueBusyError } from '#lib/fair-queue.ts'
import type { Claim } from '#lib/fair-queue.ts'
import type { Logger } from '#lib/logger.ts'
import {
  ImageLibraryError,
  MediaBusyError,
  RenditionError,
  UploadRefusedError,
} from '#media/errors.ts'
import { libraryMissing } from '#media/image-tasks.ts'
import type { Measured, MeasureInput, RenderInput } from '#media/image-tasks.ts'
import type { MediaLimits } from '#media/limits.ts'

/** Reading a header; a GIF is read to its end to count its frames. */
const measureMsMax = 20_000
const renderMsMax = 30_000
const heapBytesMax = 256 * 1024 ** 2

/** The work that may be done with a place. */
export type ImageWork = {
  measure(input: MeasureInput): Promise<Measured>
  render(input: RenderInput): Promise<number>
}

/**
 * Strangers' images are read in child processes (`image-worker.ts`), apart from the process that
 * serves requests and from its threads for hashes, files and compression. An image that crashes the
 * library, takes more memory than `imageMemoryBytesMax` or more than its time is refused.
 */
export class ImageProcesses {
  readonly #pool: ChildPool

  constructor(parts: {
    readonly limits: MediaLimits
    readonly clock: Clock
    readonly logger: Logger
    /** The program of the children, for tests. */
    readonly module?: URL
  }) {
    const { limits, clock, logger } = parts
    this.#pool = new ChildPool({
      module: parts.module ?? new URL('./image-worker.ts', import.meta.url),
      memoryBytesMax: limits.imageMemoryBytesMax,
      heapBytesMax,
      queue: {
        runningMax: limits.rendersMax,
        waitingMax: limits.rendersWaitingMax,
        waitingPerCallerMax: limits.rendersWaitingPerCallerMax,
        waitMs: limits.renderWaitMs,
      },
      clock,
      logger,
    })
  }

  /** Runs `work` when a place is free. Throws `MediaBusyError`, and what `work` throws. */
  async use<T>(claim: Claim, work: (images: ImageWork) => Promise<T>): Promise<T> {
    try {
      return await this.#pool.use(claim, (perform) => work(imageWork(perform)))
    } catch (error) {
      if (!(error instanceof QueueBusyError)) throw error
      throw new MediaBusyError(
        'More images are asked for than can be made in time; ask again later.',
        error.retryAfterS,
      )
    }
  }

  stop(): Promise<void> {
    return this.#pool.stop()
  }
}

function imageWork(perform: Perform): ImageWork {
  return {
    measure: (input) =>
      perform({ task: 'measure', input, timeoutMs: measureMsMax }).catch((error: unknown) => {
        throw refusal(error, input.contentType)
      }) as Promise<Measured>,
    render: (input) =>
      perform({ task: 'render', input, timeoutMs: renderMsMax }).catch((error: unknown) => {
        throw renditionError(error)
      }) as Promise<number>,
  }
}

function refusal(error: unknown, contentType: string): unknown {
  if (isLibraryMissing(error)) return new ImageLibraryError({ cause: error })
  if (error instanceof TaskFailedError) {
    const facts = error.facts as ConstructorParameters<typeof UploadRefusedError>[1]
    return facts.reason === undefined
      ? error
      : new UploadRefusedError(error.message, facts, { cause: error })
  }
  if (!isExhausted(error)) return error
  return new UploadRefusedError(
    `The file begins like ${contentType} but needs more time or memory than an image may take.`,
    { reason: 'unreadableImage', found: contentType },
    { cause: error },
  )
}

function renditionError(error: unknown): unknown {
  if (isLibraryMissing(error)) return new ImageLibraryError({ cause: error })
  if (error instanceof TaskFailedError && error.facts['reason'] === 'damaged')
    return new RenditionError(error.message, { reason: 'damaged' }, { cause: error })
  if (!isExhausted(error)) return error
  return new RenditionError(
    'The image needs more time or memory to be resized than an image has; upload a smaller one.',
    { reason: 'tooLarge' },
    { cause: error },
  )
}

function isLibraryMissing(error: unknown): boolean {
  return error instanceof TaskFailedError && error.facts['reason'] === libraryMissing
}

function isExhausted(error: unknown): boolean {
  return error instanceof TaskCrashedError || error instanceof TaskTimeoutError
}
