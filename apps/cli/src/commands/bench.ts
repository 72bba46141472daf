import { FaasError } from '@faas-platform/core'
import type { ExecuteOptions, ExecutionResult } from '@faas-platform/sdk'
import type { Command } from 'commander'
import { type Cli, clientOf, given, outputOf } from '../context.js'
import { positiveInteger } from '../parse.js'

const COUNT_MAX = 10_000
const CONCURRENCY_MAX = 64

interface BenchOptions {
  readonly count: number
  readonly concurrency: number
  readonly image?: string
  readonly runtime?: string
}

export function registerBench(program: Command, cli: Cli): void {
  program
    .command('bench')
    .description('measure create-to-result latency and rate against the gateway')
    .option('-n, --count <runs>', `runs in all, at most ${COUNT_MAX}`, positiveInteger, 50)
    .option('-c, --concurrency <runs>', `runs at a time, at most ${CONCURRENCY_MAX}`, positiveInteger, 1)
    .option('-i, --image <reference>', 'image')
    .option('-r, --runtime <name>', 'runtime (default: the gateway\'s default runtime)')
    .addHelpText('after', `
Runs \`true\`. The first few sandboxes are made on request until the warm pool has learned the rate; each kind
of start has a line of its own. Latency is seen from here: HTTP, queue, sandbox, command and reply.

Example:
  faas bench -n 200 -c 4 -r gvisor`)
    .action(async (options: BenchOptions, command: Command) => {
      if (options.count > COUNT_MAX || options.concurrency > CONCURRENCY_MAX) {
        throw new FaasError('request/invalid', { message: `At most ${COUNT_MAX} runs, ${CONCURRENCY_MAX} at a time.` })
      }
      const output = outputOf(cli, command)
      const client = clientOf(cli, command)
      const request: ExecuteOptions = {
        command: ['true'], image: options.image ?? null, signal: cli.signal, ...(given({ runtime: options.runtime }) as Partial<ExecuteOptions>),
      }
      const results: { readonly elapsedMs: number; readonly result: ExecutionResult }[] = []
      let started = 0
      const startMs = performance.now()
      const worker = async (): Promise<void> => {
        while (started < options.count) {
          started++
          const beginMs = performance.now()
          const result = await client.execute(request)
          results.push({ elapsedMs: performance.now() - beginMs, result })
        }
      }
      await Promise.all(Array.from({ length: options.concurrency }, worker))
      const report = summarise(results, performance.now() - startMs)
      output.value(report, () => {
        output.line(`${report.count} runs, ${report.runs_per_s} per second`)
        output.table(['START', 'RUNS', 'P50 MS', 'P95 MS', 'P99 MS'], report.starts.map((row) => [row.start, String(row.runs), ...[row.p50, row.p95, row.p99].map((ms) => ms.toFixed(2))]))
        output.line()
        output.table(['PHASE', 'P50 MS'], Object.entries(report.phases_p50_ms).map(([phase, ms]) => [phase, ms.toFixed(3)]))
      })
    })
}

function summarise(results: readonly { readonly elapsedMs: number; readonly result: ExecutionResult }[], wallMs: number) {
  const starts = [...new Set(results.map(({ result }) => result.start ?? 'unknown'))].map((start) => {
    const latencies = results.filter(({ result }) => (result.start ?? 'unknown') === start).map(({ elapsedMs }) => elapsedMs)
    return { start, runs: latencies.length, p50: percentile(latencies, 0.5), p95: percentile(latencies, 0.95), p99: percentile(latencies, 0.99) }
  })
  const phases = new Set(results.flatMap(({ result }) => Object.keys(result.timeBudgetMs ?? {})))
  const phases_p50_ms = Object.fromEntries([...phases].map((phase) => [phase, percentile(results.map(({ result }) => result.timeBudgetMs?.[phase] ?? 0), 0.5)]))
  return { count: results.length, runs_per_s: Number((results.length / (wallMs / 1000)).toFixed(1)), starts, phases_p50_ms }
}

/** Nearest rank. */
function percentile(values: readonly number[], quantile: number): number {
  const sorted = [...values].sort((a, b) => a - b)
  return sorted[Math.max(0, Math.ceil(quantile * sorted.length) - 1)] ?? Number.NaN
}
