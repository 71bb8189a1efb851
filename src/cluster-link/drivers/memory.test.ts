import { linkContract } from '#cluster-link/contract.ts'
import { MemoryHub, MemoryLink } from '#cluster-link/drivers/memory.ts'

linkContract('memory', {
  skip: false,
  open: async (count) => {
    const hub = new MemoryHub()
    const links = Array.from({ length: count }, () => new MemoryLink(hub))
    return {
      links,
      [Symbol.asyncDispose]: async () =>
        void (await Promise.all(links.map((link) => link.close()))),
    }
  },
})
