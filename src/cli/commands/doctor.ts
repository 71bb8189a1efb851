import type { Context, Register } from '#cli/command.ts'
import type { Finding } from '#doctor/check.ts'

/** `stoa doctor`: every node inspects itself, and the command prints what is wrong and its cure. */
export const registerDoctor: Register = (program, action) => {
  program
    .command('doctor')
    .description('inspect every node and what they share; list what is wrong, with the cure')
    .addHelpText('after', '\nExit status: 0 nothing was found; 1 something was found.')
    .action(action(doctor))
}

async function doctor({ assembly, config, output }: Context): Promise<number> {
  const diagnosis = await assembly.diagnose(config)
  if (diagnosis === null) {
    output.result({ findings: [], nodes: [], checks: 0 })
    output.line('No node runs here: start one, or set STOA_DATABASE_URL.')
    return 0
  }
  output.result(diagnosis)
  const { findings, nodes, checks } = diagnosis
  for (const finding of findings) for (const line of linesOf(finding)) output.line(line)
  const inspected = nodes.length === 0 ? 'this machine' : nodes.join(', ')
  output.line(
    findings.length === 0
      ? `Nothing was found (${checks} checks on ${inspected}).`
      : `${findings.length} found (${checks} checks on ${inspected}).`,
  )
  return findings.length === 0 ? 0 : 1
}

function linesOf({ check, severity, nodes, message, cure }: Finding): string[] {
  const where = nodes.length === 0 ? '' : `${nodes.join(', ')}: `
  return [`${severity === 'error' ? '!!' : '!'} ${where}${message} (${check})`, `   ${cure}`]
}
