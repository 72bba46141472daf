import { describe, expect, it } from 'vitest'
import { commandOf, durationMs, environmentPairs, positiveInteger, positiveNumber, sizeMib } from './parse.js'

describe('times', () => {
  it.each([['500ms', 500], ['30s', 30_000], ['30', 30_000], ['1.5s', 1500], ['5m', 300_000], ['1h', 3_600_000]])('%s is %d ms', (text, ms) => expect(durationMs(text)).toBe(ms))
  it.each(['', 's', '-1s', '0', '1d', '1 s', '1e3', 'NaN'])('%j is refused with the right form', (text) => expect(() => durationMs(text)).toThrow(/Use a time such as/))
})

describe('sizes', () => {
  it.each([['512', 512], ['512m', 512], ['2g', 2048], ['2GiB', 2048], ['1025k', 2], ['1k', 1], ['0.5g', 512]])('%s is %d MiB, rounded up', (text, mib) => expect(sizeMib(text)).toBe(mib))
  it.each(['', 'm', '-1', '0', '1t', '12x'])('%j is refused', (text) => expect(() => sizeMib(text)).toThrow(/Use a size such as/))
})

describe('numbers', () => {
  it('are above zero, and whole where they must be', () => {
    expect([positiveNumber('0.5'), positiveInteger('7')]).toEqual([0.5, 7])
    for (const text of ['0', '-1', 'x', '', 'Infinity']) expect(() => positiveNumber(text)).toThrow(/above 0/)
    expect(() => positiveInteger('1.5')).toThrow(/whole number/)
  })
})

describe('environment', () => {
  it('collects pairs, and takes a bare name from here', () => {
    const pairs = environmentPairs({ HOME: '/root' })
    expect(pairs('B=2=3', pairs('HOME', pairs('A=', {})))).toEqual({ A: '', HOME: '/root', B: '2=3' })
    for (const text of ['=1', 'UNSET']) expect(() => pairs(text, {})).toThrow(/KEY=VALUE/)
  })
})

describe('a command', () => {
  it.each([
    [['echo', 'a b'], ['echo', 'a b']],
    [['true'], ['true']],
    [['echo hi'], 'echo hi'],
    [['echo $HOME; id'], 'echo $HOME; id'],
    [['a>b'], 'a>b'],
  ])('%j runs as %j', (words, expected) => expect(commandOf(words)).toEqual(expected))
})
