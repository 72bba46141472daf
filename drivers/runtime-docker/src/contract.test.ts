import { fileURLToPath } from 'node:url'
import { dataDirId } from '@faas-platform/host'
import { escapeAttempts, runtimeDriverContract, type ContractOptions } from '@faas-platform/testkit/contract'
import { makeDriver } from './testing/contract-driver.js'

const options: ContractOptions = {
  name: 'docker',
  makeDriver,
  driverModule: fileURLToPath(new URL('./testing/contract-driver.ts', import.meta.url)),
  hostPrefix: (dataDir) => `faas-${dataDirId(dataDir)}`,
  cycles: 30,
  slowness: 2,
}

runtimeDriverContract(options)
escapeAttempts(options)
