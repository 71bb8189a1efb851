import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { negotiate } from '#media/accept.ts'
import { RenditionError } from '#media/errors.ts'
import type { RenditionOptions } from '#media/media.ts'
import { cropRatios, planRendition, qualitySteps, widthSteps } from '#media/rendition-plan.ts'
import type { RenditionSource } from '#media/rendition-plan.ts'

const photo: RenditionSource = {
  contentType: 'image/jpeg',
  width: 4_000,
  height: 3_000,
  frames: 1,
  focalPoint: null,
}

test('negotiation follows names and q values, and never a wildcard to a modern format', () => {
  const table: readonly (readonly [string, string])[] = [
    ['image/avif,image/webp,image/apng,image/svg+xml,image/*,*/*;q=0.8', 'avif'],
    ['image/webp,*/*', 'webp'],
    ['image/avif;q=0.5,image/webp;q=0.9', 'webp'],
    ['image/avif;q=0,image/webp;q=0,*/*', 'jpeg'],
    ['image/avif;q=0.3,image/jpeg', 'jpeg'],
    ['IMAGE/AVIF ; Q=1', 'avif'],
    ['*/*', 'jpeg'],
    ['', 'jpeg'],
    ['text/html', 'jpeg'],
    ['image/avif;q=nonsense, image/webp;q=0.1', 'webp'],
    ['image/webp;q=0.8, image/*;q=0.8', 'webp'],
  ]
  for (const [accept, expected] of table) assert.equal(negotiate(accept, 'jpeg'), expected, accept)
})

test('a width is raised to the next step and the height follows the original', () => {
  const plan = planRendition(photo, { width: 500 }, '')
  assert.deepEqual([plan.width, plan.height, plan.format, plan.quality], [512, 384, 'jpeg', 80])
  assert.equal(planRendition(photo, { height: 300 }, '').width, 512)
  assert.deepEqual([planRendition(photo, { width: 99_999 }, '').width], [3_840])
})

test('never larger than the original, in either fit', () => {
  const small = { ...photo, width: 100, height: 50 }
  assert.deepEqual(
    [
      planRendition(small, { width: 400 }, '').width,
      planRendition(small, { width: 400 }, '').height,
    ],
    [100, 50],
  )
  const crop = planRendition(small, { width: 400, height: 400 }, '')
  assert.deepEqual([crop.width, crop.height], [50, 50])
})

test('a box that contains is met by the side that binds', () => {
  const plan = planRendition(photo, { width: 1_000, height: 192, fit: 'contain' }, '')
  assert.deepEqual([plan.width, plan.height], [256, 192])
})

test('a crop keeps the focal point as near to its middle as the edges allow', () => {
  const at = (x: number, y: number): readonly number[] => {
    const plan = planRendition({ ...photo, focalPoint: { x, y } }, { width: 256, height: 256 }, '')
    assert.deepEqual([plan.width, plan.height, plan.scaled.height], [256, 256, 256])
    return [plan.left, plan.top]
  }
  assert.deepEqual(at(0, 0), [0, 0])
  assert.deepEqual(at(1, 1), [341 - 256, 0])
  assert.deepEqual(at(0.5, 0.5), [43, 0])
})

test('options that cannot be are refused', () => {
  for (const options of [
    { width: 0 },
    { width: 1.5 },
    { height: -1 },
    { width: NaN },
    { quality: 101 },
    { width: 1e9 },
  ] satisfies RenditionOptions[]) {
    assert.throws(() => planRendition(photo, options, ''), RenditionError)
  }
})

test('what moves stays GIF or becomes WebP, until it is too much', () => {
  const gif: RenditionSource = {
    contentType: 'image/gif',
    width: 100,
    height: 100,
    frames: 10,
    focalPoint: null,
  }
  assert.deepEqual(
    [
      planRendition(gif, { width: 64 }, 'image/avif,image/webp').format,
      planRendition(gif, { width: 64 }, 'image/avif,image/webp').isAnimated,
    ],
    ['webp', true],
  )
  assert.deepEqual(
    [
      planRendition(gif, { width: 64 }, '*/*').format,
      planRendition(gif, { width: 64 }, '*/*').isAnimated,
    ],
    ['gif', true],
  )
  assert.equal(planRendition(gif, { width: 64, format: 'png' }, '').isAnimated, false)
  assert.equal(
    planRendition({ ...gif, frames: 100_000 }, { width: 64 }, 'image/webp').isAnimated,
    false,
  )
})

test('an asset has a bounded number of renditions, each within its original', () => {
  const keys = new Set<string>()
  const side = fc.option(fc.integer({ min: 1, max: 100_000 }), { nil: undefined })
  fc.assert(
    fc.property(
      side,
      side,
      fc.constantFrom('cover', 'contain', undefined),
      fc.option(fc.integer({ min: 1, max: 100 }), { nil: undefined }),
      (width, height, fit, quality) => {
        const options = Object.fromEntries(
          Object.entries({ width, height, fit, quality, format: 'webp' }).filter(
            ([, value]) => value !== undefined,
          ),
        ) as RenditionOptions
        const plan = planRendition({ ...photo, focalPoint: { x: 0.9, y: 0.1 } }, options, '')
        assert.ok(plan.width >= 1 && plan.height >= 1 && plan.left >= 0 && plan.top >= 0)
        assert.ok(
          plan.left + plan.width <= plan.scaled.width &&
            plan.top + plan.height <= plan.scaled.height,
        )
        assert.ok(plan.scaled.width <= photo.width && plan.scaled.height <= photo.height)
        keys.add(plan.key)
      },
    ),
    { numRuns: 5_000 },
  )
  assert.ok(keys.size > 100)
  assert.ok(
    keys.size <= widthSteps.length * (1 + cropRatios.length) * qualitySteps.length,
    `${keys.size} keys`,
  )
})

test('any original of any size has a plan', () => {
  const side = fc.integer({ min: 1, max: 60_000 })
  fc.assert(
    fc.property(
      fc.record({
        source: fc.record({ width: side, height: side }),
        width: fc.integer({ min: 1, max: 5_000 }),
        height: fc.integer({ min: 1, max: 5_000 }),
        x: fc.double({ min: 0, max: 1, noNaN: true }),
      }),
      ({ source, width, height, x }) => {
        const plan = planRendition(
          { ...photo, ...source, focalPoint: { x, y: x } },
          { width, height },
          '',
        )
        assert.ok(plan.width >= 1 && plan.height >= 1 && plan.left >= 0 && plan.top >= 0)
        assert.ok(
          plan.left + plan.width <= plan.scaled.width &&
            plan.top + plan.height <= plan.scaled.height,
        )
        assert.ok(plan.width <= source.width && plan.height <= source.height)
      },
    ),
    { numRuns: 2_000 },
  )
})
