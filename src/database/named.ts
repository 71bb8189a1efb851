/** SQL whose values have names: `:locale` stands for the value `locale`. `::text` is a cast. */
const placeholder = /(?<![\w:]):([A-Za-z]\w*)/g

/** The same text with `$1`, `$2`, … and the names in that order, each once. */
export function compileNamed(text: string): {
  readonly text: string
  readonly names: readonly string[]
} {
  const names: string[] = []
  const compiled = text.replaceAll(placeholder, (_, name: string) => {
    if (!names.includes(name)) names.push(name)
    return `$${names.indexOf(name) + 1}`
  })
  return { text: compiled, names }
}
