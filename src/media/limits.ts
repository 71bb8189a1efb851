/**
 * What media may use up. Every value has a default that suits a small server; `createMedia` takes
 * others.
 */
export type MediaLimits = {
  /** Of one file. */
  readonly uploadBytesMax: number
  /**
   * Width × height of an image. 120 million covers the largest cameras; decoding takes up to six
   * bytes each.
   */
  readonly pixelsMax: number
  /** Images larger than this are kept, but not measured and not resized. */
  readonly imageBytesMax: number
  /** Renditions made at once, waiting, and for how long. */
  readonly rendersMax: number
  readonly rendersWaitingMax: number
  readonly renderWaitMs: number
  /** Kept per asset; the oldest makes room and is made again when it is asked for. */
  readonly renditionsPerAssetMax: number
  /** A resumable upload that is not continued for so long is abandoned. */
  readonly uploadIdleMs: number
  /** Unfinished resumable uploads of one user. */
  readonly uploadsPerOwnerMax: number
  /** What a node's death costs a resumable upload at most. */
  readonly uploadPartBytes: number
}

export const defaultLimits: MediaLimits = {
  uploadBytesMax: 5 * 1024 ** 3,
  pixelsMax: 120_000_000,
  imageBytesMax: 256 * 1024 ** 2,
  rendersMax: 2,
  rendersWaitingMax: 64,
  renderWaitMs: 20_000,
  renditionsPerAssetMax: 200,
  uploadIdleMs: 24 * 3_600_000,
  uploadsPerOwnerMax: 100,
  uploadPartBytes: 32 * 1024 ** 2,
}
