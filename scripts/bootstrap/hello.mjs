/** The first request: proof that the whole chain works, and where its time went. */
const COMMAND = 'echo hello && id -u'

/**
 * The address that a gateway prints once it answers, as this machine reaches it.
 * @param {string} line @returns {string | undefined}
 */
export function servedUrl(line) {
  const url = /^Serving on (http:\/\/\S+)/.exec(line)?.[1]
  return url?.replace('//0.0.0.0:', '//127.0.0.1:').replace('//[::]:', '//[::1]:')
}

/** @param {string} url @param {{ apiKey?: string, problems: string[] }} options */
export async function showHello(url, { apiKey, problems }) {
  const lines = [``, `  gateway   ${url}`]
  const first = await execute(url, { command: COMMAND }, apiKey)
  if (first.status !== 200) {
    const { message, hint } = first.body?.error ?? {}
    lines.push(`  hello     HTTP ${first.status}: ${message ?? JSON.stringify(first.body)}`, ...(hint ? [`            ${hint}`] : []))
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
    ``,
    ...(isDefault(url) ? [] : [`    export FAAS_URL=${url}`]),
    `    npx faas run -- echo hello          npx faas run --time -r gvisor -- uname -a`,
    `    npx faas doctor                     what works on this machine, and how to get the rest`,
    `    npx faas --help                     ${url}/docs in a browser`,
  ]
}

function isDefault(url) {
  return url === 'http://127.0.0.1:8080'
}
