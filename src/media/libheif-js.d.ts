declare module 'libheif-js/wasm-bundle.js' {
  type Shown = { readonly data: Uint8ClampedArray; readonly width: number; readonly height: number }
  type HeicImage = {
    is_primary(): boolean
    get_width(): number
    get_height(): number
    display(target: Shown, done: (shown: Shown | null) => void): void
    free(): void
  }
  const library: { readonly HeifDecoder: new () => { decode(data: Uint8Array): HeicImage[] } }
  export default library
}
