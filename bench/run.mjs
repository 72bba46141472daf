/**
 * `npm run bench`: every figure next to its baseline, measured in the same run. Writes bench/raw/<time>.json and bench/RESULTS.md.
 *
 *   npm run bench -- --quick        fewer rounds, nothing written
 *   npm run bench -- --only cold    sections: cold, warm, burst, sustained, gateway, memory
 *
 * Traffic goes to this process and to 127.0.0.1 only; every section is bounded in count and time.
 */
import { mkdir, writeFile } from 'node:fs/promises'
import os from 'node:os'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { prepare } from '../scripts/bootstrap/index.mjs'
import { openBaselines } from './lib/open-baselines.mjs'
import { gatewaySection, memorySection } from './lib/edges.mjs'
import { interleave } from './lib/interleave.mjs'
import { openExecutors } from './lib/open-executors.mjs'
import { renderResults } from './lib/render.mjs'
import { pairedRatio, round, summary } from './lib/stats.mjs'
import { burst, coldSubject, sustained, untilSettled, untilWarm, warmSubject } from './lib/subjects.mjs'

const ROOT = fileURLToPath(new URL('.', import.meta.url))
const { values: flags } = parseArgs({ options: { quick: { type: 'boolean', default: false }, only: { type: 'string' } } })
const ROUNDS = flags.quick ? 3 : 30
const BURST = 100
const SUSTAINED_MS = flags.quick ? 1_500 : 6_000
const BASELINE_OF = { runc: 'runc run', crun: 'crun run', gvisor: 'docker run --runtime=runsc', docker: 'docker run' }

const wanted = (section) => flags.only === undefined || flags.only === section
const say = (text) => process.stderr.write(`${text}\n`)

const prepared = await prepare({ images: ['base'], docker: true, required: true })
Object.assign(process.env, prepared.env)
const report = { startedAt: new Date().toISOString(), host: hostFacts(), rounds: ROUNDS, sections: {} }
const baselines = await openBaselines()
try {
  await usingExecutors({ pool: false }, async ({ executor, runtimes, versions }) => {
    report.versions = versions
    if (wanted('cold')) {
      say(`cold: ${ROUNDS} rounds of ${runtimes.join(', ')} and the baselines`)
      const subjects = [...baselines.subjects, ...runtimes.map((name) => ({ name: `${name} cold`, run: coldSubject(executor, name) }))]
      report.sections.cold = withRatios(await interleave(subjects, ROUNDS, { settle: () => untilSettled(executor) }), runtimes, 'cold')
    }
  })
  await usingExecutors({ pool: true }, async ({ executor, runtimes, prewarm }) => {
    if (wanted('warm')) {
      say('warm')
      for (const name of runtimes) await prewarm(name, 2)
      const subjects = [...baselines.subjects, ...runtimes.map((name) => ({ name: `${name} warm`, run: warmSubject(executor, name) }))]
      report.sections.warm = withRatios(await interleave(subjects, ROUNDS, { settle: () => untilSettled(executor) }), runtimes, 'warm')
    }
    if (wanted('burst')) report.sections.burst = await each(runtimes, async (name) => {
      say(`burst of ${BURST}: ${name}`)
      await prewarm(name, 2)
      const start = performance.now()
      const latencies = await burst(executor, name, BURST)
      return { ...summary(latencies), allDoneMs: round(performance.now() - start), failed: 0 }
    })
    if (wanted('sustained')) report.sections.sustained = await each(runtimes, async (name) => {
      const perSecond = {}
      for (const concurrency of [1, 4, 16]) {
        say(`sustained: ${name} at ${concurrency}`)
        await untilWarm(executor, name)
        perSecond[concurrency] = round(await sustained(executor, name, concurrency, SUSTAINED_MS), 1)
      }
      return perSecond
    })
    if (wanted('memory')) report.sections.memory = await each(runtimes, (name) => memorySection(executor, prewarm, name))
  })
  if (wanted('gateway')) {
    say('gateway overhead')
    report.sections.gateway = await gatewaySection(flags.quick ? 20 : 300)
  }
} finally {
  await baselines.close()
  await prepared.close?.()
}

report.endedAt = new Date().toISOString()
if (flags.quick || flags.only !== undefined) {
  process.stdout.write(`${JSON.stringify(withoutSamples(report), null, 2)}\n`)
} else {
  await mkdir(path.join(ROOT, 'raw'), { recursive: true })
  const file = path.join(ROOT, 'raw', `${report.startedAt.replaceAll(':', '-').slice(0, 19)}.json`)
  await writeFile(file, `${JSON.stringify(report, null, 1)}\n`)
  await writeFile(path.join(ROOT, 'RESULTS.md'), renderResults(report, path.basename(file)))
  say(`wrote ${path.relative(process.cwd(), file)} and bench/RESULTS.md`)
}

async function usingExecutors(options, use) {
  const opened = await openExecutors(options)
  try {
    await use(opened)
  } finally {
    await opened.close()
  }
}

async function each(names, measure) {
  const results = {}
  for (const name of names) results[name] = await measure(name)
  return results
}

/** Per runtime: median of the per-round ratios to its own baseline and to `docker run`; above 1 the baseline is slower. */
function withRatios({ samples, summaries }, runtimes, kind) {
  const ratios = {}
  for (const name of runtimes) {
    const own = samples[`${name} ${kind}`]
    ratios[name] = Object.fromEntries(
      [...new Set([BASELINE_OF[name], 'docker run'])].filter((baseline) => samples[baseline] !== undefined).map((baseline) => [baseline, round(pairedRatio(samples[baseline], own), 2)]),
    )
  }
  return { summaries, ratios, samples }
}

function withoutSamples(full) {
  return JSON.parse(JSON.stringify(full, (key, value) => (key === 'samples' ? undefined : value)))
}

function hostFacts() {
  const cpus = os.cpus()
  return { cores: cpus.length, cpu: cpus[0]?.model ?? 'unknown', memoryGib: round(os.totalmem() / 2 ** 30, 1), kernel: os.release(), node: process.version }
}
