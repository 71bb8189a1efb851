import { html } from '#api/pages/html.ts'
import type { Html } from '#api/pages/html.ts'

export type Section = 'home' | 'docs' | 'reference'

export type LayoutOptions = {
  readonly title: string
  /** Names of scripts below /static that the page needs. */
  readonly scripts?: readonly string[]
  /** The page of the main navigation that this page belongs to. */
  readonly current?: Section
  readonly signedInAs: string | null
  readonly body: Html
}

/**
 * A page loads only files of this node, no other page may frame it, and its forms lead only here.
 * There is no inline script or style.
 */
export const contentSecurityPolicy = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self'",
  "img-src 'self' data:",
  "connect-src 'self'",
  "form-action 'self'",
  "frame-ancestors 'none'",
  "base-uri 'none'",
].join('; ')

/** The frame of every page for people. */
export function layout(options: LayoutOptions): string {
  const scripts = (options.scripts ?? []).map(
    (name) => html`<script type="module" src="/static/${name}"></script>`,
  )
  const account =
    options.signedInAs === null
      ? html`<a href="/sign-in">Sign in</a>`
      : html`<span class="who">${options.signedInAs}</span>
          <button type="button" class="plain" data-sign-out>Sign out</button>`
  const page = html`<!doctype html>
    <html lang="en">
      <head>
        <meta charset="utf-8" />
        <meta name="viewport" content="width=device-width, initial-scale=1" />
        <title>${options.title}</title>
        <link rel="icon" href="/static/icon.svg" type="image/svg+xml" />
        <link rel="stylesheet" href="/static/style.css" />
        <script type="module" src="/static/account.js"></script>
        ${scripts}
      </head>
      <body>
        <a class="skip" href="#main">Skip to content</a>
        <header>
          <a class="brand" href="/"
            ><img src="/static/icon.svg" alt="" width="28" height="28" /> Stoa</a
          >
          <nav aria-label="Main">
            ${sections.map((section) => sectionLink(section, options.current))} ${account}
          </nav>
        </header>
        <main id="main">${options.body}</main>
      </body>
    </html> `
  return page.html
}

type SectionLink = { readonly section: Section; readonly href: string; readonly label: string }

const sections: readonly SectionLink[] = [
  { section: 'home', href: '/', label: 'Home' },
  { section: 'docs', href: '/docs', label: 'Documentation' },
  { section: 'reference', href: '/reference', label: 'API reference' },
]

function sectionLink({ section, href, label }: SectionLink, current: Section | undefined): Html {
  return section === current
    ? html`<a href="${href}" aria-current="page">${label}</a> `
    : html`<a href="${href}">${label}</a> `
}
