/**
 * The resources that media may use. Every value has a default that suits a small server;
 * `createMedia` takes others.
 */
export type MediaLimits = {
  /** The size of one file. */
  readonly uploadBytesMax: number
  /**
   * Width × height of an image. 120 million covers the largest cameras; decoding takes up to six
   * bytes each.
   */
  readonly pixelsMax: number
  /** Images larger than this are kept, but not measured and not resized. */
  readonly imageBytesMax: number
  /** Memory of one child process that reads images. An image that needs more is refused. */
  readonly imageMemoryBytesMax: number
  /** Renditions made at once. One caller, and one asset, hold at most half of them. */
  readonly rendersMax: number
  readonly rendersWaitingMax: number
  readonly rendersWaitingPerCallerMax: number
  readonly renderWaitMs: number
  /** A look-up that takes longer fails: two leases of the cache, as other reads do. */
  readonly lookUpMsMax: number
  /** Kept per asset; the least recently used make room and are made again on demand. */
  readonly renditionsPerAssetMax: number
  readonly renditionBytesPerAssetMax: number
  /** The bound over all assets, held by the collection of orphans. */
  readonly renditionBytesMax: number
  /** Files received at once, in all and of one caller. */
  readonly receivesMax: number
  readonly receivesPerCallerMax: number
  /** A resumable upload that is not continued for so long is abandoned. */
  readonly uploadIdleMs: number
  /** Unfinished resumable uploads of one caller: their number, and the bytes they announce. */
  readonly uploadsPerOwnerMax: number
  readonly uploadBytesPerOwnerMax: number
  /** The most that a resumable upload loses when its node dies. */
  readonly uploadPartBytes: number
}

export const defaultLimits: MediaLimits = {
  uploadBytesMax: 5 * 1024 ** 3,
  pixelsMax: 120_000_000,
  imageBytesMax: 256 * 1024 ** 2,
  imageMemoryBytesMax: 1024 ** 3,
  rendersMax: 2,
  rendersWaitingMax: 256,
  rendersWaitingPerCallerMax: 64,
  renderWaitMs: 20_000,
  lookUpMsMax: 2_000,
  renditionsPerAssetMax: 1_000,
  renditionBytesPerAssetMax: 256 * 1024 ** 2,
  renditionBytesMax: 100 * 1024 ** 3,
  receivesMax: 64,
  receivesPerCallerMax: 16,
  uploadIdleMs: 24 * 3_600_000,
  uploadsPerOwnerMax: 100,
  uploadBytesPerOwnerMax: 50 * 1024 ** 3,
  uploadPartBytes: 32 * 1024 ** 2,
}
