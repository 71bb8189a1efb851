import { existsSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { chromium } from 'playwright-core'
import type { BrowserContext } from 'playwright-core'

const executable = [
  '/usr/bin/chromium',
  '/usr/bin/chromium-browser',
  '/usr/bin/google-chrome',
].find((path) => existsSync(path))

/** The reason why browser tests cannot run here, or false: for `test(name, { skip })`. */
export const browserMissing: string | false =
  executable === undefined ? 'no browser here: install the package chromium' : false

/** Keeps the browser from talking to anyone but the page. */
const args = [
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
]

/** A headless browser with an empty profile; closed and cleaned up at the end of its scope. */
export async function openBrowser(): Promise<
  AsyncDisposable & { readonly context: BrowserContext }
> {
  const profile = mkdtempSync(join(tmpdir(), 'stoa-browser-'))
  const context = await chromium.launchPersistentContext(profile, {
    executablePath: executable!,
    args,
    headless: true,
  })
  return {
    context,
    [Symbol.asyncDispose]: async () => {
      await context.close()
      rmSync(profile, { recursive: true, force: true })
    },
  }
}
