/** Body of `POST /api/v1/execute` and its aliases. Unknown keys are ignored, camelCase spellings of known keys are understood. */
import { EXECUTION_MODES, ISOLATION_CLASSES, RUNTIME_NAMES } from '@faas-platform/core'
import type { Static } from 'typebox'
import Type from 'typebox'
import { LIFETIME_MS_MAX, maybe, oneOf } from './schema-parts.js'

/** `memory` is the in-memory test driver: it has no name on the wire. */
export const WIRE_RUNTIMES = ['auto', ...RUNTIME_NAMES.filter((name) => name !== 'memory')] as const

const U32_MAX = 4_294_967_295
const SAFE_MAX = Number.MAX_SAFE_INTEGER

export const Command = Type.Union([Type.String({ minLength: 1 }), Type.Array(Type.String(), { minItems: 1 })], {
  title: 'a text, or a list of texts that is not empty',
  description: 'A text runs as `/bin/sh -c <text>`; a list is the argv, without a shell.',
  examples: ['echo hello && id -u', ['/bin/echo', 'hello']],
})

export const EnvVars = Type.Union(
  [Type.Array(Type.Array(Type.String(), { minItems: 2, maxItems: 2 })), Type.Record(Type.String(), Type.String())],
  { title: 'a list of [name, value] pairs of texts, or an object of texts' },
)

export const RuntimeField = oneOf(WIRE_RUNTIMES)

/** Less than a hundredth rounds to nothing, which engines take for no limit at all. */
const CpuCores = Type.Number({ minimum: 0.01, maximum: 1024 })

export const LimitsBody = Type.Object({
  memory_mb: maybe(Type.Integer({ minimum: 8, maximum: U32_MAX }), 'Memory, MiB.'),
  cpu_cores: maybe(CpuCores, 'CPU, cores; fractions allowed.'),
  pids: maybe(Type.Integer({ minimum: 4, maximum: 4_194_304 }), 'Processes and threads.'),
  disk_mb: maybe(Type.Integer({ minimum: 1, maximum: U32_MAX }), 'What may be written to the file system, MiB.'),
})

export const NetworkBody = Type.Union(
  [
    oneOf(['none', 'egress']),
    Type.Object({
      mode: oneOf(['none', 'egress']),
      allow: maybe(Type.Array(Type.String(), { maxItems: 64 }), 'CIDRs that are reachable although they are blocked by default. Needs the scope `network` where keys are demanded.'),
    }),
  ],
  { title: '"none", "egress" or {mode, allow}' },
)

export const LabelsBody = Type.Record(Type.String({ maxLength: 128 }), Type.String({ maxLength: 1024 }), { maxProperties: 64 })

/** What a sandbox is made of; shared by execute, prewarm and instances. */
export const placementFields = {
  image: maybe(Type.String({ minLength: 1, maxLength: 1024 }), 'OCI image reference.'),
  runtime: maybe(RuntimeField, 'Runtime by name, or `auto`.'),
  isolation: maybe(oneOf(ISOLATION_CLASSES), 'The weakest isolation class that is acceptable.'),
  memory_mb: maybe(Type.Integer({ minimum: 8, maximum: U32_MAX }), 'Same as `limits.memory_mb`.'),
  cpu_cores: maybe(CpuCores, 'Same as `limits.cpu_cores`.'),
  limits: maybe(LimitsBody, 'Limits of the sandbox.'),
  network: maybe(NetworkBody, 'Network policy.'),
}

/** How a command is run; shared by execute and exec in an instance. */
export const commandFields = {
  command: Command,
  env_vars: maybe(EnvVars, 'Environment variables; the last of a name counts.'),
  working_dir: maybe(Type.String({ minLength: 1, maxLength: 4096 }), 'Absolute path; the image says the default.'),
  user: maybe(Type.String({ minLength: 1, maxLength: 256 }), '`user[:group]`, names or numbers.'),
  timeout_ms: maybe(Type.Integer({ minimum: 1, maximum: SAFE_MAX }), 'Wall time of the command and of getting its sandbox, ms.'),
  payload: maybe(Type.Array(Type.Integer({ minimum: 0, maximum: 255 })), 'Standard input as byte values.'),
  stdin: maybe(Type.String(), 'Standard input as text.'),
  stdin_base64: maybe(Type.String({ contentEncoding: 'base64' }), 'Standard input, base64.'),
  output_bytes_max: maybe(Type.Integer({ minimum: 1, maximum: SAFE_MAX }), 'Bytes of each stream kept in the reply, head and tail.'),
  log_bytes_max: maybe(Type.Integer({ minimum: 1, maximum: SAFE_MAX }), 'Bytes of both streams in the full log; a command that writes more is ended.'),
  labels: maybe(LabelsBody, 'Free labels, kept with the record.'),
  stream: maybe(Type.Boolean(), 'Answer with server-sent events, as `accept: text/event-stream` does.'),
}

export const ExecuteBody = Type.Object(
  {
    ...commandFields,
    ...placementFields,
    mode: maybe(oneOf(EXECUTION_MODES), 'Execution mode. When left out: what `instance_id` (persistent), `branch_from` (branched) or `snapshot_id` (checkpointed) asks for, else `ephemeral`.'),
    cache_key: maybe(Type.String({ maxLength: 1024 }), 'One more input of the cache key, mode `cached` only.'),
    snapshot_id: maybe(Type.String({ minLength: 1, maxLength: 256 }), 'Snapshot to start from.'),
    branch_from: maybe(Type.String({ minLength: 1, maxLength: 256 }), 'Parent of a branched run: execution, snapshot or instance.'),
    instance_id: maybe(Type.String({ minLength: 1, maxLength: 256 }), 'Run in this instance; needs no mode but `persistent`.'),
    async: maybe(Type.Boolean(), 'Answer 202 at once; the execution survives a crash of the gateway.'),
    rerunnable: maybe(Type.Boolean(), 'Asynchronous only: may it run again after a crash? Default true.'),
  },
  { additionalProperties: true, title: 'ExecuteRequest' },
)
export type ExecuteBody = Static<typeof ExecuteBody>

export const InstanceExecBody = Type.Object({ ...commandFields }, { additionalProperties: true, title: 'InstanceExecRequest' })
export type InstanceExecBody = Static<typeof InstanceExecBody>

export const PrewarmBody = Type.Object(
  { ...placementFields, image: Type.String({ minLength: 1, maxLength: 1024 }), count: Type.Integer({ minimum: 0, maximum: 1000 }) },
  { additionalProperties: true, title: 'PrewarmRequest' },
)
export type PrewarmBody = Static<typeof PrewarmBody>

export const CreateInstanceBody = Type.Object(
  {
    ...placementFields,
    name: maybe(Type.String({ minLength: 1, maxLength: 128 }), 'Name for people.'),
    env_vars: maybe(EnvVars, 'Merged into the environment of every command.'),
    labels: maybe(LabelsBody, 'Free labels.'),
    ttl_ms: maybe(Type.Integer({ minimum: 1000, maximum: LIFETIME_MS_MAX }), 'Stop after this long whatever it does.'),
    idle_ms: maybe(Type.Integer({ minimum: 1000, maximum: LIFETIME_MS_MAX }), 'Stop after this long without an execution.'),
  },
  { additionalProperties: true, title: 'CreateInstanceRequest' },
)
export type CreateInstanceBody = Static<typeof CreateInstanceBody>
