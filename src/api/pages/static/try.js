import { element, prose } from './dom.js'
import { exampleOf, limitText, optionalNames, resolve } from './schema.js'

const shownCharactersMax = 200_000

/** The form that sends a request of one operation and shows the response. */
export function tryForm(api, { path, method, operation, parameters }) {
  const output = element('div', { 'aria-live': 'polite' })
  const form = element('form', { class: 'try' }, parameterFields(api, parameters))
  if (path.startsWith('/api/content/') && method === 'get') form.append(extraQuery())
  const content = resolve(api, operation.requestBody ?? {}).content ?? {}
  const json = Object.keys(content).find((each) => each.includes('json'))
  if (json !== undefined) form.append(...bodyFields(api, json, content[json].schema ?? {}))
  const button = element('button', {}, 'Send')
  form.append(element('p', { class: 'actions' }, button), output)
  form.addEventListener('submit', async (event) => {
    event.preventDefault()
    button.disabled = true
    try {
      await send(path, method, form, output)
    } catch {
      const text = 'The node did not respond. Try again.'
      output.replaceChildren(element('p', { class: 'status-bad' }, text))
    } finally {
      button.disabled = false
    }
  })
  return form
}

function parameterFields(api, parameters) {
  const fields = parameters.map(({ name, in: place, required, schema }) => {
    const { examples = [], enum: values } = resolve(api, schema ?? {})
    const example = examples[0] ?? values?.join(' or ') ?? limitText(schema ?? {})
    const input = element('input', {
      name,
      'data-in': place,
      autocomplete: 'off',
      placeholder: place === 'header' ? null : example || null,
      required: required ? '' : null,
    })
    return element('label', {}, `${name}${required ? ' *' : ''}`, input)
  })
  return element('div', { class: 'parameters' }, ...fields)
}

function extraQuery() {
  const input = element('input', {
    'data-extra-query': '',
    placeholder: 'where[title][contains]=roof&sort=-publishedAt',
    autocomplete: 'off',
  })
  return element('label', {}, 'More query', input)
}

function bodyFields(api, mediaType, schema) {
  const area = element('textarea', { 'data-body': mediaType, spellcheck: 'false' })
  area.value = JSON.stringify(exampleOf(api, schema), null, 2)
  const optional = optionalNames(api, schema)
  const hint = element('p', { class: 'hint' }, ...prose(`Also possible: ${optional.join(', ')}`))
  return [element('label', {}, 'Body', area), ...(optional.length > 0 ? [hint] : [])]
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
  const area = form.querySelector('[data-body]')
  const body = area?.value
  if (body) headers['content-type'] = area.dataset.body
  return {
    url: search === '' ? url : `${url}?${search}`,
    init: { method: method.toUpperCase(), headers, ...(body ? { body } : {}) },
  }
}

async function send(path, method, form, output) {
  const { url, init } = requestOf(path, method, form)
  if (method !== 'get') {
    const session = await fetch('/api/session').then((reply) => (reply.ok ? reply.json() : null))
    if (session?.data?.csrfToken) init.headers['x-csrf-token'] = session.data.csrfToken
  }
  const response = await fetch(url, init)
  const text = await response.text()
  const status = `${response.status} ${response.statusText}`
  output.replaceChildren(
    element('p', { class: response.ok ? 'status-good' : 'status-bad' }, status),
    element('p', { class: 'hint' }, element('code', {}, `${init.method} ${url}`)),
    element('pre', { tabindex: '0' }, element('code', {}, formatted(text))),
  )
}

function formatted(text) {
  try {
    return JSON.stringify(JSON.parse(text), null, 2).slice(0, shownCharactersMax)
  } catch {
    return text.slice(0, shownCharactersMax)
  }
}
