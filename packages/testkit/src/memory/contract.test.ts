import { asId, systemClock, type SandboxId } from '@faas-platform/core'
import { randomUUID } from 'node:crypto'
import { runtimeDriverContract } from '../contract.js'
import { importImage, never, specOf } from '../contract/bench.js'
import { MemoryDriver, MemoryHost } from './driver.js'

runtimeDriverContract({
  name: 'memory',
  makeDriver: () => Promise.resolve(new MemoryDriver({ clock: systemClock })),
  imageLayout: null,
  isolates: false,
  memoryHog: (mib) => ['memhog', String(mib)],
  // There is no process to kill: the first driver is simply forgotten, with its sandboxes on the shared host.
  crash: async (_, count) => {
    const host = new MemoryHost()
    const first = new MemoryDriver({ host })
    const image = await importImage(first, { imageLayout: null })
    const ids: SandboxId[] = []
    for (let i = 0; i < count; i++) {
      const sandbox = await first.create(specOf(image, { id: asId<SandboxId>(randomUUID()) }), { signal: never() })
      await sandbox.exec({ argv: ['sleep', '1000'], env: { PATH: '/bin' } }, { onOutput() {} }, { signal: never() })
      ids.push(sandbox.id)
    }
    return { ids, successor: new MemoryDriver({ host }) }
  },
})
