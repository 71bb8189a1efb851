/** How long rows of jobs that have ended are kept, as SQL; done ones as their kind has it. */
export const parkedKept = `interval '90 days'`
export const cancelledKept = `interval '7 days'`
