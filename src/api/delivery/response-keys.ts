import type { Encoding } from '#api/delivery/compression.ts'
import type { Authority } from '#content/authority.ts'

type Prefix = {
  readonly authority: Authority | null
  readonly encoding: Encoding | null
  readonly text: string
}

/**
 * The keys of cached responses. Which caller it is does not matter, only what that caller may see,
 * and whether shared caches may keep the response.
 */
export class ResponseKeys {
  /** Requests that follow each other are mostly of the same kind. */
  #last: Prefix = { authority: null, encoding: null, text: '' }

  of(authority: Authority, url: string, encoding: Encoding | null): string {
    if (authority !== this.#last.authority || encoding !== this.#last.encoding) {
      const audience = authority.actor.kind === 'anonymous' ? 'p' : 'i'
      this.#last = { authority, encoding, text: `${audience}${authority.key} ${encoding ?? '-'} ` }
    }
    return this.#last.text + url
  }
}
