export type { NewKey, Scope } from './access/keys.js'
export { createKey, DEFAULT_SCOPES, revokeKey, SCOPES } from './access/keys.js'
export type { Gateway, GatewayOptions } from './build-gateway.js'
export { buildGateway } from './build-gateway.js'
