import { lookup } from 'node:dns/promises'
import { readFile, statfs } from 'node:fs/promises'
import { hostname } from 'node:os'
import { fileURLToPath } from 'node:url'
import { getHeapStatistics } from 'node:v8'
import { check, nodesWhere, onNodes } from '#doctor/check.ts'
import type { Check } from '#doctor/check.ts'

/** Beside the heap a process needs about this much: code, buffers, images. */
const besideHeapBytes = 128 * 1024 ** 2
const filesMin = 4_096
const freeShareMin = 0.05
const freeBytesMin = 5 * 1024 ** 3
/** Past it a node leads nothing. */
const clockSkewMaxMs = 1_000
const clockSkewWarnMs = 500
const mebibyte = 1024 ** 2

/** Where memory is not limited, this is 0 or more than any machine has. */
const unlimitedBytes = 2 ** 50

const memory = check<{ readonly heapBytes: number; readonly limitBytes: number }>({
  name: 'memory',
  looksAt:
    'the limit of the container: below the heap of Node.js, the node is killed without a word',
  where: 'node',
  inspect: async () => ({
    heapBytes: getHeapStatistics().heap_size_limit,
    limitBytes: process.constrainedMemory(),
  }),
  evaluate: (inspected) =>
    onNodes(
      inspected,
      ({ heapBytes, limitBytes }) =>
        limitBytes > 0 && limitBytes < unlimitedBytes && heapBytes + besideHeapBytes > limitBytes,
      ({ heapBytes, limitBytes }) => ({
        severity: 'warning',
        message:
          `The process may use ${Math.round(limitBytes / mebibyte)} MiB, and its heap alone may ` +
          `grow to ${Math.round(heapBytes / mebibyte)} MiB: it would be killed.`,
        cure:
          'Raise the limit of the container, or lower the heap: NODE_OPTIONS=' +
          `--max-old-space-size=${Math.max(64, Math.floor(limitBytes / mebibyte / 2))}`,
      }),
    ),
})

const files = check<{ readonly openMax: number | null }>({
  name: 'file-descriptors',
  looksAt: 'the limit of open files: too low for the connections that a node takes',
  where: 'node',
  inspect: async () => {
    // Only Linux says it in a file; elsewhere it is not known.
    const limits = await readFile('/proc/self/limits', 'utf8').catch(() => '')
    const soft = /^Max open files\s+(\d+)/m.exec(limits)?.[1]
    return { openMax: soft === undefined ? null : Number(soft) }
  },
  evaluate: (inspected) =>
    onNodes(
      inspected,
      ({ openMax }) => openMax !== null && openMax < filesMin,
      ({ openMax }) => ({
        severity: 'warning',
        message: `The process may have ${openMax} files and connections open.`,
        cure: `Allow ${filesMin} or more: LimitNOFILE= of systemd, ulimit -n, or --ulimit nofile.`,
      }),
    ),
})

type Disk = { readonly folder: string; readonly freeBytes: number; readonly allBytes: number }

const disks = check<{ readonly disks: readonly Disk[] }>({
  name: 'disk-space',
  looksAt: 'free space in the data folder and in a folder of files',
  where: 'node',
  inspect: async ({ config, dataDir }) => {
    const folders = new Set([dataDir])
    if (config.filesUrl?.startsWith('file:') === true) folders.add(fileURLToPath(config.filesUrl))
    return { disks: await Promise.all([...folders].map(spaceIn)) }
  },
  evaluate: (inspected) =>
    onNodes(
      inspected,
      ({ disks: all }) => all.some(isLow),
      ({ disks: all }) => {
        const low = all.find(isLow)!
        return {
          severity: 'warning',
          message:
            `${low.folder} has ${Math.round(low.freeBytes / mebibyte)} MiB free of ` +
            `${Math.round(low.allBytes / mebibyte)} MiB.`,
          cure: 'Make room there: uploads and the embedded database stop when it is full.',
        }
      },
    ),
})

async function spaceIn(folder: string): Promise<Disk> {
  const { bavail, blocks, bsize } = await statfs(folder)
  return { folder, freeBytes: bavail * bsize, allBytes: blocks * bsize }
}

function isLow({ freeBytes, allBytes }: Disk): boolean {
  return freeBytes < freeBytesMin && freeBytes < allBytes * freeShareMin
}

const clock = check<{ readonly skewMs: number }>({
  name: 'clock',
  looksAt: 'the clock of each machine against that of the database',
  where: 'node',
  inspect: async ({ clockSkewMs }) => ({ skewMs: Math.round(await clockSkewMs()) }),
  evaluate: (inspected) =>
    inspected
      .filter(({ facts }) => Math.abs(facts.skewMs) > clockSkewWarnMs)
      .map(({ node, facts: { skewMs } }) => ({
        severity: Math.abs(skewMs) > clockSkewMaxMs ? 'error' : 'warning',
        nodes: [node],
        message:
          `Its clock is ${Math.abs(skewMs)} ms ${skewMs > 0 ? 'ahead of' : 'behind'} the ` +
          `database's.`,
        cure: 'Let NTP (chrony, systemd-timesyncd) set the clocks of all machines.',
      })),
})

type Address = {
  readonly machine: string
  readonly host: string
  readonly address: string | null
  readonly named: string | null
}

const addresses = check<Address>({
  name: 'addresses',
  looksAt:
    'addresses in a cluster of several machines: a node at 127.0.0.1, or a host whose own name ' +
    'leads there',
  where: 'node',
  inspect: async ({ address }) => {
    const host = hostname()
    const id = await readFile('/etc/machine-id', 'utf8').catch(() => '')
    const named = await lookup(host).catch(() => null)
    return { machine: `${id.trim()} ${host}`, host, address, named: named?.address ?? null }
  },
  evaluate: (inspected) => {
    if (new Set(inspected.map(({ facts }) => facts.machine)).size < 2) return []
    const local = nodesWhere(inspected, ({ address }) => isLoopback(address ?? ''))
    const named = onNodes(
      inspected.filter(({ node }) => !local.includes(node)),
      ({ address, host, named: leads }) =>
        isLoopback(leads ?? '') && address?.startsWith(`${host}:`) === true,
      ({ host }) => ({
        severity: 'warning' as const,
        message: `The name ${host}, by which the node is found, leads to 127.0.0.1.`,
        cure: 'Take the name out of the line of 127.0.0.1 (or 127.0.1.1) in /etc/hosts.',
      }),
    )
    if (local.length === 0) return named
    return [
      ...named,
      {
        severity: 'warning',
        nodes: local,
        message: 'The nodes are on several machines, and this one listens on 127.0.0.1 only.',
        cure: 'Set STOA_HOST to 0.0.0.0, or to an address that the load balancer reaches.',
      },
    ]
  },
})

function isLoopback(address: string): boolean {
  return /^(127\.|\[?::1\]?(:|$)|localhost(:|$))/.test(address)
}

export const machineChecks: readonly Check[] = [memory, files, disks, clock, addresses]
