/**
 * MD5 (RFC 1321) of UTF-8 text as hex. Only for `getCacheKey`, whose value the original client fixed as MD5;
 * it names a cache entry and protects nothing. WebCrypto offers no MD5 and is asynchronous.
 */
const SHIFTS = [7, 12, 17, 22, 5, 9, 14, 20, 4, 11, 16, 23, 6, 10, 15, 21]
const SINES = Uint32Array.from({ length: 64 }, (_, i) => Math.floor(Math.abs(Math.sin(i + 1)) * 2 ** 32))

export function md5Hex(text: string): string {
  const message = new TextEncoder().encode(text)
  const padded = new Uint8Array(((message.length + 8) >> 6) * 64 + 64)
  padded.set(message)
  padded[message.length] = 0x80
  const view = new DataView(padded.buffer)
  view.setUint32(padded.length - 8, (message.length << 3) >>> 0, true)
  view.setUint32(padded.length - 4, Math.floor(message.length / 2 ** 29), true)

  const state = new Uint32Array([0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476])
  for (let offset = 0; offset < padded.length; offset += 64) mixBlock(state, view, offset)

  const digest = new DataView(new ArrayBuffer(16))
  state.forEach((word, i) => digest.setUint32(i * 4, word, true))
  return Array.from(new Uint8Array(digest.buffer), (byte) => byte.toString(16).padStart(2, '0')).join('')
}

function mixBlock(state: Uint32Array, view: DataView, offset: number): void {
  let [a = 0, b = 0, c = 0, d = 0] = state
  for (let i = 0; i < 64; i++) {
    const round = i >> 4
    const mixed = round === 0 ? (b & c) | (~b & d) : round === 1 ? (d & b) | (~d & c) : round === 2 ? b ^ c ^ d : c ^ (b | ~d)
    const word = [i, 5 * i + 1, 3 * i + 5, 7 * i][round] ?? 0
    const sum = (a + mixed + (SINES[i] ?? 0) + view.getUint32(offset + (word % 16) * 4, true)) >>> 0
    const shift = SHIFTS[round * 4 + (i % 4)] ?? 0
    a = d
    d = c
    c = b
    b = (b + ((sum << shift) | (sum >>> (32 - shift)))) >>> 0
  }
  state[0] = ((state[0] ?? 0) + a) >>> 0
  state[1] = ((state[1] ?? 0) + b) >>> 0
  state[2] = ((state[2] ?? 0) + c) >>> 0
  state[3] = ((state[3] ?? 0) + d) >>> 0
}
