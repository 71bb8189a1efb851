import { html } from '#api/pages/html.ts'
import { layout } from '#api/pages/layout.ts'

/** The facts of the node and the request. */
export type NodeFacts = {
  readonly version: string
  readonly node: string
  readonly upSinceIso: string
  readonly signedInAs: string | null
  readonly origin: string
}

/** The content that the visitor may read. */
export type HomeContent = {
  /** True until the first administrator exists. */
  readonly needsAdministrator: boolean
  readonly types: readonly {
    readonly name: string
    readonly label: string
    readonly published: number
  }[]
  readonly latest: readonly {
    readonly type: string
    readonly id: string
    readonly title: string
    readonly publishedAt: string
  }[]
}

export type HomeFacts = NodeFacts & HomeContent

/** `/`: the content of this node, how to sign in, and where to try requests. */
export function homePage(facts: HomeFacts): string {
  const body = html`
    <h1>This is a Stoa node.</h1>
    <p class="lead">
      A content platform that stands on many nodes: its API serves the content below to sites and
      apps.
    </p>
    <dl class="facts">
      <div>
        <dt>Version</dt>
        <dd>${facts.version}</dd>
      </div>
      <div>
        <dt>Node</dt>
        <dd>${facts.node}</dd>
      </div>
      <div>
        <dt>Up since</dt>
        <dd>
          <time datetime="${facts.upSinceIso}"
            >${facts.upSinceIso.slice(0, 16).replace('T', ' ')} UTC</time
          >
        </dd>
      </div>
      <div>
        <dt>Health</dt>
        <dd><a href="/healthz/ready">ready?</a> · <a href="/metrics">metrics</a></dd>
      </div>
    </dl>
    ${content(facts)} ${latest(facts)}
    <h2>Signing in</h2>
    ${signingIn(facts)}
    <h2>Trying requests</h2>
    <p>
      The <a href="/reference">API reference</a> lists every operation and sends requests from the
      page. From a terminal:
    </p>
    <pre tabindex="0"><code>curl '${exampleUrl(facts)}'</code></pre>
    <p>For programs: <a href="/openapi.json">/openapi.json</a> (OpenAPI 3.1).</p>
  `
  return layout({ title: 'Stoa', current: 'home', signedInAs: facts.signedInAs, body })
}

function exampleUrl({ origin, types }: HomeFacts): string {
  return `${origin}/api/content/${types[0]?.name ?? 'TYPE'}?limit=3&sort=-publishedAt`
}

function content({ types }: HomeFacts): { readonly html: string } {
  if (types.length === 0) {
    return html`<h2>Content</h2>
      <p>
        There is no content yet that you may read. Make a content type with
        <code>PUT /api/types/article</code>, or bring content in with
        <code>stoa import markdown FOLDER</code>.
      </p>`
  }
  const rows = types.map(
    (type) =>
      html`<tr>
        <td>${type.label}</td>
        <td>
          <a href="/api/content/${type.name}"><code>/api/content/${type.name}</code></a>
        </td>
        <td class="number">${type.published}</td>
      </tr>`,
  )
  return html`<h2>Content</h2>
    <table>
      <thead>
        <tr>
          <th scope="col">Type</th>
          <th scope="col">Delivery</th>
          <th scope="col" class="number">Published</th>
        </tr>
      </thead>
      <tbody>
        ${rows}
      </tbody>
    </table>`
}

function latest({ latest }: HomeContent): { readonly html: string } {
  if (latest.length === 0) return html``
  const items = latest.map(
    (entry) =>
      html`<li>
        <a href="/read/${entry.type}/${entry.id}">${entry.title}</a>
        <span class="hint">${entry.publishedAt.slice(0, 10)}</span>
      </li>`,
  )
  return html`<h2>Published last</h2>
    <ul>
      ${items}
    </ul>`
}

function signingIn({ needsAdministrator, signedInAs }: HomeFacts): { readonly html: string } {
  if (needsAdministrator) {
    return html`<p>
      There is no account yet. The node wrote a one-time link for the first administrator to its log
      when it started; <code>stoa user create</code> on this machine makes one, too.
    </p>`
  }
  if (signedInAs !== null) return html`<p>You are signed in as ${signedInAs}.</p>`
  return html`<p><a class="button" href="/sign-in">Sign in</a></p>
    <p class="hint">
      Programs use an API token instead: <code>stoa token create</code>, then
      <code>Authorization: Bearer …</code>.
    </p>`
}
