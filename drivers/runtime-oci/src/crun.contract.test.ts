import { fileURLToPath } from 'node:url'
import { dataDirId } from '@faas-platform/host'
import { runtimeDriverContract } from '@faas-platform/testkit/contract'
import { makeDriver } from './testing/make-crun.js'

runtimeDriverContract({
  name: 'crun',
  makeDriver,
  driverModule: fileURLToPath(new URL('./testing/make-crun.ts', import.meta.url)),
  hostPrefix: (dataDir) => `faas-${dataDirId(dataDir)}`,
})
