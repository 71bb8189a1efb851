import type { Register } from '#cli/command.ts'

/** `stoa start`: this process becomes a node until it is told to stop. */
export const registerStart: Register = (program, action) => {
  program
    .command('start')
    .description('start a node: the API, the page at / and, without STOA_DATABASE_URL, an embedded PostgreSQL')
    .action(action(async ({ assembly, config, signal }) => assembly.runNode(config, signal)))
}
