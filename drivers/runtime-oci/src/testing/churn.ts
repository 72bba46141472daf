/** Makes and frees sandboxes as fast as it can until it is killed. Run by the kill test in a process of its own. */
import { asId, MIB, type SandboxId } from '@faas-platform/core'
import type { OciRuntimeName } from '../runtime-command.js'
import { BARE_IMAGE, bareImages } from './bare-images.js'
import { makeParts } from './make-driver.js'

const [name = 'runc', dataDir = '', rootfs = ''] = process.argv.slice(-3)
const { driver } = makeParts(name as OciRuntimeName, dataDir, { images: bareImages([rootfs]) })
const signal = new AbortController().signal
let count = 0

async function churn(): Promise<never> {
  for (;;) {
    const id = asId<SandboxId>(`churn-${process.pid}-${count++}`)
    const sandbox = await driver.create(
      {
        id, image: BARE_IMAGE, hostname: 'churn', labels: {},
        network: count % 2 === 0 ? { mode: 'none', allowCidrs: [] } : { mode: 'egress', allowCidrs: ['192.168.1.1'] },
        limits: { memoryBytes: 256 * MIB, cpuCores: 1, pidsMax: 64, writableBytesMax: 64 * MIB },
      },
      { signal },
    )
    await sandbox.exec({ argv: ['/bin/sh', '-c', 'sleep 1000 & sleep 1000'], env: { PATH: '/bin' }, keepOnDisconnect: true }, { onOutput() {} }, { signal })
    if (count % 3 === 0) await sandbox.pause()
    if (count % 2 === 0) await sandbox[Symbol.asyncDispose]()
    process.stdout.write('ROUND\n')
  }
}

await Promise.all([churn(), churn(), churn()])
