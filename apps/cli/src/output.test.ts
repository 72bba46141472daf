import { Writable } from 'node:stream'
import { FaasError } from '@faas-platform/core'
import { describe, expect, it } from 'vitest'
import { age, commandLine, shortDuration } from './format.js'
import { Output } from './output.js'
import { Progress } from './progress.js'

function make(options: { readonly columns?: number; readonly json?: boolean; readonly env?: Record<string, string> } = {}) {
  const text = { out: '', err: '' }
  const stream = (name: 'out' | 'err') =>
    Object.assign(new Writable({ write: (chunk: Buffer, _encoding, done) => ((text[name] += chunk.toString()), done()) }), options.columns === undefined ? {} : { isTTY: true, columns: options.columns })
  return { text, output: new Output({ out: stream('out'), err: stream('err') }, options.json === true, options.env ?? {}) }
}

describe('output', () => {
  it('is coloured on a terminal only, and not when that is unwanted', () => {
    expect(make({ columns: 80 }).output.style('red', 'x')).toBe('\u001b[31mx\u001b[0m')
    for (const options of [{}, { columns: 80, env: { NO_COLOR: '1' } }, { columns: 80, env: { TERM: 'dumb' } }, { columns: 80, json: true }]) expect(make(options).output.style('red', 'x')).toBe('x')
  })

  it('tables line up; a terminal cuts the last column, a pipe gets it whole', () => {
    const rows = [['a', 'x'.repeat(40)], ['bbb', 'y']]
    const pipe = make()
    pipe.output.table(['ID', 'COMMAND'], rows)
    expect(pipe.text.out).toBe(`ID   COMMAND\na    ${'x'.repeat(40)}\nbbb  y\n`)
    const terminal = make({ columns: 20, env: { NO_COLOR: '1' } })
    terminal.output.table(['ID', 'COMMAND'], rows)
    for (const line of terminal.text.out.trimEnd().split('\n')) expect(line.length).toBeLessThanOrEqual(20)
    expect(terminal.text.out).toContain('…')
  })

  it('a failure says what, every problem, how to fix it, and its code', () => {
    const { output, text } = make()
    output.failure(new FaasError('config/invalid', { message: 'Two settings are wrong.', hint: 'Fix them.', details: { issues: [{ path: 'FAAS_PORT', message: 'must be a whole number' }, 'and another'] } }))
    expect(text.err).toBe('error: Two settings are wrong.\n  - FAAS_PORT must be a whole number\n  - and another\nhint:  Fix them.\ncode:  config/invalid\n')
    const json = make({ json: true })
    json.output.failure(new FaasError('key/not-found', { message: 'No such key.' }))
    expect(JSON.parse(json.text.err)).toEqual({ error: { code: 'key/not-found', message: 'No such key.' } })
    const bug = make()
    bug.output.failure(new TypeError('oops'))
    expect(bug.text.err).toMatch(/error: TypeError: oops\n[\s\S]*hint:  This is a bug/)
  })
})

describe('progress', () => {
  const part = { name: 'abc', totalBytes: 2 * 1024 * 1024 }
  it('is a line per change of phase without a terminal', () => {
    const { output, text } = make()
    const progress = new Progress(output)
    progress.update({ ...part, phase: 'downloading', currentBytes: 0 })
    progress.update({ ...part, phase: 'downloading', currentBytes: 1024 * 1024 })
    progress.update({ ...part, phase: 'done', currentBytes: 2 * 1024 * 1024 })
    progress.end()
    expect(text.err).toBe('abc: downloading (0 B of 2.0 MiB)\nabc: done (2.0 MiB)\n')
  })

  it('redraws its bars in place on a terminal, within its width', () => {
    const { output, text } = make({ columns: 60 })
    const progress = new Progress(output)
    progress.update({ ...part, phase: 'done', currentBytes: 2 * 1024 * 1024 })
    progress.update({ ...part, name: 'def', phase: 'done', currentBytes: 2 * 1024 * 1024 })
    progress.end()
    expect(text.err).toContain('\u001b[1A')
    expect(text.err).toContain('█'.repeat(24))
    for (const line of text.err.replaceAll(/\u001b\[\w+/g, '').split('\n')) expect(line.length).toBeLessThan(60)
  })

  it('says nothing beside JSON', () => {
    const { output, text } = make({ json: true, columns: 60 })
    new Progress(output).update({ ...part, phase: 'done', currentBytes: 1 })
    expect(text.err).toBe('')
  })
})

describe('words for people', () => {
  it.each([[0, '0ms'], [850, '850ms'], [1234, '1.2s'], [42_000, '42s'], [200_000, '3m'], [7_200_000, '2h'], [200_000_000, '2d']])('%d ms is %s', (ms, text) => expect(shortDuration(ms)).toBe(text))
  it('an age counts from a timestamp', () => expect([age('1970-01-01T00:00:10.000Z', 15_000), age(null, 0)]).toEqual(['5.0s', '-']))
  it('an argv reads as it would be typed', () => expect(commandLine(['sh', '-c', "echo 'a b'\nid"])).toBe("sh -c 'echo '\\''a b'\\''\\nid'"))
})
