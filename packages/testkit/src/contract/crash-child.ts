/** Run by the crash tests in a process of its own: makes sandboxes, says so, and waits to be killed. */
import type { RuntimeDriver } from '@faas-platform/core'
import { importImage, never, PATH, specOf } from './bench.js'

const [modulePath = '', dataDir = '', count = '1', layout = 'default'] = process.argv.slice(-4)
const { makeDriver } = (await import(/* @vite-ignore */ modulePath)) as { makeDriver: (dataDir: string) => Promise<RuntimeDriver> }
const driver = await makeDriver(dataDir)
const image = await importImage(driver, layout === 'default' ? {} : { imageLayout: layout === 'none' ? null : layout })
const ids: string[] = []
for (let i = 0; i < Number(count); i++) {
  const sandbox = await driver.create(specOf(image, { labels: { purpose: 'crash' } }), { signal: never() })
  await sandbox.exec({ argv: ['/bin/sh', '-c', 'setsid sleep 1000 & sleep 1000'], env: { PATH } }, { onOutput() {} }, { signal: never() })
  ids.push(sandbox.id)
}
process.stdout.write(`READY ${ids.join(' ')}\n`)
setInterval(() => undefined, 60_000)
