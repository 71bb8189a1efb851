import assert from 'node:assert/strict'
import { test } from 'node:test'
import axe from 'axe-core'
import type { Page } from 'playwright-core'
import { browserMissing, openBrowser } from '#test/support/browser.ts'
import { startNode } from '#test/support/node.ts'

/**
 * What a page must not do: fail in the console, or have faults that a screen reader cannot handle.
 */
async function withoutFaults(page: Page): Promise<void> {
  await page.evaluate(axe.source)
  const violations = await page.evaluate(async () => {
    const { axe } = globalThis as unknown as {
      axe: { run(): Promise<{ violations: { id: string; nodes: { html: string }[] }[] }> }
    }
    return (await axe.run()).violations.map(
      (each) => `${each.id}: ${each.nodes.map((node) => node.html).join(' ')}`,
    )
  })
  assert.deepEqual(violations, [], page.url())
}

test(
  'a new user reads the starter content, becomes administrator, and tries a request',
  { skip: browserMissing },
  async () => {
    await using node = await startNode({})
    await using browser = await openBrowser()
    const page = await browser.context.newPage()
    const errors: string[] = []
    page.on(
      'console',
      (message) => void (message.type() === 'error' && errors.push(message.text())),
    )
    page.on('pageerror', (error) => void errors.push(error.message))

    await page.goto(node.origin)
    assert.equal(await page.title(), 'Stoa')
    await withoutFaults(page)
    await page.getByRole('link', { name: 'Welcome to Stoa' }).click()
    assert.match((await page.textContent('h1')) ?? '', /Welcome to Stoa/)
    await withoutFaults(page)
    await page.getByRole('link', { name: 'Content types' }).click()
    await page.getByRole('heading', { name: 'Content types', level: 1 }).waitFor()

    await page.goto(`${node.origin}/read/page/no-such-page`)
    await page.getByRole('heading', { name: 'No such entry' }).waitFor()
    await withoutFaults(page)
    // The browser itself reports the 404 that was asked for.
    errors.length = 0

    const link = (await node.printed(/"link":"([^"]+)"/))[1]!
    await page.goto(link)
    await page.getByLabel('Name').fill('Eva')
    await page.getByLabel('Email').fill('eva@example.com')
    await page.getByLabel('Password').fill('correct horse battery')
    await withoutFaults(page)
    await page.getByRole('button', { name: 'Create administrator' }).click()
    await page.getByText('You are signed in as Eva').waitFor()
    await page.getByRole('button', { name: 'Sign out' }).click()
    await page.getByRole('link', { name: 'Sign in' }).first().click()
    await page.getByRole('heading', { name: 'Sign in' }).waitFor()
    await page.getByLabel('Email').fill('eva@example.com')
    await page.getByLabel('Password').fill('wrong password here')
    await page.getByRole('button', { name: 'Sign in' }).click()
    await page.getByRole('alert').filter({ hasText: /\w/ }).waitFor()
    // The browser itself reports the 401 that was asked for.
    errors.length = 0
    await page.getByLabel('Password').fill('correct horse battery')
    await page.getByRole('button', { name: 'Sign in' }).click()
    await page.getByText('You are signed in as Eva').waitFor()

    await page.getByRole('link', { name: 'API reference', exact: true }).first().click()
    await page.getByLabel('Filter').fill('publish post')
    await page.getByText('4 operations').waitFor()
    assert.equal(await page.locator('details.operation:visible').count(), 4)
    await page.getByLabel('Filter').fill('')
    const operation = page.locator('details.operation', { hasText: 'PUT/api/types/' }).first()
    await operation.locator('summary').click()
    await withoutFaults(page)
    await operation.locator('[data-in=path]').fill('note')
    await operation
      .locator('textarea')
      .fill('{ "name": "note", "label": "Note", "fields": [{ "name": "title", "kind": "text" }] }')
    await operation.getByRole('button', { name: 'Send' }).click()
    await operation.locator('.status-good').waitFor()
    const making = page.locator('details.operation', { hasText: 'POST/api/content/{type}' }).first()
    await making.locator('summary').click()
    assert.deepEqual(JSON.parse(await making.locator('textarea').inputValue()), { fields: {} })
    await making.getByText('Also possible: id, locale, publish').waitFor()
    await making.locator('[data-in=path]').fill('note')
    await making.getByRole('button', { name: 'Send' }).click()
    await making.locator('.status-good').waitFor()

    await page.goto(link)
    await page.getByText('The first administrator already exists').waitFor()
    await withoutFaults(page)

    await page.goto(node.origin)
    await page.getByRole('cell', { name: 'Note', exact: true }).waitFor()
    await page.getByRole('button', { name: 'Sign out' }).click()
    await page.getByRole('link', { name: 'Sign in' }).first().waitFor()
    assert.deepEqual(errors, [])
  },
)

test(
  'documentation and reference fit a phone and a desk, in light and dark',
  { skip: browserMissing },
  async () => {
    await using node = await startNode({ environment: { STOA_STARTER: 'false' } })
    await using browser = await openBrowser()
    const page = await browser.context.newPage()
    const paths = ['/docs', '/docs/reference/errors', '/docs/guide/content-types', '/reference']
    for (const colorScheme of ['light', 'dark'] as const) {
      await page.emulateMedia({ colorScheme })
      for (const width of [390, 1_280]) {
        await page.setViewportSize({ width, height: 800 })
        for (const path of paths) {
          await page.goto(`${node.origin}${path}`)
          await page.getByRole('heading', { level: 1 }).waitFor()
          if (path === '/reference') await openSchemas(page)
          const overflow = await page.evaluate<number>(
            'document.documentElement.scrollWidth - innerWidth',
          )
          assert.ok(overflow <= 0, `${path} at ${width} is ${overflow} pixels too wide`)
          await withoutFaults(page)
        }
      }
    }
    await page.goto(`${node.origin}/docs/reference/errors#e_entry_not_found`)
    assert.ok(await page.locator('tr#e_entry_not_found').isVisible())
  },
)

/** Opens the operation that saves a content type, down to the kinds of its fields. */
async function openSchemas(page: Page): Promise<void> {
  const operation = page.locator('details.operation', { hasText: 'PUT/api/types/' }).first()
  await operation.locator('summary').first().click()
  const fields = operation.locator('li', { hasText: 'fields' }).first()
  await fields.locator('summary', { hasText: 'blocks' }).first().click()
  await fields.getByText('itemsMax').first().waitFor()
}
