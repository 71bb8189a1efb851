/** Creates an element with attributes and children; an attribute that is null is left out. */
export function element(name, attributes = {}, ...children) {
  const node = document.createElement(name)
  for (const [key, value] of Object.entries(attributes))
    if (value !== null) node.setAttribute(key, value)
  node.append(...children)
  return node
}

/** Descriptions mark code with backquotes, as Markdown does. */
export function prose(text) {
  return text.split('`').map((part, index) => (index % 2 === 0 ? part : element('code', {}, part)))
}
