const blockBytes = 512
/** Lengths of ustar: a path splits at a slash into a prefix and a name. */
const nameBytesMax = 100
const prefixBytesMax = 155
/** Twelve characters of octal digits, the last a terminator. */
const octalSizeMax = 0o77777777777

/**
 * The header of one file, always with the same time, owner and mode: equal content makes equal
 * archives.
 */
export function tarHeader(path: string, bytes: number): Buffer {
  const { prefix, name } = split(path)
  const block = Buffer.alloc(blockBytes)
  block.write(name, 0, 'utf8')
  block.write('0000600\0', 100, 'latin1')
  block.write('0000000\0', 108, 'latin1')
  block.write('0000000\0', 116, 'latin1')
  writeSize(block, bytes)
  block.write('00000000000\0', 136, 'latin1')
  block.write('        ', 148, 'latin1')
  block.write('0', 156, 'latin1')
  block.write('ustar\0', 257, 'latin1')
  block.write('00', 263, 'latin1')
  block.write(prefix, 345, 'utf8')
  const sum = block.reduce((total, byte) => total + byte, 0)
  block.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'latin1')
  return block
}

/** Zeros that fill a file's last block. */
export function tarPadding(bytes: number): Buffer {
  return Buffer.alloc((blockBytes - (bytes % blockBytes)) % blockBytes)
}

/** Two empty blocks end an archive. */
export const tarEnd: Buffer = Buffer.alloc(2 * blockBytes)

function split(path: string): { prefix: string; name: string } {
  if (Buffer.byteLength(path) <= nameBytesMax) return { prefix: '', name: path }
  for (let slash = path.indexOf('/'); slash >= 0; slash = path.indexOf('/', slash + 1)) {
    const [prefix, name] = [path.slice(0, slash), path.slice(slash + 1)]
    if (Buffer.byteLength(prefix) <= prefixBytesMax && Buffer.byteLength(name) <= nameBytesMax)
      return { prefix, name }
  }
  throw new Error(`the path is too long for an archive: ${path}`)
}

function writeSize(block: Buffer, bytes: number): void {
  if (bytes <= octalSizeMax) {
    block.write(`${bytes.toString(8).padStart(11, '0')}\0`, 124, 'latin1')
    return
  }
  block[124] = 0x80
  for (let at = 135, rest = bytes; at > 124; at -= 1, rest = Math.floor(rest / 256))
    block[at] = (at === 124 ? 0x80 : 0) | (rest % 256)
}
