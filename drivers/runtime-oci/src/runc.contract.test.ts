import { fileURLToPath } from 'node:url'
import { dataDirId } from '@faas-platform/host'
import { type ContractOptions, escapeAttempts, runtimeDriverContract } from '@faas-platform/testkit/contract'
import { makeDriver } from './testing/make-runc.js'

const options: ContractOptions = {
  name: 'runc',
  makeDriver,
  driverModule: fileURLToPath(new URL('./testing/make-runc.ts', import.meta.url)),
  hostPrefix: (dataDir) => `faas-${dataDirId(dataDir)}`,
}

runtimeDriverContract(options)
escapeAttempts(options)
