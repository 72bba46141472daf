import path from 'node:path'
import { formatBytes } from '@faas-platform/core'
import { type Command, Option } from 'commander'
import { type Cli, clientOf, given, outputOf } from '../context.js'
import { each } from '../each.js'
import { environmentPairs } from '../parse.js'
import { Progress } from '../progress.js'

/** Archives and directories are read by the gateway, so their paths are of its machine. */
export function registerImages(program: Command, cli: Cli): void {
  const image = program.command('image').description('images of the gateway').addHelpText('after', '\nExample:\n  faas image pull python:3.11-slim && faas run -i python:3.11-slim -- python3 -V')

  image
    .command('ls')
    .description('list stored images')
    .addHelpText('after', '\nExample:\n  faas image ls')
    .action(async (_options: unknown, command: Command) => {
      const output = outputOf(cli, command)
      const images = await clientOf(cli, command).images.list({ signal: cli.signal })
      output.value(images, () =>
        output.table(['REFERENCE', 'STORE', 'DIGEST', 'SIZE', 'NOTE'], images.map((row) => [
          row.reference, row.store, row.digest.slice(0, 19), formatBytes(row.size_bytes), row.stand_in ? 'local stand-in' : '',
        ])))
    })

  image
    .command('pull')
    .description('pull an image from its registry, verified by digest')
    .argument('<reference>', 'such as python:3.11-slim or registry.example.com/team/tool@sha256:…')
    .addOption(storeOption())
    .addHelpText('after', '\nExample:\n  faas image pull python:3.11-slim')
    .action(async (reference: string, options: { store?: string }, command: Command) => {
      const output = outputOf(cli, command)
      const progress = new Progress(output)
      try {
        const pulled = await clientOf(cli, command, { attempts: 1 }).images.pull(reference, {
          ...options, signal: cli.signal,
          onProgress: ({ layer, ...part }) => progress.update({ name: layer.replace(/^sha256:/, '').slice(0, 12), ...part }),
        })
        progress.end()
        output.value(pulled, () => output.line(`${pulled.reference} ${pulled.digest}`))
      } finally {
        progress.end()
      }
    })

  image
    .command('import')
    .description('import an OCI layout (directory or tar) or a `docker save` tar')
    .argument('<path>', 'on the machine of the gateway')
    .option('-t, --tag <reference>', 'name it so, whatever the archive says')
    .addOption(storeOption())
    .addHelpText('after', '\nExamples:\n  docker save redis:7 -o redis.tar && faas image import redis.tar\n  faas image import ./layout -t my/tool:1')
    .action(async (file: string, options: { tag?: string; store?: string }, command: Command) => {
      const output = outputOf(cli, command)
      const images = await clientOf(cli, command, { timeoutMs: LONG_MS }).images.import(path.resolve(file), {
        signal: cli.signal, ...given({ reference: options.tag, store: options.store }),
      })
      output.value(images, () => images.forEach((row) => output.line(`${row.reference} ${row.digest}`)))
    })

  image
    .command('build')
    .description('make an image of a root file system directory, offline')
    .argument('<rootfs>', 'directory on the machine of the gateway')
    .requiredOption('-t, --tag <reference>', 'its name')
    .addOption(new Option('-e, --env <KEY=VALUE>', 'environment of its commands (repeatable)').argParser(environmentPairs(cli.environment)).default({}, 'none'))
    .option('-w, --workdir <path>', 'working directory of its commands')
    .option('-u, --user <user[:group]>', 'user of its commands')
    .addOption(storeOption())
    .addHelpText('after', '\nExample:\n  faas image build ./rootfs -t my/tool:1 -e PATH=/bin')
    .action(async (rootfs: string, options: { tag: string; env: Record<string, string>; workdir?: string; user?: string; store?: string }, command: Command) => {
      const output = outputOf(cli, command)
      const built = await clientOf(cli, command, { timeoutMs: LONG_MS }).images.build(path.resolve(rootfs), options.tag, {
        signal: cli.signal, env: options.env, ...given({ workingDir: options.workdir, user: options.user, store: options.store }),
      })
      output.value(built, () => output.line(`${built.reference} ${built.digest}`))
    })

  image
    .command('rm')
    .description('remove images')
    .argument('<reference...>', 'references as `faas image ls` shows them')
    .addOption(storeOption())
    .addHelpText('after', '\nExample:\n  faas image rm my/tool:1')
    .action(async (references: string[], options: { store?: string }, command: Command) => {
      const output = outputOf(cli, command)
      const client = clientOf(cli, command)
      const removed: string[] = []
      await each(cli, output, references, async (reference) => {
        await client.images.remove(reference, { ...options, signal: cli.signal })
        removed.push(reference)
        if (!output.json) output.line(reference)
      })
      if (output.json) output.value({ removed }, () => undefined)
    })
}

/** Reading an archive takes as long as its size makes it. */
const LONG_MS = 600_000

function storeOption(): Option {
  return new Option('--store <family>', 'the store of runc, crun and gVisor, or the engine\'s (default: the first that works)').choices(['oci', 'docker'])
}
