import { serveTasks } from '#lib/child-tasks.ts'
import { measureImage, renderImage } from '#media/image-tasks.ts'
import type { MeasureInput, RenderInput } from '#media/image-tasks.ts'

/** The program of the child processes that read strangers' images; see `ImageProcesses`. */
serveTasks({
  measure: (input) => measureImage(input as MeasureInput),
  render: (input) => renderImage(input as RenderInput),
})
