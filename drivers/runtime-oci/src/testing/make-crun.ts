import type { RuntimeDriver } from '@faas-platform/core'
import { makeOwned } from './make-driver.js'

export const makeDriver = async (dataDir: string): Promise<RuntimeDriver> => makeOwned('crun', dataDir)
