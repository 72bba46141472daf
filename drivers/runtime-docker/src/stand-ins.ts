/**
 * Which names in the engine are held by local stand-ins: reference → image id, kept in one JSON file.
 * The engine has no place for it: a label would change the image's id.
 */
import { randomUUID } from 'node:crypto'
import { mkdir, readFile, rename, writeFile } from 'node:fs/promises'
import path from 'node:path'
import { FaasError } from '@faas-platform/core'

export class StandIns {
  #known: Promise<Map<string, string>> | undefined
  #writing: Promise<void> = Promise.resolve()

  constructor(private readonly file: string) {}

  /** True while the name still belongs to the very image that was marked. */
  async has(reference: string, imageId: string): Promise<boolean> {
    return (await this.#read()).get(reference) === imageId
  }

  async set(reference: string, imageId: string | null): Promise<void> {
    const known = await this.#read()
    if ((known.get(reference) ?? null) === imageId) return
    if (imageId === null) known.delete(reference)
    else known.set(reference, imageId)
    const write = this.#writing.then(() => this.#write(known))
    this.#writing = write.catch(() => undefined) // reported to whoever asked for that write; the next one starts clean
    await write
  }

  #read(): Promise<Map<string, string>> {
    this.#known ??= this.#load().catch((error: unknown) => {
      this.#known = undefined
      throw error
    })
    return this.#known
  }

  async #load(): Promise<Map<string, string>> {
    let body: string
    try {
      body = await readFile(this.file, 'utf8')
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return new Map()
      throw error
    }
    try {
      const entries = Object.entries(JSON.parse(body) as Record<string, unknown>)
      return new Map(entries.filter((entry): entry is [string, string] => typeof entry[1] === 'string'))
    } catch (error) {
      throw new FaasError('store/corrupt', { message: 'The list of stand-in images is damaged.', hint: `Remove ${path.basename(this.file)} from the data directory and import the images again.`, cause: error })
    }
  }

  async #write(known: ReadonlyMap<string, string>): Promise<void> {
    await mkdir(path.dirname(this.file), { recursive: true })
    const temporary = `${this.file}.${randomUUID()}`
    await writeFile(temporary, JSON.stringify(Object.fromEntries(known), null, 2))
    await rename(temporary, this.file)
  }
}
