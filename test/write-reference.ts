/**
 * `node test/write-reference.ts`: writes the pages of docs/reference that are made from the code.
 */
import { writeFileSync } from 'node:fs'
import { referencePages } from '#test/support/reference-pages.ts'

for (const [name, text] of await referencePages()) {
  writeFileSync(new URL(`../docs/reference/${name}`, import.meta.url), text)
  process.stdout.write(`docs/reference/${name} is written\n`)
}
