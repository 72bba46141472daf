import path from 'node:path'
import { formatBytes } from '@faas-platform/core'
import type { Command } from 'commander'
import { type Cli, clientOf, outputOf } from '../context.js'
import { environmentPairs } from '../parse.js'
import { Progress } from '../progress.js'

/** Archives and directories are read by the gateway, so their paths are of its machine. */
export function registerImages(program: Command, cli: Cli): void {
  const image = program.command('image').description('images of the gateway')

  image
    .command('ls')
    .description('list stored images')
    .action(async (_options: unknown, command: Command) => {
      const output = outputOf(cli, command)
      const images = (await clientOf(command).images.list({ signal: cli.signal })) as Record<string, unknown>[]
      output.value(images, () =>
        output.table(['REFERENCE', 'STORE', 'DIGEST', 'SIZE', 'NOTE'], images.map((row) => [
          String(row['reference']), String(row['store']), String(row['digest']).slice(0, 19), formatBytes(Number(row['size_bytes'])), row['stand_in'] === true ? 'local stand-in' : '',
        ])))
    })

  image
    .command('pull')
    .description('pull an image from its registry, verified by digest')
    .argument('<reference>')
    .option('--store <family>', 'oci or docker')
    .addHelpText('after', '\nExample:\n  faas image pull python:3.11-slim')
    .action(async (reference: string, options: { store?: string }, command: Command) => {
      const output = outputOf(cli, command)
      const progress = new Progress(output)
      const pulled = await clientOf(command).images.pull(reference, {
        ...options, signal: cli.signal,
        onProgress: ({ layer, ...part }) => progress.update({ name: layer.replace(/^sha256:/, '').slice(0, 12), ...part }),
      })
      progress.end()
      output.value(pulled, () => output.line(`${String(pulled['reference'])} ${String(pulled['digest'])}`))
    })

  image
    .command('import')
    .description('import an OCI layout (directory or tar) or a `docker save` tar')
    .argument('<path>')
    .option('-t, --tag <reference>', 'name it so, whatever the archive says')
    .option('--store <family>', 'oci or docker')
    .action(async (file: string, options: { tag?: string; store?: string }, command: Command) => {
      const output = outputOf(cli, command)
      const images = (await clientOf(command, 600_000).images.import(path.resolve(file), {
        signal: cli.signal,
        ...(options.tag === undefined ? {} : { reference: options.tag }),
        ...(options.store === undefined ? {} : { store: options.store }),
      })) as Record<string, unknown>[]
      output.value(images, () => images.forEach((row) => output.line(`${String(row['reference'])} ${String(row['digest'])}`)))
    })

  image
    .command('build')
    .description('make an image of a root file system directory, offline')
    .argument('<rootfs>')
    .requiredOption('-t, --tag <reference>', 'its name')
    .option('-e, --env <KEY=VALUE>', 'environment of its commands (repeatable)', environmentPairs(cli.environment), {})
    .option('-w, --workdir <path>', 'working directory of its commands')
    .option('-u, --user <user[:group]>', 'user of its commands')
    .option('--store <family>', 'oci or docker')
    .addHelpText('after', '\nExample:\n  faas image build ./rootfs -t my/tool:1 -e PATH=/bin')
    .action(async (rootfs: string, options: { tag: string; env: Record<string, string>; workdir?: string; user?: string; store?: string }, command: Command) => {
      const output = outputOf(cli, command)
      const built = await clientOf(command, 600_000).images.build(path.resolve(rootfs), options.tag, {
        signal: cli.signal, env: options.env,
        ...(options.workdir === undefined ? {} : { workingDir: options.workdir }),
        ...(options.user === undefined ? {} : { user: options.user }),
        ...(options.store === undefined ? {} : { store: options.store }),
      })
      output.value(built, () => output.line(`${String(built['reference'])} ${String(built['digest'])}`))
    })

  image
    .command('rm')
    .description('remove an image')
    .argument('<reference...>')
    .option('--store <family>', 'oci or docker')
    .action(async (references: string[], options: { store?: string }, command: Command) => {
      const output = outputOf(cli, command)
      for (const reference of references) await clientOf(command).images.remove(reference, { ...options, signal: cli.signal })
      output.value({ removed: references }, () => output.line(references.join('\n')))
    })
}
