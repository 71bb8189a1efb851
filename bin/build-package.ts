/**
 * `npm pack` runs this script. It makes `dist/`, from which the package runs, because Node strips
 * no types below `node_modules`; a checkout runs its sources. Node itself strips the types, and the
 * compiler adds the declarations of `stoa/cluster`.
 */
import { spawnSync } from 'node:child_process'
import { cpSync, globSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { stripTypeScriptTypes } from 'node:module'
import { dirname, posix, relative } from 'node:path'

rmSync('dist', { recursive: true, force: true })
for (const file of globSync('src/**/*.{ts,js,svg,css,sql}')) {
  if (/\.test\.ts$|\.d\.ts$|\/contract\.ts$/.test(file)) continue
  const target = file.replace(/^src/, 'dist')
  mkdirSync(dirname(target), { recursive: true })
  if (file.endsWith('.ts'))
    writeFileSync(
      target.replace(/\.ts$/, '.js'),
      withPaths(stripTypeScriptTypes(readFileSync(file, 'utf8')), target),
    )
  else cpSync(file, target)
}

const compiled = spawnSync(
  'tsc',
  [
    '--noEmit',
    'false',
    '--declaration',
    '--emitDeclarationOnly',
    '--outDir',
    'dist',
    '--rootDir',
    'src',
    '--project',
    'bin/tsconfig.json',
  ],
  { stdio: 'inherit' },
)
if (compiled.status !== 0) process.exit(compiled.status ?? 1)
for (const file of globSync('dist/**/*.d.ts'))
  writeFileSync(file, withPaths(readFileSync(file, 'utf8'), file))

/** Rewrites `#part/file.ts`, and URLs of files beside this one, to their paths in `dist/`. */
function withPaths(code: string, file: string): string {
  return code
    .replaceAll(
      /(\bfrom\s*|\bimport\s*\(?\s*)(['"])#([^'"]+)\.ts\2/g,
      (_all, before: string, quote: string, name: string) => {
        const path = posix.join(relative(dirname(file), 'dist'), `${name}.js`)
        return `${before}${quote}${path.startsWith('.') ? path : `./${path}`}${quote}`
      },
    )
    .replaceAll(/(\bnew URL\(['"][^'"]+)\.ts(['"], import\.meta\.url\))/g, '$1.js$2')
}
