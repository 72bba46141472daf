/** One line per event, on stderr, so that stdout stays machine-readable. */

const started = Date.now()

/** @param {string} area @param {string} text */
export function progress(area, text) {
  const seconds = ((Date.now() - started) / 1000).toFixed(1).padStart(5)
  process.stderr.write(`[${seconds}s] ${area}: ${text}\n`)
}
