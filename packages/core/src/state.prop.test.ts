import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { canTransition, EXECUTION_STATES, INSTANCE_STATES, isFinal, SANDBOX_STATES, SLOT_STATES, transition, type Lifecycle } from './state.js'

const TABLES = {
  execution: { table: EXECUTION_STATES as Readonly<Record<string, readonly string[]>>, start: 'queued', finals: ['succeeded', 'failed', 'timed_out', 'cancelled'] },
  sandbox: { table: SANDBOX_STATES as Readonly<Record<string, readonly string[]>>, start: 'creating', finals: ['destroyed'] },
  slot: { table: SLOT_STATES as Readonly<Record<string, readonly string[]>>, start: 'creating', finals: ['taken', 'failed', 'gone'] },
  // A stopped instance can be started again and a failed one stopped, so no state of it is final.
  instance: { table: INSTANCE_STATES as Readonly<Record<string, readonly string[]>>, start: 'creating', finals: [] as string[] },
} as const

describe.each(Object.entries(TABLES))('the life cycle of %s', (_, { table, start, finals }) => {
  const states = Object.keys(table)
  const step = fc.constantFrom(...states)

  it('a walk follows the table: what it lists is taken and raises the incarnation by one, the rest throws and changes nothing', () => {
    fc.assert(fc.property(fc.array(step, { maxLength: 60 }), (walk) => {
      let life: Lifecycle<string> = { state: start, incarnation: 0 }
      for (const to of walk) {
        const before = life
        if (table[before.state]?.includes(to) === true) {
          life = transition(table, before, to)
          expect(life).toEqual({ state: to, incarnation: before.incarnation + 1 })
        } else {
          expect(canTransition(table, before.state, to)).toBe(false)
          expect(() => transition(table, before, to)).toThrowError(expect.objectContaining({ code: 'internal/bug' }) as Error)
        }
        expect(before.incarnation).toBeLessThanOrEqual(life.incarnation)
      }
    }), { numRuns: 500 })
  })

  it('a transition never changes the life that it was given', () => {
    fc.assert(fc.property(step, step, fc.nat(), (from, to, incarnation) => {
      const life = Object.freeze({ state: from, incarnation })
      if (canTransition(table, from, to)) transition(table, life, to)
      expect(life).toEqual({ state: from, incarnation })
    }))
  })

  it('exactly the known states are final, and nothing leads out of them', () => {
    expect(states.filter((state) => isFinal(table, state)).sort()).toEqual([...finals].sort())
    for (const state of finals) for (const to of states) expect(canTransition(table, state, to)).toBe(false)
  })

  it('every target is a state of the table, and no state leads to itself', () => {
    for (const [from, targets] of Object.entries(table)) {
      for (const to of targets) expect(states, `${from} → ${to}`).toContain(to)
      expect(targets).not.toContain(from)
      expect(new Set(targets).size).toBe(targets.length)
    }
  })

  it('every state can be reached from the start, and from every state there is a way to an end', () => {
    const reach = (from: string): Set<string> => {
      const seen = new Set([from])
      for (const state of seen) for (const to of table[state] ?? []) seen.add(to)
      return seen
    }
    expect([...reach(start)].sort()).toEqual([...states].sort())
    if (finals.length > 0) for (const state of states) expect([...reach(state)].some((one) => finals.includes(one)), state).toBe(true)
  })
})

it('unknown states are in no table', () => {
  expect(canTransition(SANDBOX_STATES as Readonly<Record<string, readonly string[]>>, 'nowhere', 'ready')).toBe(false)
  expect(isFinal(SANDBOX_STATES as Readonly<Record<string, readonly string[]>>, 'nowhere')).toBe(false)
})
