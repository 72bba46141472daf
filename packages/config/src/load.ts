/** Parses the configuration of this process. Called once, by a main file. */
import { readConfigText, systemHostFacts } from './host-facts.js'
import type { ParsedConfig } from './parse.js'
import { parseConfig } from './parse.js'

/** @throws FaasError `config/invalid` with every problem in `details.issues` */
export function loadConfig(argv: readonly string[], env: Readonly<Record<string, string | undefined>>): ParsedConfig {
  return parseConfig({ argv, env, host: systemHostFacts(env), readFile: readConfigText })
}
