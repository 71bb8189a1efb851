/** The path at which the bytes of an asset are, for everyone. */
export function assetUrl({ id, name }: { readonly id: string; readonly name: string }): string {
  return `/assets/${id}/${encodeURIComponent(name)}`
}
