/** `makeDriver` for the contract suite; its crash tests load this module in a process of their own. */
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { silentLog, systemClock, systemIds, type RuntimeDriver } from '@faas-platform/core'
import { dataDirId, HostKit } from '@faas-platform/host'
import { DockerDriver } from '../docker-driver.js'
import { realEngineSocket } from './real-engine.js'

const BIN = fileURLToPath(new URL('../../../../agent/target/release', import.meta.url))
const NFT = fileURLToPath(new URL('../../../../.tools/bin/nft', import.meta.url))

/** The driver, which takes its host helper with it when it is disposed of. */
class ContractDriver extends DockerDriver {
  constructor(private readonly ownHostkit: HostKit, socketPath: string, dataDir: string) {
    super({
      socketPath, dataDir, dataDirId: dataDirId(dataDir), agentPath: path.join(BIN, 'faas-agent'), hostkit: ownHostkit, nftPath: NFT,
      clock: systemClock, ids: systemIds, log: silentLog,
    })
  }

  override async [Symbol.asyncDispose](): Promise<void> {
    try {
      await super[Symbol.asyncDispose]()
    } finally {
      await this.ownHostkit[Symbol.asyncDispose]()
    }
  }
}

export async function makeDriver(dataDir: string): Promise<RuntimeDriver> {
  return new ContractDriver(new HostKit({ path: path.join(BIN, 'faas-hostkit'), log: silentLog }), await realEngineSocket(), dataDir)
}
