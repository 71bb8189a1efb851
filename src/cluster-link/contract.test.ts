import { linkContract } from '#cluster-link/contract.ts'
import { MemoryHub, MemoryClusterLink } from '#test/support/memory-cluster-link.ts'

linkContract('memory', {
  skip: false,
  open: async (count) => {
    const hub = new MemoryHub()
    const links = Array.from({ length: count }, () => new MemoryClusterLink(hub))
    return {
      links,
      [Symbol.asyncDispose]: async () =>
        void (await Promise.all(links.map((link) => link.close()))),
    }
  },
})
