import { execFile } from 'node:child_process'
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Readable, Writable } from 'node:stream'
import { promisify } from 'node:util'
import { eventually } from '@faas-platform/testkit'
import type { Command } from 'commander'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { buildProgram } from './program.js'
import { drive, makeRig, type Rig, type Said } from './testing/rig.js'

let rig: Rig
beforeAll(async () => void (rig = await makeRig()))
afterAll(() => rig[Symbol.asyncDispose]())

const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\n$/
/** A parsed answer. Its shape is what the tests are about, so that no type is promised for it. */
const json = (said: Said): any => JSON.parse(said.out)

describe('run', () => {
  it('passes both streams and the exit code through', async () => {
    expect(await rig.faas(['run', 'echo out; echo err >&2; exit 7'])).toEqual({ code: 7, out: 'out\n', err: 'err\n' })
  })

  it('leaves every word after the first to the guest', async () => {
    expect(await rig.say('run', 'echo', '--json', '-n', '--help')).toBe('--json -n --help\n')
    expect(await rig.say('run', '--', 'echo', 'hi')).toBe('hi\n')
  })

  it('hands environment, directory and limits over', async () => {
    const said = await rig.faas(['run', '-e', 'A=1', '-e', 'FROM_HERE', '-w', '/tmp', '--memory', '64m', '-l', 'k=v', '--json', '--', 'sh', '-c', 'echo $A $FROM_HERE; pwd'], { env: { FROM_HERE: 'x' } })
    expect(json(said)).toMatchObject({ stdout: '1 x\n/tmp\n', exit_code: 0 })
    const record = JSON.parse(await rig.say('ps', '-a', '-n', '1', '--json')) as { executions: unknown[] }
    expect(record.executions[0]).toMatchObject({ labels: { k: 'v' } })
  })

  it('sends its own input when told to', async () => {
    expect(await rig.faas(['run', '--interactive', '--', 'cat'], { stdin: 'typed\n' })).toMatchObject({ code: 0, out: 'typed\n' })
    expect(await rig.faas(['run', '--interactive', '--', 'cat'], { stdin: 'x'.repeat(1024 * 1024 + 1) })).toMatchObject({ code: 73, err: expect.stringContaining('larger than 1.0 MiB') as string })
  })

  it('ends the guest and says 130 when interrupted', async () => {
    const said = await rig.faas(['run', 'echo started; sleep 600'], { onOutput: (text, interrupt) => void (text.includes('started') && interrupt()) })
    expect(said).toEqual({ code: 130, out: 'started\n', err: '' })
    await eventually(async () => json(await rig.faas(['ps', '--json'])).executions.length === 0)
    expect(json(await rig.faas(['ps', '-a', '-n', '1', '--json'])).executions[0].status).toBe('cancelled')
  })

  it('says why the platform ended it, and what a shell would say', async () => {
    expect(await rig.faas(['run', '-t', '200ms', '--', 'sleep', '600'])).toMatchObject({ code: 124, err: 'faas: The command did not end within 200 ms.\n' })
    expect((await rig.faas(['run', '--', 'no-such-program'])).code).toBe(127)
    expect(await rig.faas(['run', '-i', 'nobody/nothing:1', '--', 'true'])).toMatchObject({ code: 66, err: expect.stringContaining('faas image import') as string })
    expect((await rig.faas(['run', '-r', 'nonsense', '--', 'true'])).code).toBe(64)
  })

  it('shows where the time went on standard error', async () => {
    const said = await rig.faas(['run', '--time', '--', 'echo', 'hi'])
    expect(said.out).toBe('hi\n')
    expect(said.err).toMatch(/^(cold|warm) start on memory, [\d.]+ ms:\n  queue +[\d.]+ ms\n/)
  })

  it('runs in this process with --local, and explains itself beside a gateway', async () => {
    const dataDir = await mkdtemp(join(tmpdir(), 'faas-cli-local-'))
    try {
      expect(await drive(['run', '--local', 'echo here; exit 3'], { FAAS_DATA_DIR: dataDir })).toEqual({ code: 3, out: 'here\n', err: '' })
    } finally {
      await rm(dataDir, { recursive: true, force: true })
    }
    expect(await rig.faas(['run', '--local', '--', 'true'])).toMatchObject({ code: 73, err: expect.stringContaining('without --local') as string })
  })
})

describe('what was handed over', () => {
  it('is followed, read again, waited for and cancelled by its id', async () => {
    const id = (await rig.say('run', '-d', 'echo one; echo two; exit 4')).trim()
    expect(`${id}\n`).toMatch(UUID)
    expect(await rig.faas(['wait', id])).toEqual({ code: 4, out: '', err: '' })
    expect(await rig.say('logs', '-f', id)).toBe('one\ntwo\n')
    expect(await rig.say('logs', id)).toBe('one\ntwo\n')
    const log = json(await rig.faas(['logs', '--json', id]))
    expect(log.entries.filter((entry: { type: string }) => entry.type === 'stdout').map((entry: { data: string }) => entry.data).join('')).toBe('one\ntwo\n')

    const running = (await rig.say('run', '-d', '--', 'sleep', '600')).trim()
    expect(await rig.say('ps', '-q')).toBe(`${running}\n`)
    expect(await rig.say('ps')).toMatch(new RegExp(`${running}  (queued|starting|running) .*sleep 600`))
    const said = await rig.faas(['cancel', running, 'no-such-id'])
    expect(said).toMatchObject({ code: 66, out: `${running}\n`, err: expect.stringContaining('no-such-id:\nerror:') as string })
    expect(await rig.say('ps', '-q')).toBe('')
  })

  it('followed as JSON is one event per line, the result last', async () => {
    const id = (await rig.say('run', '-d', '--', 'echo', 'hi')).trim()
    const events = (await rig.say('logs', '-f', '--json', id)).trim().split('\n').map((line) => JSON.parse(line) as { type: string })
    expect(events.at(-1)).toMatchObject({ type: 'end', result: { exit_code: 0 } })
    expect(events).toContainEqual(expect.objectContaining({ type: 'stdout', text: 'hi\n' }))
  })
})

describe('instances', () => {
  it('keep what commands leave in them', async () => {
    const id = (await rig.say('instance', 'create', 'alpine:latest', '--name', 'lab', '-e', 'A=1')).trim()
    expect(await rig.faas(['exec', '--interactive', id, 'cat > /tmp/x; echo $A'], { stdin: 'kept' })).toMatchObject({ code: 0, out: '1\n' })
    expect(await rig.faas(['exec', id, '--', 'sh', '-c', 'cat /tmp/x; exit 5'])).toEqual({ code: 5, out: 'kept', err: '' })
    expect(await rig.say('ps')).toContain('lab')
    expect(await rig.say('instance', 'stop', id)).toBe(`${id}\n`)
    expect(await rig.say('ps')).not.toContain('lab')
    expect(await rig.say('instance', 'ls')).toMatch(/stopped .*lab/)
    expect(await rig.say('instance', 'rm', id)).toBe(`${id}\n`)
    expect((await rig.faas(['exec', id, 'true'])).code).toBe(66)
  })
})

describe('images and the pool', () => {
  it('list, build, pull, warm and remove', async () => {
    const rootfs = await mkdtemp(join(tmpdir(), 'faas-cli-rootfs-'))
    try {
      await mkdir(join(rootfs, 'bin'))
      for (const name of ['sh', 'echo']) await writeFile(join(rootfs, 'bin', name), '\x7fMEM', { mode: 0o755 }) // a program of the in-memory driver
      expect(await rig.say('image', 'build', rootfs, '-t', 'my/tool:1', '-e', 'WHO=me')).toMatch(/my\/tool:1 sha256:[0-9a-f]{64}\n$/)
    } finally {
      await rm(rootfs, { recursive: true, force: true })
    }
    expect(await rig.say('run', '-i', 'my/tool:1', 'echo $WHO')).toBe('me\n')
    expect(await rig.say('image', 'ls')).toMatch(/my\/tool:1 +memory +sha256:/)
    const pulled = await rig.faas(['image', 'pull', 'alpine:latest'])
    expect(pulled.out).toMatch(/alpine:latest sha256:/)
    expect(pulled.err).toMatch(/^[0-9a-f]{12}: done/)
    expect((await rig.faas(['image', 'pull', 'nobody/nothing:1'])).code).toBe(66)
    expect(await rig.say('pool', 'warm', 'alpine:latest', '-n', '1')).toBe('1 ready on memory, at least 1 kept\n')
    expect(await rig.say('pool', 'ls')).toMatch(/^RUNTIME +READY[\s\S]*my\/tool:1\n$/)
    expect(await rig.say('pool', 'warm', 'alpine:latest', '-n', '0')).toContain('at least 0 kept')
    expect(await rig.say('image', 'rm', 'my/tool:1')).toContain('my/tool:1')
    expect((await rig.faas(['image', 'rm', 'my/tool:1'])).code).toBe(66)
  })
})

describe('keys', () => {
  it('are shown once, listed without themselves, and revoked', async () => {
    const made = await rig.faas(['keys', 'create', '--name', 'ci', '--scopes', 'execute,read', '--expires', '1h'])
    expect(made.out).toMatch(/^faas_[\w-]{43}\n$/)
    const [id] = /[0-9a-f-]{36}/.exec(made.err) ?? []
    const list = await rig.say('keys', 'ls')
    expect(list).toContain(String(id))
    expect(list).not.toContain(made.out.trim())
    expect(await rig.say('keys', 'revoke', String(id))).toBe(`${id}\n`)
    expect(await rig.say('keys', 'ls')).toMatch(/ci .*revoked/)
    expect((await rig.faas(['keys', 'revoke', 'no-such-key'])).code).toBe(66)
    expect((await rig.faas(['keys', 'create', '--scopes', 'everything'])).code).toBe(64)
    expect((await rig.faas(['keys', 'ls', '--data-dir', '/no/such/dir'])).err).toContain('There is no data directory /no/such/dir')
  })

  it('open a gateway that demands them, and a revoked one does so no longer', async () => {
    await using guarded = await makeRig({ env: { FAAS_REQUIRE_KEYS: 'true' } })
    expect(await guarded.faas(['run', 'true'])).toMatchObject({ code: 77, err: expect.stringContaining('hint:  Set FAAS_API_KEY') as string })
    const made = JSON.parse(await guarded.say('keys', 'create', '--json')) as { key: string; id: string }
    const env = { FAAS_API_KEY: made.key }
    expect((await guarded.faas(['run', 'echo in'], { env })).out).toBe('in\n')
    await guarded.say('keys', 'revoke', made.id)
    await eventually(async () => (await guarded.faas(['run', 'true'], { env })).code === 77, { deadlineMs: 5000 })
  })
})

describe('without a gateway', () => {
  it('commands say so, and how to start one', async () => {
    const said = await drive(['ps'], { FAAS_URL: 'http://127.0.0.1:1' })
    expect(said).toMatchObject({ code: 69, out: '' })
    expect(said.err).toMatch(/error: The gateway at http:\/\/127.0.0.1:1 can not be reached\.\nhint: .*`faas gateway` starts one/)
    const asJson = await drive(['--json', 'ps'], { FAAS_URL: 'http://127.0.0.1:1' })
    expect(JSON.parse(asJson.err)).toMatchObject({ error: { code: 'client/connection-failed' } })
  })

  it('doctor still has its say', async () => {
    const said = await drive(['doctor'], { FAAS_URL: 'http://127.0.0.1:1' })
    expect(said.code).toBe(0)
    expect(said.out).toMatch(/does not answer \(start one: faas gateway\)[\s\S]*memory +usable/)
  })
})

describe('the command line', () => {
  it('suggests what may have been meant', async () => {
    expect(await rig.faas(['runn'])).toMatchObject({ code: 64, err: expect.stringContaining('Did you mean run?') as string })
    expect((await rig.faas(['image', 'pul'])).err).toContain('Did you mean pull?')
    expect((await rig.faas(['run', '--memry', '1', 'true'])).err).toContain('Did you mean --memory?')
    expect((await rig.faas([])).code).toBe(64)
    expect(await rig.faas(['--version'])).toMatchObject({ code: 0, out: '0.1.0\n' })
  })

  it('takes global options before and after the command; the nearest one counts', async () => {
    expect((await rig.faas(['--url', 'http://127.0.0.1:1', 'ps', '--url', rig.url])).code).toBe(0)
    expect((await rig.faas(['ps', '--url', 'http://127.0.0.1:1'])).code).toBe(69)
    expect(JSON.parse((await rig.faas(['--json', 'ps'])).out)).toHaveProperty('executions')
  })

  it('hands every word of gateway to the settings', async () => {
    expect((await rig.faas(['gateway', '--port', '9000', '--no-stand-ins', '--data-dir', '/x'])).code).toBe(5)
    const { out } = await rig.faas(['gateway', '--help'])
    expect(out).toMatch(/--port +TCP port.*\(default `8080`\)/)
    expect(out).not.toContain('--api-key')
  })

  it('is completed by bash, down to the options of a command', async () => {
    const script = await rig.say('completion', 'bash')
    const complete = async (...words: string[]): Promise<string[]> => {
      const { stdout } = await promisify(execFile)('bash', ['-c', `${script}\nCOMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _faas; printf '%s\\n' "\${COMPREPLY[@]}"`, 'bash', 'faas', ...words])
      return stdout.trim().split('\n')
    }
    expect(await complete('i')).toEqual(['instance', 'image'])
    expect(await complete('image', 'p')).toEqual(['pull'])
    expect(await complete('run', '--mem')).toEqual(['--memory'])
    expect(await complete('gateway', '--data')).toEqual(['--data-dir'])
    for (const shell of ['zsh', 'fish']) expect(await rig.say('completion', shell)).toContain('instance')
    expect((await rig.faas(['completion', 'tcsh'])).code).toBe(64)
  })
})

describe('every command', () => {
  const leaves = (command: Command): Command[] => (command.commands.length === 0 ? [command] : command.commands.flatMap(leaves))
  const nowhere = new Writable({ write: (_chunk, _encoding, done) => done() })
  const program = buildProgram({ environment: {}, streams: { in: Readable.from([]), out: nowhere, err: nowhere }, platform: undefined as never, signal: new AbortController().signal, exitCode: 0 })
  const nameOf = (command: Command): string => (command.parent === null || command.parent.parent === null ? command.name() : `${nameOf(command.parent)} ${command.name()}`)
  const names = leaves(program).map(nameOf)

  it.each([...names, 'image', 'keys', 'instance', 'pool', ''])('faas %s --help has an example that names it', async (name) => {
    const { code, out } = await rig.faas([...name.split(' ').filter(Boolean), '--help'])
    expect(code).toBe(0)
    expect(out).toMatch(new RegExp(`Examples?:\\n[\\s\\S]*faas ${name}`))
  })

  /** Arguments with which a command works. `gateway` and `completion` print for other programs already. */
  const CALLS: Readonly<Record<string, (ids: { execution: string; running: string; instance: string }) => readonly string[]>> = {
    run: () => ['--', 'true'], exec: ({ instance }) => [instance, 'true'], ps: () => [], logs: ({ execution }) => [execution], wait: ({ execution }) => [execution],
    cancel: ({ running }) => [running], 'instance create': () => ['alpine:latest'], 'instance ls': () => [], 'instance stop': ({ instance }) => [instance],
    'instance rm': ({ instance }) => [instance], 'image ls': () => [], 'image pull': () => ['alpine:latest'], 'image rm': () => ['gone:1'],
    'pool ls': () => [], 'pool warm': () => ['alpine:latest', '-n', '0'], 'keys create': () => [], 'keys ls': () => [], 'keys revoke': () => ['-'], doctor: () => [], bench: () => ['-n', '2'],
    'image import': () => ['/no/such/archive'], 'image build': () => ['/no/such/rootfs', '-t', 'a:1'],
  }
  /** These are shown to fail as JSON: what they need is the subject of tests of its own. */
  const FAILS = new Set(['keys revoke', 'image import', 'image build'])

  it('speaks JSON, one value and nothing else', async () => {
    expect(Object.keys(CALLS).sort()).toEqual(names.filter((name) => name !== 'gateway' && name !== 'completion').sort())
    rig.driver.images.add('gone:1', { programs: [], files: { '/only': 'here' } })
    const ids = {
      execution: (await rig.say('run', '-d', '--', 'echo', 'hi')).trim(),
      running: (await rig.say('run', '-d', '--', 'sleep', '600')).trim(),
      instance: (await rig.say('instance', 'create', 'alpine:latest')).trim(),
    }
    await rig.faas(['wait', ids.execution])
    for (const [name, argumentsOf] of Object.entries(CALLS)) {
      const said = await rig.faas(['--json', ...name.split(' '), ...argumentsOf(ids)])
      if (FAILS.has(name)) {
        expect(said.code, name).not.toBe(0)
        expect(JSON.parse(said.err), name).toHaveProperty('error.code')
      } else {
        expect([name, said.code, said.err]).toEqual([name, 0, ''])
        expect(() => json(said), name).not.toThrow()
      }
    }
  })
})
