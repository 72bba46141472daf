import { fileURLToPath } from 'node:url'
import { dataDirId } from '@faas-platform/host'
import { runtimeDriverContract } from '@faas-platform/testkit/contract'
import { makeDriver } from './testing/make-gvisor.js'

runtimeDriverContract({
  name: 'gvisor',
  makeDriver,
  driverModule: fileURLToPath(new URL('./testing/make-gvisor.ts', import.meta.url)),
  hostPrefix: (dataDir) => `faas-${dataDirId(dataDir)}`,
})
