import type { Document, DocumentGroup } from '#api/pages/documents.ts'
import { html } from '#api/pages/html.ts'
import type { Html } from '#api/pages/html.ts'
import { layout } from '#api/pages/layout.ts'

export type DocumentPageOptions = {
  readonly document: Document
  readonly groups: readonly DocumentGroup[]
  readonly content: Html
  readonly signedInAs: string | null
}

/** One page of the documentation, with links to all others. */
export function documentPage(options: DocumentPageOptions): string {
  const { document, groups, content, signedInAs } = options
  const body = html`<div class="with-contents">
    <nav class="contents" aria-label="Documentation">
      <details open>
        <summary>All pages</summary>
        ${groups.map((group) => contentsOf(group, document.path))}
      </details>
    </nav>
    <article class="prose">
      <h1>${document.title}</h1>
      ${document.summary === null ? null : html`<p class="lead">${document.summary}</p>`} ${content}
    </article>
  </div>`
  return layout({
    title: `${document.title} · Stoa`,
    scripts: ['contents.js'],
    current: 'docs',
    signedInAs,
    body,
  })
}

function contentsOf({ label, documents }: DocumentGroup, current: string): Html {
  const items = documents.map(({ path, title }) =>
    path === current
      ? html`<li><a href="/docs/${path}" aria-current="page">${title}</a></li>`
      : html`<li><a href="/docs/${path}">${title}</a></li>`,
  )
  return html`<h2>${label}</h2>
    <ul>
      ${items}
    </ul>`
}

/** `/docs`: the pages of the documentation, by group. */
export function documentationIndex(
  groups: readonly DocumentGroup[],
  signedInAs: string | null,
): string {
  const body = html`<h1>Documentation</h1>
    <p class="lead">The guide, to be read from first to last; the reference, to look things up.</p>
    ${groups.map(indexOf)}`
  return layout({ title: 'Documentation · Stoa', current: 'docs', signedInAs, body })
}

function indexOf({ label, documents }: DocumentGroup): Html {
  const items = documents.map(
    ({ path, title, summary }) =>
      html`<li>
        <a href="/docs/${path}">${title}</a>
        ${summary === null ? null : html`<p class="hint">${summary}</p>`}
      </li>`,
  )
  return html`<h2>${label}</h2>
    <ul class="index">
      ${items}
    </ul>`
}
