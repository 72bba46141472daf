import { FaaSClient } from './client.js'
import { FaaSError } from './errors.js'
import type { ExecutionResult } from './types.js'

/** Runs code once and returns what it printed. Unknown languages are run as a command. @throws FaaSError `guest/failed` when the code failed */
export async function run(code: string, language = 'python', baseUrl = 'http://localhost:8080'): Promise<string> {
  const result = await runIn(new FaaSClient(baseUrl), code, language)
  if (result.exitCode !== undefined && result.exitCode !== 0) {
    throw new FaaSError(result.error ?? `The code ended with exit code ${result.exitCode}.`, {
      code: 'guest/failed', status: 200, requestId: result.requestId, details: { exit_code: result.exitCode, stdout: result.stdout, stderr: result.stderr },
    })
  }
  return result.output ?? ''
}

function runIn(client: FaaSClient, code: string, language: string): Promise<ExecutionResult> {
  switch (language) {
    case 'python':
      return client.runPython(code)
    case 'javascript':
    case 'js':
    case 'node':
      return client.runJavaScript(code)
    case 'typescript':
    case 'ts':
      return client.runTypeScript(code)
    case 'bash':
    case 'shell':
    case 'sh':
      return client.runBash(code)
    default:
      return client.execute({ command: code })
  }
}
