/** The first request: proof that the whole chain works, and where its time went. */
import { setTimeout as delay } from 'node:timers/promises'
import { BootstrapError } from './process.mjs'

const READY_DEADLINE_MS = 60_000
const POLL_MS = 50
const COMMAND = 'echo hello && id -u'

/**
 * @param {string} url @param {() => boolean} isAlive Whether waiting still makes sense.
 * @throws BootstrapError when the gateway does not answer in time.
 */
export async function waitForGateway(url, isAlive) {
  const deadline = Date.now() + READY_DEADLINE_MS
  while (isAlive()) {
    try {
      const response = await fetch(`${url}/health`, { signal: AbortSignal.timeout(2_000) })
      if (response.ok) return
    } catch {
      // Not listening yet; the deadline below decides how long that is acceptable.
    }
    if (Date.now() > deadline) throw new BootstrapError(`the gateway does not answer at ${url}/health within ${READY_DEADLINE_MS} ms`)
    await delay(POLL_MS)
  }
}

/** @param {string} url @param {{ apiKey?: string, problems: string[] }} options */
export async function showHello(url, { apiKey, problems }) {
  const lines = [``, `  gateway   ${url}`]
  const first = await execute(url, { command: COMMAND }, apiKey)
  if (first.status !== 200) {
    lines.push(`  hello     HTTP ${first.status}: ${JSON.stringify(first.body)}`)
  } else {
    const { stdout, exit_code: exitCode, runtime, time_budget_ms: budget } = first.body
    lines.push(`  hello     ${JSON.stringify(stdout)} exit ${exitCode}${runtime ? ` on ${runtime}` : ''}, ${first.ms.toFixed(0)} ms over HTTP`)
    lines.push(...budgetLines(budget))
  }
  lines.push(``, `  Try next:`, ...nextCommands(url, apiKey !== undefined && apiKey !== ''), ``)
  for (const problem of problems) lines.push(`  missing   ${problem}`)
  process.stdout.write(`${lines.join('\n')}\n`)
}

/** @param {Record<string, number> | undefined} budget @returns {string[]} Longest phase first. */
export function budgetLines(budget) {
  const phases = Object.entries(budget ?? {}).filter(([, ms]) => typeof ms === 'number')
  return phases
    .sort(([, a], [, b]) => b - a)
    .map(([phase, ms]) => `            ${phase.padEnd(24)} ${ms.toFixed(2).padStart(9)} ms`)
}

async function execute(url, body, apiKey) {
  const startedAt = performance.now()
  const response = await fetch(`${url}/api/v1/execute`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', ...(apiKey ? { authorization: `Bearer ${apiKey}` } : {}) },
    body: JSON.stringify(body),
    signal: AbortSignal.timeout(60_000),
  })
  const reply = await response.json()
  return { status: response.status, body: reply, ms: performance.now() - startedAt }
}

function nextCommands(url, withKey) {
  const json = `-H 'content-type: application/json'${withKey ? ' -H "authorization: Bearer $FAAS_API_KEY"' : ''}`
  const post = (body) => `    curl -s ${url}/api/v1/execute ${json} -d '${JSON.stringify(body)}'`
  return [
    post({ command: COMMAND }),
    ...['runc', 'gvisor', 'docker'].map((runtime) => post({ command: 'uname -r', runtime })),
    post({ command: 'python3 -c "print(6*7)"', image: 'python:3.11-slim' }),
    `    curl -s ${url}/health    ${url}/docs in a browser    node apps/cli/dist/main.js doctor`,
  ]
}
