/**
 * Credentials for registries: given outright, or from Docker's `config.json` with its helpers.
 * @see docker-credential-helpers: `docker-credential-<name> get`, server URL on stdin, JSON on stdout
 */
import { spawn } from 'node:child_process'
import { readFile } from 'node:fs/promises'
import { FaasError } from '@faas-platform/core'
import { isMissing } from '../failures.js'

export type RegistryCredentials = { readonly username: string; readonly password: string } | { readonly identityToken: string }

/** Answers for a registry as references name it (`docker.io`, `localhost:5000`). Undefined: anonymous. */
export type CredentialSource = (registry: string, signal: AbortSignal) => Promise<RegistryCredentials | undefined>

const HELPER_NAME = /^[A-Za-z0-9_.-]{1,64}$/
const HELPER_OUTPUT_MAX = 64 * 1024
const HELPER_TIMEOUT_MS = 10_000
/** How helpers say "nothing stored" by their message: there is no exit code for it. */
const NOT_STORED = /credentials not found/i

type Json = Readonly<Record<string, unknown>>

/** The first source that knows the registry answers. */
export function firstOf(...sources: readonly CredentialSource[]): CredentialSource {
  return async (registry, signal) => {
    for (const source of sources) {
      const found = await source(registry, signal)
      if (found !== undefined) return found
    }
    return undefined
  }
}

export function fixedCredentials(byRegistry: Readonly<Record<string, RegistryCredentials>>): CredentialSource {
  return async (registry) => (Object.hasOwn(byRegistry, registry) ? byRegistry[registry] : undefined)
}

/** A missing file means anonymous; a damaged one is an error. @throws FaasError `config/invalid` */
export function dockerConfigCredentials(path: string): CredentialSource {
  return async (registry, signal) => {
    const config = await readConfig(path)
    if (config === undefined) return undefined
    const keys = keysOf(registry)
    const helpers = jsonObject(config['credHelpers'])
    const helper = keys.map((key) => helpers[key]).find((name) => typeof name === 'string') ?? config['credsStore']
    if (typeof helper === 'string' && helper !== '') {
      const found = await askHelper(helper, keys[0] ?? registry, signal)
      if (found !== undefined) return found
    }
    const auths = jsonObject(config['auths'])
    const entry = keys.map((key) => auths[key]).find((value) => value !== undefined)
    return entry === undefined ? undefined : parseEntry(jsonObject(entry), path)
  }
}

function keysOf(registry: string): readonly string[] {
  if (registry === 'docker.io') return ['https://index.docker.io/v1/', 'index.docker.io', 'docker.io', 'registry-1.docker.io', 'https://registry-1.docker.io']
  return [registry, `https://${registry}`, `https://${registry}/`, `https://${registry}/v1/`, `https://${registry}/v2/`, `http://${registry}`]
}

async function readConfig(path: string): Promise<Json | undefined> {
  try {
    return jsonObject(JSON.parse(await readFile(path, 'utf8')))
  } catch (cause) {
    if (isMissing(cause)) return undefined
    throw new FaasError('config/invalid', { message: "Docker's configuration file with the registry credentials can not be read.", cause })
  }
}

function parseEntry(entry: Json, path: string): RegistryCredentials | undefined {
  const { identitytoken, username, password, auth } = entry
  if (typeof identitytoken === 'string' && identitytoken !== '') return { identityToken: identitytoken }
  if (typeof username === 'string' && typeof password === 'string' && username !== '') return { username, password }
  if (typeof auth !== 'string' || auth === '') return undefined
  const text = Buffer.from(auth, 'base64').toString('utf8')
  const colon = text.indexOf(':')
  if (colon < 1) throw new FaasError('config/invalid', { message: `An "auth" entry in ${path} is not base64 of user:password.` })
  return { username: text.slice(0, colon), password: text.slice(colon + 1).replace(/\0+$/, '') }
}

async function askHelper(name: string, server: string, signal: AbortSignal): Promise<RegistryCredentials | undefined> {
  if (!HELPER_NAME.test(name)) throw new FaasError('config/invalid', { message: 'The name of a credential helper is not acceptable.' })
  const { code, output } = await runHelper(`docker-credential-${name}`, server, AbortSignal.any([signal, AbortSignal.timeout(HELPER_TIMEOUT_MS)]))
  if (code !== 0) {
    if (NOT_STORED.test(output)) return undefined
    throw new FaasError('image/unauthorized', { message: `The credential helper docker-credential-${name} failed.`, cause: new Error(`exit ${code}`) })
  }
  const answer = jsonObject(parseJson(output))
  const { Username: username, Secret: secret } = answer
  if (typeof username !== 'string' || typeof secret !== 'string') return undefined
  return username === '<token>' ? { identityToken: secret } : { username, password: secret }
}

function runHelper(command: string, input: string, signal: AbortSignal): Promise<{ code: number | null; output: string }> {
  return new Promise((resolve, reject) => {
    const child = spawn(command, ['get'], { stdio: ['pipe', 'pipe', 'ignore'], signal })
    let output = ''
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      if (output.length < HELPER_OUTPUT_MAX) output += text
    })
    child.once('error', (cause) => reject(new FaasError('image/unauthorized', { message: `The credential helper ${command} could not be run.`, cause })))
    child.once('close', (code) => resolve({ code, output }))
    // The helper may exit without reading; its exit code tells.
    child.stdin.on('error', () => {})
    child.stdin.end(input)
  })
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch (cause) {
    throw new FaasError('image/unauthorized', { message: 'A credential helper gave an unreadable answer.', cause })
  }
}

function jsonObject(value: unknown): Json {
  return typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as Json) : {}
}
