import { fileURLToPath } from 'node:url'
import { dataDirId } from '@faas-platform/host'
import { type ContractOptions, escapeAttempts, runtimeDriverContract } from '@faas-platform/testkit/contract'
import { makeDriver } from './testing/make-gvisor.js'

const options: ContractOptions = {
  name: 'gvisor',
  makeDriver,
  driverModule: fileURLToPath(new URL('./testing/make-gvisor.ts', import.meta.url)),
  hostPrefix: (dataDir) => `faas-${dataDirId(dataDir)}`,
}

runtimeDriverContract(options)
escapeAttempts(options)
