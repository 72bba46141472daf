/** Branded ids, so that one kind can not be passed for another. */

declare const brand: unique symbol
type Branded<Name extends string> = string & { readonly [brand]: Name }

export type ExecutionId = Branded<'ExecutionId'>
export type SandboxId = Branded<'SandboxId'>
export type InstanceId = Branded<'InstanceId'>
export type SnapshotId = Branded<'SnapshotId'>
/** `sha256:<64 hex>` of an image manifest. */
export type ImageDigest = Branded<'ImageDigest'>
/** Who asks: an API key's owner, `local` for loopback without keys, an operator's address. */
export type PrincipalId = Branded<'PrincipalId'>
export type KeyId = Branded<'KeyId'>

/** Marks text that was checked, or made, as an id of the wanted kind. */
export function asId<T extends Branded<string>>(text: string): T {
  return text as T
}

const DIGEST = /^sha256:[0-9a-f]{64}$/

export function isImageDigest(text: string): text is ImageDigest {
  return DIGEST.test(text)
}
