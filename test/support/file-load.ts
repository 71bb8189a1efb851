import { execFileSync } from 'node:child_process'
import assert from 'node:assert/strict'
import { setTimeout as sleep } from 'node:timers/promises'
import { stoaProgram, withoutSettings } from '#test/support/node.ts'
import type { RunningNode } from '#test/support/node.ts'

const deadlineMs = 600_000
const readPauseMs = 5
const uploadPauseMs = 100
const uploadBytes = 200_000

export type StoredFile = { readonly url: string; readonly data: Buffer }

/** Runs one command with the environment of a node, and returns its standard output. */
export function stoaOf({ environment }: RunningNode, args: readonly string[]): string {
  return execFileSync(process.execPath, [stoaProgram, ...args], {
    env: { ...withoutSettings, ...environment },
    encoding: 'utf8',
    timeout: deadlineMs,
  })
}

export function tokenOf(node: RunningNode): string {
  const made = stoaOf(node, ['--json', 'token', 'create', 'test', '--role', 'administrator'])
  return (JSON.parse(made) as { token: string }).token
}

export async function uploadFile(
  { origin }: RunningNode,
  token: string,
  file: { readonly name: string; readonly data: Buffer },
): Promise<StoredFile> {
  const form = new FormData()
  form.append('file', new Blob([new Uint8Array(file.data)]), file.name)
  const response = await fetch(`${origin}/api/assets`, {
    method: 'POST',
    headers: { authorization: `Bearer ${token}` },
    body: form,
  })
  const text = await response.text()
  assert.equal(response.status, 201, text)
  const { data } = JSON.parse(text) as { data: { url: string }[] }
  return { url: data[0]!.url, data: file.data }
}

export type FileLoad = AsyncDisposable & {
  stop(): Promise<{
    readonly reads: number
    readonly uploads: number
    readonly failures: readonly string[]
    /** Those of the beginning, and those that were uploaded meanwhile. */
    readonly files: readonly StoredFile[]
  }>
}

/** Reads of every file on each node, and with `token` new uploads, which are read too. */
export function startFileLoad(
  nodes: readonly RunningNode[],
  known: readonly StoredFile[],
  token: string | null = null,
): FileLoad {
  const over = new AbortController()
  const failures: string[] = []
  const files = [...known]
  const counts = { reads: 0, uploads: 0 }
  const reader = async ({ origin }: RunningNode): Promise<void> => {
    while (!over.signal.aborted) {
      for (const file of files) {
        if (over.signal.aborted) return
        const problem = await problemOf(origin, file)
        counts.reads += 1
        if (problem !== null) failures.push(problem)
        await sleep(readPauseMs)
      }
    }
  }
  const writer = async (token: string): Promise<void> => {
    for (let n = 0; !over.signal.aborted; n += 1) {
      try {
        const file = { name: `${n}.txt`, data: Buffer.alloc(uploadBytes, `uploaded ${n} `) }
        files.push(await uploadFile(nodes[n % nodes.length]!, token, file))
        counts.uploads += 1
      } catch (error) {
        failures.push(String(error))
      }
      await sleep(uploadPauseMs)
    }
  }
  const uploading = token === null ? [] : [writer(token)]
  const all = Promise.all([...nodes.map(reader), ...uploading])
  const stop = async () => {
    over.abort()
    await all
    return { ...counts, failures, files }
  }
  return { stop, [Symbol.asyncDispose]: async () => void (await stop()) }
}

/** Null: the node delivers exactly these bytes. */
export async function problemOf(origin: string, { url, data }: StoredFile): Promise<string | null> {
  try {
    const response = await fetch(`${origin}${url}`)
    const body = Buffer.from(await response.arrayBuffer())
    if (response.status !== 200)
      return `${url}: ${response.status} ${body.toString().slice(0, 500)}`
    return body.equals(data) ? null : `${url}: other bytes than were sent`
  } catch (error) {
    return `${url}: ${String(error)}`
  }
}
