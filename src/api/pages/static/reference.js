// The API reference, drawn from /openapi.json: every operation with its schemas, a filter, and a
// form to try it.
import { element, prose } from './dom.js'
import { resolve, schemaRow, schemaView } from './schema.js'
import { tryForm } from './try.js'

const target = document.querySelector('[data-reference]')
const filter = document.querySelector('[data-filter]')
const sections = document.querySelector('[data-sections]')
const methods = ['get', 'post', 'put', 'patch', 'delete']

function operationsOf(api) {
  return Object.entries(api.paths).flatMap(([path, item]) =>
    methods
      .filter((method) => item[method] !== undefined)
      .map((method) => {
        const operation = item[method]
        const parameters = [...(item.parameters ?? []), ...(operation.parameters ?? [])]
        return {
          path,
          method,
          operation,
          parameters: parameters
            .map((each) => resolve(api, each))
            .filter((each) => ['path', 'query', 'header'].includes(each.in)),
        }
      }),
  )
}

/** An operation is drawn when it is opened: a site with many types has hundreds. */
function operationBlock(api, entry) {
  const { path, method, operation } = entry
  const block = element(
    'details',
    { class: 'operation', id: operation.operationId },
    element(
      'summary',
      {},
      element('span', { class: `method ${method}` }, method.toUpperCase()),
      element('code', {}, path),
      element('span', { class: 'about' }, ...prose(operation.summary ?? '')),
    ),
  )
  block.addEventListener('toggle', () => block.append(operationBody(api, entry)), { once: true })
  return block
}

function operationBody(api, entry) {
  const { operation, parameters } = entry
  const parts = []
  if (operation.description) parts.push(element('p', {}, ...prose(operation.description)))
  if (parameters.length > 0)
    parts.push(element('h3', {}, 'Parameters'), parameterList(api, parameters))
  const body = contentOf(api, operation.requestBody ?? {})
  if (body !== null)
    parts.push(element('h3', {}, `Body, ${body.type}`), schemaView(api, body.schema))
  parts.push(element('h3', {}, 'Responses'), ...responseBlocks(api, operation.responses ?? {}))
  parts.push(element('h3', {}, 'Try it'), tryForm(api, entry))
  return element('div', { class: 'body' }, ...parts)
}

function parameterList(api, parameters) {
  const rows = parameters.map(({ name, in: place, required, description, schema }) =>
    schemaRow(api, name, schema ?? {}, {
      required: required === true,
      description: [place === 'query' ? '' : `In the ${place}.`, description ?? '']
        .filter((part) => part !== '')
        .join(' '),
    }),
  )
  return element('ul', { class: 'schema' }, ...rows)
}

function contentOf(api, message) {
  const content = resolve(api, message).content ?? {}
  const [type, media] = Object.entries(content)[0] ?? [null, null]
  return media === null ? null : { type, schema: media.schema ?? {} }
}

function responseBlocks(api, responses) {
  const problems = []
  const blocks = []
  for (const [status, response] of Object.entries(responses)) {
    const content = contentOf(api, response)
    const { description = '' } = resolve(api, response)
    if (content?.type === 'application/problem+json') problems.push(`${status} ${description}`)
    else blocks.push(responseBlock(api, status, description, content))
  }
  const list = element('p', { class: 'hint' }, 'Problems: ', problems.join(', '), '. ')
  list.append(element('a', { href: '/docs/reference/errors' }, 'What each error means'))
  return problems.length > 0 ? [...blocks, list] : blocks
}

function responseBlock(api, status, description, content) {
  const title = [element('code', {}, status), ' ', ...prose(description)]
  if (content === null || !content.type.includes('json'))
    return element('p', {}, ...title, content === null ? '' : ` (${content.type})`)
  const block = element('details', { class: 'nested' }, element('summary', {}, ...title))
  block.addEventListener('toggle', () => block.append(schemaView(api, content.schema)), {
    once: true,
  })
  return block
}

function draw(api) {
  const groups = new Map()
  for (const entry of operationsOf(api)) {
    const tag = entry.operation.tags?.[0] ?? 'other'
    if (!groups.has(tag)) groups.set(tag, [])
    groups.get(tag).push({ ...entry, block: operationBlock(api, entry) })
  }
  const drawn = [...groups].map(([tag, entries]) => {
    const id = `section-${tag.replaceAll(/[^\w-]+/g, '-')}`
    const section = element('section', { id }, element('h2', {}, title(tag)))
    section.append(...entries.map(({ block }) => block))
    const link = element('li', {}, element('a', { href: `#${id}` }, title(tag)))
    return { section, link, entries }
  })
  target.replaceChildren(...drawn.map(({ section }) => section))
  sections.replaceChildren(...drawn.map(({ link }) => link))
  filter.addEventListener('input', () => applyFilter(drawn, filter.value))
  applyFilter(drawn, filter.value)
  openLinked()
}

function title(tag) {
  return tag.charAt(0).toUpperCase() + tag.slice(1)
}

/** An operation matches if it has every word of the filter in its method, path, name or summary. */
function applyFilter(drawn, text) {
  const words = text
    .toLowerCase()
    .split(/\s+/)
    .filter((word) => word !== '')
  let count = 0
  for (const { section, link, entries } of drawn) {
    let visible = 0
    for (const { block, path, method, operation } of entries) {
      const about = `${method} ${path} ${operation.operationId} ${operation.summary ?? ''}`
      const matches = words.every((word) => about.toLowerCase().includes(word))
      block.hidden = !matches
      if (matches) visible += 1
    }
    section.hidden = visible === 0
    link.hidden = visible === 0
    count += visible
  }
  const status = document.querySelector('[data-filter-status]')
  status.textContent =
    words.length === 0 ? '' : `${count} ${count === 1 ? 'operation' : 'operations'}`
}

/** A link such as /reference#listEntries opens its operation. */
function openLinked() {
  const linked = location.hash === '' ? null : document.getElementById(location.hash.slice(1))
  if (linked instanceof HTMLDetailsElement) linked.open = true
  linked?.scrollIntoView()
}

try {
  draw(await fetch('/openapi.json').then((response) => response.json()))
} catch {
  const text = 'The API description could not be loaded. Reload the page to try again.'
  target.replaceChildren(element('p', { class: 'problem' }, text))
}
