/** Runs every subject once per round, in an order that rotates, so that drift of the machine hits all of them alike. */
import { summary } from './stats.mjs'

/**
 * @param {readonly { name: string, run: () => Promise<number | void> }[]} subjects `run` returns its own figure in ms, or nothing and is timed
 * @param {number} rounds
 */
export async function interleave(subjects, rounds, { warmUp = 1, settle } = {}) {
  const samples = Object.fromEntries(subjects.map((subject) => [subject.name, []]))
  for (let round = -warmUp; round < rounds; round++) {
    for (let i = 0; i < subjects.length; i++) {
      const subject = subjects[(i + Math.max(0, round)) % subjects.length]
      await settle?.() // what an earlier subject left to do in the background is not the next one's
      const start = performance.now()
      const own = await subject.run()
      const elapsed = own ?? performance.now() - start
      if (round >= 0) samples[subject.name].push(elapsed)
    }
  }
  return { samples, summaries: Object.fromEntries(Object.entries(samples).map(([name, values]) => [name, summary(values)])) }
}
