/** Adds up what vitest and cargo report. */
import { relative } from 'node:path'

/** @typedef {{ passed: number, failed: number, skipped: number, skippedNames: string[] }} Counts */

/** @returns {Counts} */
export function noTests() {
  return { passed: 0, failed: 0, skipped: 0, skippedNames: [] }
}

/**
 * @param {unknown} report Vitest's JSON report.
 * @param {number} exitCode A non-zero exit without a failed test (a broken file, an unhandled error) counts as a failure.
 * @returns {Counts}
 */
export function countVitest(report, exitCode) {
  const files = report?.testResults ?? []
  const counts = noTests()
  for (const file of files) {
    const tests = file.assertionResults ?? []
    for (const test of tests) {
      if (test.status === 'passed') counts.passed += 1
      else if (test.status === 'failed') counts.failed += 1
      else {
        counts.skipped += 1
        counts.skippedNames.push(test.fullName ?? test.title)
      }
    }
    // A file that does not load, or whose set-up fails, has no failed test of its own.
    if (file.status === 'failed' && !tests.some((test) => test.status === 'failed')) counts.failed += 1
  }
  if (exitCode !== 0 && counts.failed === 0) counts.failed = 1
  return counts
}

/**
 * @param {string} output What `cargo test` printed.
 * @param {number} exitCode
 * @returns {Counts}
 */
export function countCargo(output, exitCode) {
  const counts = noTests()
  for (const match of output.matchAll(/^test result: \w+\. (\d+) passed; (\d+) failed; (\d+) ignored;/gm)) {
    counts.passed += Number(match[1])
    counts.failed += Number(match[2])
    counts.skipped += Number(match[3])
  }
  for (const match of output.matchAll(/^test (\S+) \.\.\. ignored/gm)) counts.skippedNames.push(`agent ${match[1]}`)
  if (exitCode !== 0 && counts.failed === 0) counts.failed = 1
  return counts
}

/** @param {...Counts} parts @returns {Counts} */
export function addCounts(...parts) {
  return parts.reduce(
    (sum, part) => ({
      passed: sum.passed + part.passed,
      failed: sum.failed + part.failed,
      skipped: sum.skipped + part.skipped,
      skippedNames: [...sum.skippedNames, ...part.skippedNames],
    }),
    noTests(),
  )
}

/**
 * Success means that something ran, nothing failed, and in CI nothing was skipped.
 * @param {Counts} counts @param {{ ci: boolean }} options
 */
export function isSuccess(counts, { ci }) {
  return counts.passed > 0 && counts.failed === 0 && !(ci && counts.skipped > 0)
}

/**
 * The files that the suite waits for most, longest first.
 * @param {unknown} report Vitest's JSON report. @param {{ root: string, count: number }} options @returns {string[]}
 */
export function slowestFiles(report, { root, count }) {
  return (report?.testResults ?? [])
    .map(({ name, startTime, endTime }) => ({ name: relative(root, name), seconds: (endTime - startTime) / 1000 }))
    .filter(({ seconds }) => Number.isFinite(seconds))
    .sort((a, b) => b.seconds - a.seconds)
    .slice(0, count)
    .map(({ name, seconds }) => `${seconds.toFixed(1).padStart(8)} s  ${name}`)
}

/** The closing line, alone on its line. @param {Counts} counts */
export function summaryLine({ passed, failed, skipped }) {
  return `${passed} passed, ${failed} failed, ${skipped} skipped`
}
