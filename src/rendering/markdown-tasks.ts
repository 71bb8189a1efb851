import { serveTasks, TaskFailure } from '#lib/child-tasks.ts'
import { renderMarkdown } from '#rendering/markdown.ts'
import type { MarkdownTask } from '#rendering/markdown-renderer.ts'

/** A page with more HTML than this helps no reader. */
const htmlCharactersMax = 2_000_000

serveTasks({
  markdown: async (input) => {
    const { text, anchors } = input as MarkdownTask
    const html = renderMarkdown(text, { anchors })
    if (html.length > htmlCharactersMax) throw new TaskFailure('The HTML is too long.', {})
    return html
  },
})
