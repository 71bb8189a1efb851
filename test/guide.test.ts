import assert from 'node:assert/strict'
import { execFileSync, spawn } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import {
  cpSync,
  globSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { parsePage } from '#lib/front-matter.ts'
import { freePort } from '#test/support/database.ts'

/**
 * The guide is followed from the first page to the last: its blocks of code that are marked `run`
 * are one shell script, in the folder of a fresh copy of the sources. A block marked `background`
 * is a terminal of its own.
 */
type Block = { readonly page: string; readonly background: boolean; readonly code: string }

const root = join(import.meta.dirname, '..')
const startTimeoutMs = 90_000
const scriptTimeoutMs = 300_000

function guideBlocks(): Block[] {
  const pages = globSync('docs/guide/*.md', { cwd: root }).map((file) => {
    const parsed = parsePage(readFileSync(join(root, file), 'utf8'))
    assert.ok(parsed.ok, file)
    return { file, order: Number(parsed.page.frontMatter['order']), body: parsed.page.body }
  })
  return pages
    .toSorted((a, b) => a.order - b.order)
    .flatMap(({ file, body }) =>
      [...body.matchAll(/^```sh run( background)?\n(.*?)^```$/gms)].map((match) => ({
        page: file,
        background: match[1] !== undefined,
        code: match[2] ?? '',
      })),
    )
}

/** A copy of the files that a clone has. The packages are those of this checkout. */
function freshCopy(): string {
  const folder = mkdtempSync(join(tmpdir(), 'stoa-guide-'))
  const files = execFileSync('git', ['ls-files', '-co', '--exclude-standard'], {
    cwd: root,
    encoding: 'utf8',
  })
  for (const file of files.trim().split('\n')) {
    try {
      cpSync(join(root, file), join(folder, file))
    } catch (error) {
      // A file that is tracked and was deleted is not in the copy.
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error
    }
  }
  symlinkSync(join(root, 'node_modules'), join(folder, 'node_modules'))
  return folder
}

async function isReady(origin: string): Promise<boolean> {
  const response = await fetch(`${origin}/healthz/ready`).catch(() => null)
  return response?.status === 200
}

/** Ends the shell and everything that it started. */
async function end(child: ChildProcess): Promise<void> {
  const closed = new Promise((resolve) => child.once('close', resolve))
  if (child.exitCode === null && child.signalCode === null) {
    process.kill(-child.pid!, 'SIGTERM')
    await closed
  }
}

test('every page of the guide works when its commands are typed as they are written', async (t) => {
  const folder = freshCopy()
  const port = await freePort()
  const origin = `http://localhost:${port}`
  const here = (code: string): string => code.replaceAll('localhost:4000', `localhost:${port}`)
  const others = Object.entries(process.env).filter(([name]) => !name.startsWith('STOA_'))
  const env = { ...Object.fromEntries(others), STOA_PORT: String(port) }
  const blocks = guideBlocks()
  assert.ok(blocks.filter(({ background }) => !background).length > 15)
  const background = blocks.filter((block) => block.background).map(({ code }) => here(code))
  const options = { cwd: folder, env, detached: true } as const
  const node = spawn('bash', ['-c', background.join('\n')], { ...options, stdio: 'ignore' })
  t.after(async () => {
    await end(node)
    rmSync(folder, { recursive: true, force: true })
  })
  const readyBy = Date.now() + startTimeoutMs
  while (!(await isReady(origin))) {
    assert.ok(Date.now() < readyBy && node.exitCode === null, 'the node of the guide is not ready')
    await sleep(200)
  }

  const foreground = blocks.filter((block) => !block.background)
  const script = foreground.map(({ page, code }) => `echo '== ${page}'\n${here(code)}`).join('\n')
  writeFileSync(join(folder, 'guide.sh'), `set -euo pipefail\n${script}`)
  const shell = spawn('bash', ['guide.sh'], { ...options, stdio: ['ignore', 'pipe', 'pipe'] })
  let output = ''
  for (const stream of [shell.stdout, shell.stderr])
    stream.on('data', (chunk) => (output += String(chunk)))
  const timer = setTimeout(() => process.kill(-shell.pid!, 'SIGKILL'), scriptTimeoutMs)
  const status = await new Promise<number | null>((resolve) => shell.once('close', resolve))
  clearTimeout(timer)
  assert.equal(status, 0, output.slice(-3_000))
  assert.match(output, /"Stoas"|"A mason"/)
  assert.match(output, /"Dächer"/)
})
