import { html } from '#api/pages/html.ts'
import { layout } from '#api/pages/layout.ts'

/** `/sign-in`. */
export function signInPage(): string {
  const body = html` <h1>Sign in</h1>
    <form class="narrow" data-action="/api/session" data-next="/">
      <label for="email">Email</label
      ><input id="email" name="email" type="email" autocomplete="username" required />
      <label for="password">Password</label
      ><input
        id="password"
        name="password"
        type="password"
        autocomplete="current-password"
        required
      />
      <p class="actions"><button>Sign in</button></p>
      <p class="problem" role="alert"></p>
    </form>`
  return layout({ title: 'Sign in · Stoa', scripts: ['form.js'], signedInAs: null, body })
}

/**
 * `/first-administrator#SECRET`: the one-time link from the log. The secret stays in the fragment,
 * out of every access log.
 */
export function firstAdministratorPage({ needed }: { readonly needed: boolean }): string {
  const body = needed
    ? firstAdministratorForm
    : html`<h1>Welcome</h1>
        <p class="lead">The first administrator already exists, and the link works only once.</p>
        <p><a class="button" href="/sign-in">Sign in</a></p>`
  return layout({
    title: 'First administrator · Stoa',
    scripts: needed ? ['form.js'] : [],
    signedInAs: null,
    body,
  })
}

const firstAdministratorForm = html` <h1>Welcome</h1>
  <p class="lead">Create the first administrator. The link works only once.</p>
  <form
    class="narrow"
    data-action="/api/first-administrator"
    data-next="/"
    data-secret-from-fragment
  >
    <input type="hidden" name="secret" />
    <label for="name">Name</label><input id="name" name="name" autocomplete="name" required />
    <label for="email">Email</label
    ><input id="email" name="email" type="email" autocomplete="username" required />
    <label for="password">Password</label
    ><input
      id="password"
      name="password"
      type="password"
      autocomplete="new-password"
      minlength="12"
      required
      aria-describedby="rule"
    />
    <p class="hint" id="rule">At least 12 characters.</p>
    <p class="actions"><button>Create administrator</button></p>
    <p class="problem" role="alert"></p>
  </form>`

/** `/reference`: the browser draws it from /openapi.json. */
export function referencePage(signedInAs: string | null): string {
  const body = html`<div class="with-contents">
    <nav class="contents" aria-label="Sections">
      <label for="filter">Filter</label>
      <input
        id="filter"
        type="search"
        data-filter
        placeholder="publish, /api/assets, get …"
        autocomplete="off"
        aria-describedby="filter-status"
      />
      <p class="hint" id="filter-status" data-filter-status role="status"></p>
      <ul data-sections></ul>
    </nav>
    <div>
      <h1>API reference</h1>
      <p class="lead">
        Open an operation to see its parameters, schemas and responses, and to send it. Requests are
        sent as ${signedInAs ?? 'the anonymous role; sign in to see and do more'}.
      </p>
      <p>
        For programs: <a href="/openapi.json">/openapi.json</a> (OpenAPI 3.1). What a field of a
        content type can be is explained in <a href="/docs/guide/content-types">the guide</a>.
      </p>
      <div data-reference><p>Loading…</p></div>
      <noscript><p>This page needs JavaScript.</p></noscript>
    </div>
  </div>`
  return layout({
    title: 'API reference · Stoa',
    scripts: ['reference.js'],
    current: 'reference',
    signedInAs,
    body,
  })
}
