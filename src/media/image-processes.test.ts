import assert from 'node:assert/strict'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { pathToFileURL } from 'node:url'
import { systemClock } from '#lib/clock.ts'
import { silentLogger } from '#lib/logger.ts'
import { ImageLibraryError } from '#media/errors.ts'
import { ImageProcesses } from '#media/image-processes.ts'
import { defaultLimits } from '#media/limits.ts'

test('a node without the image library says so, and blames no file', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'stoa-images-'))
  const file = join(folder, 'worker.mjs')
  await writeFile(
    file,
    `import { registerHooks } from 'node:module'
    registerHooks({
      resolve: (name, context, next) => {
        if (name === 'sharp') throw new Error('there is no binary for this platform')
        return next(name, context)
      },
    })
    await import('${new URL('image-worker.ts', import.meta.url).href}')`,
  )
  const images = new ImageProcesses({
    limits: defaultLimits,
    clock: systemClock,
    logger: silentLogger,
    module: pathToFileURL(file),
  })
  try {
    const input = { path: file, contentType: 'image/png', pixelsMax: 1_000 }
    await assert.rejects(
      images.use({ caller: 'a', group: 'b' }, (work) => work.measure(input)),
      ImageLibraryError,
    )
  } finally {
    await images.stop()
    await rm(folder, { recursive: true })
  }
})
