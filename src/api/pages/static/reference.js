// The API reference, drawn from /openapi.json, in which every operation can be tried.
const target = document.querySelector('[data-reference]')
const methods = ['get', 'post', 'put', 'patch', 'delete']

function element(name, attributes = {}, ...children) {
  const node = document.createElement(name)
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value)
  node.append(...children)
  return node
}

function resolve(document_, value) {
  let found = value
  for (let depth = 0; found?.$ref !== undefined && depth < 10; depth++) {
    found = found.$ref
      .slice(2)
      .split('/')
      .reduce((at, key) => at?.[decodeURIComponent(key)], document_)
  }
  return found ?? {}
}

function exampleOf(document_, schema, depth = 0) {
  const known = resolve(document_, schema)
  if (known.example !== undefined) return known.example
  if (known.default !== undefined) return known.default
  if (known.const !== undefined) return known.const
  if (known.enum !== undefined) return known.enum[0]
  const choice = known.anyOf ?? known.oneOf
  if (choice !== undefined) return exampleOf(document_, choice[0], depth)
  const kind = Array.isArray(known.type) ? known.type[0] : known.type
  if (kind === 'object' && depth < 5) {
    const required = new Set(known.required ?? [])
    const entries = Object.entries(known.properties ?? {}).filter(([name]) => required.has(name))
    return Object.fromEntries(
      entries.map(([name, each]) => [name, exampleOf(document_, each, depth + 1)]),
    )
  }
  if (kind === 'array') return []
  return { string: '', number: 0, integer: 0, boolean: false, null: null, object: {} }[kind] ?? null
}

/** What a body may hold beside what its example shows. */
function optionalNames(document_, schema) {
  const known = resolve(document_, schema)
  const required = new Set(known.required ?? [])
  return Object.keys(known.properties ?? {}).filter((name) => !required.has(name))
}

/** Descriptions write code as Markdown does. */
function prose(text) {
  return text.split('`').map((part, index) => (index % 2 === 0 ? part : element('code', {}, part)))
}

function parameterFields(document_, operation, shared) {
  const parameters = [...shared, ...(operation.parameters ?? [])].map((each) =>
    resolve(document_, each),
  )
  const fields = parameters
    .filter((each) => each.in === 'path' || each.in === 'query' || each.in === 'header')
    .map((each) => {
      const input = element('input', {
        name: each.name,
        'data-in': each.in,
        autocomplete: 'off',
        ...(each.required ? { required: '' } : {}),
      })
      const label = element('label', {}, `${each.name}${each.required ? ' *' : ''}`, input)
      if (each.description)
        label.append(element('p', { class: 'hint' }, ...prose(each.description)))
      return label
    })
  return element('div', { class: 'parameters' }, ...fields)
}

function requestOf(path, method, form) {
  let url = path
  const query = new URLSearchParams()
  const headers = { accept: 'application/json' }
  for (const input of form.querySelectorAll('[data-in]')) {
    if (input.value === '') continue
    if (input.dataset.in === 'path')
      url = url.replace(`{${input.name}}`, encodeURIComponent(input.value))
    else if (input.dataset.in === 'query') query.append(input.name, input.value)
    else headers[input.name] = input.value
  }
  const extra = form.querySelector('[data-extra-query]')?.value ?? ''
  const search = [query.toString(), extra].filter((each) => each !== '').join('&')
  const body = form.querySelector('[data-body]')?.value
  if (body) headers['content-type'] = form.querySelector('[data-body]').dataset.body
  return {
    url: search === '' ? url : `${url}?${search}`,
    init: { method: method.toUpperCase(), headers, ...(body ? { body } : {}) },
  }
}

async function send(path, method, form, output) {
  const { url, init } = requestOf(path, method, form)
  if (method !== 'get') {
    const who = await fetch('/api/session').then((answer) => (answer.ok ? answer.json() : null))
    if (who?.data?.csrfToken) init.headers['x-csrf-token'] = who.data.csrfToken
  }
  const answer = await fetch(url, init)
  const text = await answer.text()
  let shown = text
  try {
    shown = JSON.stringify(JSON.parse(text), null, 2)
  } catch {
    shown = text.slice(0, 20_000)
  }
  output.replaceChildren(
    element(
      'p',
      { class: answer.ok ? 'status-good' : 'status-bad' },
      `${answer.status} ${answer.statusText}`,
    ),
    element('p', { class: 'hint' }, element('code', {}, `${init.method} ${url}`)),
    element('pre', { tabindex: '0' }, element('code', {}, shown.slice(0, 200_000))),
  )
}

function operationBlock(document_, path, method, operation, shared) {
  const output = element('div', { 'aria-live': 'polite' })
  const form = element('form', {}, parameterFields(document_, operation, shared))
  if (path.startsWith('/api/content/') && method === 'get') {
    form.append(
      element(
        'label',
        {},
        'More query',
        element('input', {
          'data-extra-query': '',
          placeholder: 'where[title][contains]=roof&sort=-publishedAt',
          autocomplete: 'off',
        }),
      ),
    )
  }
  const content = resolve(document_, operation.requestBody ?? {}).content ?? {}
  const json = Object.keys(content).find((each) => each.includes('json'))
  if (json !== undefined) {
    const area = element('textarea', { 'data-body': json, spellcheck: 'false' })
    area.value = JSON.stringify(exampleOf(document_, content[json].schema ?? {}), null, 2)
    const optional = optionalNames(document_, content[json].schema ?? {})
    form.append(
      element('label', {}, 'Body', area),
      ...(optional.length > 0
        ? [element('p', { class: 'hint' }, `Also possible: ${optional.join(', ')}`)]
        : []),
    )
  }
  const button = element('button', {}, 'Send')
  form.append(element('p', { class: 'actions' }, button), output)
  form.addEventListener('submit', async (event) => {
    event.preventDefault()
    button.disabled = true
    try {
      await send(path, method, form, output)
    } catch {
      output.replaceChildren(
        element('p', { class: 'status-bad' }, 'The node did not answer. Try again.'),
      )
    } finally {
      button.disabled = false
    }
  })
  const answers = Object.entries(operation.responses ?? {}).map(([status, each]) =>
    element(
      'li',
      {},
      element('code', {}, status),
      ...prose(` ${resolve(document_, each).description ?? ''}`),
    ),
  )
  return element(
    'details',
    { class: 'operation' },
    element(
      'summary',
      {},
      element('span', { class: 'method' }, method.toUpperCase()),
      element('code', {}, path),
      element('span', { class: 'about' }, ...prose(operation.summary ?? '')),
    ),
    element('p', {}, ...prose(operation.description ?? '')),
    form,
    element('h3', {}, 'Answers'),
    element('ul', {}, ...answers),
  )
}

function draw(document_) {
  const groups = new Map()
  for (const [path, item] of Object.entries(document_.paths)) {
    for (const method of methods) {
      const operation = item[method]
      if (operation === undefined) continue
      const tag = operation.tags?.[0] ?? 'Other'
      if (!groups.has(tag)) groups.set(tag, [])
      groups
        .get(tag)
        .push(operationBlock(document_, path, method, operation, item.parameters ?? []))
    }
  }
  const sections = [...groups].map(([tag, blocks]) =>
    element('section', {}, element('h2', {}, tag), ...blocks),
  )
  target.replaceChildren(...sections)
}

try {
  draw(await fetch('/openapi.json').then((answer) => answer.json()))
} catch {
  target.replaceChildren(
    element(
      'p',
      { class: 'problem' },
      'The API description could not be loaded. Reload the page to try again.',
    ),
  )
}
