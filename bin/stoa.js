#!/usr/bin/env node
// Runs Stoa on Node 24: on the Node that runs this file where it is new enough, otherwise on
// the one that `npm ci` installed.
import { spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import * as nodeModule from 'node:module'
import { fileURLToPath } from 'node:url'

const versionMin = 24

/**
 * Node sizes its young generation by the memory of the machine: up to 128 MB that a node hardly
 * uses. A node needs no more than this, and is no slower; two allocation arenas keep the memory of
 * the threads that compress and hash from falling apart into many.
 */
const memoryFlag = '--max-semi-space-size=8'
const arenas = { MALLOC_ARENA_MAX: process.env['MALLOC_ARENA_MAX'] ?? '2' }

/** Goes on as the same process with these limits, unless it is no node or has others. */
function limitMemory() {
  const given = [...process.execArgv, process.env['NODE_OPTIONS'] ?? ''].join(' ')
  if (process.argv[2] !== 'start' || given.includes('semi-space')) return
  process.execve?.(
    process.execPath,
    [process.execPath, ...process.execArgv, memoryFlag, ...process.argv.slice(1)],
    { ...process.env, ...arenas },
  )
}

if (Number(process.versions.node.split('.')[0]) >= versionMin) limitMemory()
if (Number(process.versions.node.split('.')[0]) >= versionMin) {
  // Keeping the compiled code between starts halves the time until a node is ready.
  nodeModule.enableCompileCache?.(
    fileURLToPath(new URL('../node_modules/.cache/stoa', import.meta.url)),
  )
  // A checkout runs its sources; a package runs dist/, because Node strips no types below
  // node_modules.
  const sources = new URL('../src/command-line.ts', import.meta.url)
  const { main } = await import(existsSync(sources) ? sources.href : '../dist/command-line.js')
  await main(process.argv.slice(2))
} else {
  const node = installedNode()
  if (node === null) {
    console.error(
      `stoa needs Node ${versionMin} or newer, and this is ${process.version}. ` +
        'On Linux "npm ci" installs one; elsewhere install it from https://nodejs.org.',
    )
    process.exit(1)
  }
  const child = spawn(node, [fileURLToPath(import.meta.url), ...process.argv.slice(2)], {
    stdio: 'inherit',
  })
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, () => child.kill(signal))
  child.on('exit', (code, signal) => process.exit(code ?? (signal === 'SIGINT' ? 130 : 143)))
}

/** The Node of the npm package for this platform, or null if there is none. */
function installedNode() {
  const name = `node-${process.platform}-${process.arch}/bin/node`
  try {
    return nodeModule.createRequire(import.meta.url).resolve(name)
  } catch {
    return null
  }
}
