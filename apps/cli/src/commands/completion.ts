import { Argument, type Command } from 'commander'
import type { Cli } from '../context.js'
import { GATEWAY_FLAGS } from './gateway.js'

const SHELLS = ['bash', 'zsh', 'fish'] as const
type Shell = (typeof SHELLS)[number]

/** A command's full name → what may follow it. */
type Words = ReadonlyMap<string, readonly string[]>

export function registerCompletion(program: Command, cli: Cli): void {
  program
    .command('completion')
    .description('print a completion script for a shell')
    .addArgument(new Argument('<shell>').choices(SHELLS))
    .addHelpText('after', `
Examples:
  source <(faas completion bash)
  faas completion zsh > ~/.zfunc/_faas
  faas completion fish > ~/.config/fish/completions/faas.fish`)
    .action((shell: Shell) => {
      cli.streams.out.write(SCRIPTS[shell](wordsOf(program)))
    })
}

function wordsOf(command: Command, prefix = command.name()): Map<string, readonly string[]> {
  const flags = command.options.filter((option) => !option.hidden).map((option) => option.long ?? option.short ?? '')
  const settings = prefix === 'faas gateway' ? GATEWAY_FLAGS : []
  const words = new Map<string, readonly string[]>([[prefix, [...command.commands.map((child) => child.name()), ...flags, ...settings, '--help']]])
  for (const child of command.commands) for (const [name, following] of wordsOf(child, `${prefix} ${child.name()}`)) words.set(name, following)
  return words
}

/** Walks the words before the cursor down the command tree; the same few lines of shell for bash and zsh. */
function walk(words: Words, list: string): string {
  const names = [...words.keys()].filter((name) => name !== 'faas').map((name) => `"${name}"`)
  return `  local key=faas word
  for word in ${list}; do
    case "$key $word" in
      ${names.join('|')}) key="$key $word" ;;
    esac
  done
  local following=
  case "$key" in
${[...words].map(([name, following]) => `    "${name}") following="${following.join(' ')}" ;;`).join('\n')}
  esac`
}

const SCRIPTS: Readonly<Record<Shell, (words: Words) => string>> = {
  bash: (words) => `# bash completion of faas
_faas() {
${walk(words, '"${COMP_WORDS[@]:1:COMP_CWORD-1}"')}
  COMPREPLY=($(compgen -W "$following" -- "\${COMP_WORDS[COMP_CWORD]}"))
}
complete -o default -F _faas faas
`,
  zsh: (words) => `#compdef faas
_faas() {
${walk(words, '"${(@)words[2,CURRENT-1]}"')}
  compadd -- \${=following}
  _files
}
compdef _faas faas
`,
  fish: (words) => `# fish completion of faas
function __faas_key
  set -l key faas
  for word in (commandline -opc)[2..-1]
    if contains -- "$key $word" ${[...words.keys()].filter((name) => name !== 'faas').map((name) => `'${name}'`).join(' ')}
      set key "$key $word"
    end
  end
  echo $key
end
${[...words].map(([name, following]) => `complete -c faas -n 'test (__faas_key) = "${name}"' -a '${following.join(' ')}'`).join('\n')}
`,
}
