/**
 * A server that a node is connected to, for people. `address` has no account in it; `version` is
 * null where the server does not say.
 */
export type ServerFacts = { readonly address: string; readonly version: string | null }
