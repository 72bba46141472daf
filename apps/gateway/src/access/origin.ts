/**
 * Which web pages and host names may talk to the gateway.
 *
 * I1. A page of another origin can neither read answers nor cause effects, unless the configuration lists its origin.
 * I2. Without keys, a host name that only resolves to this machine by a trick (DNS rebinding) is refused.
 */
import type { Config } from '@faas-platform/config'
import { isIP } from 'node:net'

export interface OriginPolicy {
  readonly corsOrigins: readonly string[]
}

/** @returns The `access-control-allow-origin` to send, or null when the page may not read the answer. */
export function allowedOrigin(origin: string, policy: OriginPolicy): string | null {
  return policy.corsOrigins.includes('*') || policy.corsOrigins.includes(origin) ? origin : null
}

/** Is `origin` the gateway's own, as the browser that sent `host` sees it? */
export function isSameOrigin(origin: string, host: string | undefined): boolean {
  return host !== undefined && URL.canParse(origin) && new URL(origin).host === host.toLowerCase()
}

/** @param host The `Host` header. */
export function isExpectedHost(host: string | undefined, expected: { readonly listenHost: string; readonly allowedHosts: readonly string[] }): boolean {
  if (host === undefined || !URL.canParse(`http://${host}`)) return false
  const name = new URL(`http://${host}`).hostname
  if (name === 'localhost' || name.endsWith('.localhost') || isLoopback(name)) return true
  if (name === bare(expected.listenHost).toLowerCase() || name === expected.listenHost.toLowerCase()) return true
  return expected.allowedHosts.some((allowed) => allowed.toLowerCase() === name)
}

/** `127.0.0.0/8`, `::1`, `localhost`. */
export function isLoopback(host: string): boolean {
  const name = bare(host)
  return name === 'localhost' || name === '::1' || (isIP(name) === 4 && name.startsWith('127.'))
}

function bare(host: string): string {
  return host.startsWith('[') && host.endsWith(']') ? host.slice(1, -1) : host
}

export function areKeysDemanded(config: Pick<Config, 'requireKeys' | 'host'>): boolean {
  return config.requireKeys === 'auto' ? !isLoopback(config.host) : config.requireKeys
}
