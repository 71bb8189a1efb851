// `stoa/cluster`: in a checkout the sources as they are, in the package what `npm pack` made of
// them, since Node strips no types below node_modules. Loaded by `require`, which an application
// that is CommonJS can do, too.
import { existsSync } from 'node:fs'
import { createRequire } from 'node:module'

const sources = new URL('src/cluster.ts', import.meta.url)

export const {
  Cache,
  CacheDeadlineError,
  CacheOverloadError,
  ChangeFeed,
  DatabaseAwayError,
  FenceLostError,
  NodeCalls,
  Nodes,
  TokenNotSeenError,
  formatToken,
  joinCluster,
  laterToken,
  parseToken,
  sql,
} = createRequire(import.meta.url)(existsSync(sources) ? './src/cluster.ts' : './dist/cluster.js')
