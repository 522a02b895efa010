//! Every domain tag of this crate. A tag names one purpose and is never used for another.

/// HKDF info: mixing the sealed hedge into the generator's pool.
pub const RANDOM_HEDGE: &str = "arca/v1/random-hedge";
/// HKDF info: seeding one generator.
pub const RANDOM_SEED: &str = "arca/v1/random-seed";
/// SHA-256: id of a key, from the session that makes it.
pub const KEY_ID: &str = "arca/v1/key-id";
/// SHA-256: what the parties of a key generation agree on.
pub const KEY_CONTEXT: &str = "arca/v1/key-context";
/// SHA-256: id of a signing request, from cluster, initiator and request id.
pub const SIGNING_REQUEST_ID: &str = "arca/v1/signing-request-id";
/// SHA-256: id of a CreateKey request, from cluster, administrator and request id.
pub const KEY_REQUEST_ID: &str = "arca/v1/key-request-id";
/// SHA-256: body of a CreateKey request, for idempotency.
pub const KEY_REQUEST_BODY: &str = "arca/v1/key-request-body";
/// First bytes of every sealed blob; the last one is the format's version.
pub const SEALED_BLOB_MAGIC: &[u8; 8] = b"arcaSB\x00\x01";
/// SHA-256: what two enclaves that make a pairwise setup agree on.
pub const PAIR_SETUP: &str = "arca/v1/pair-setup";
/// SHA-256: what presignatures live and die with.
pub const PRESIGNATURE_BINDING: &str = "arca/v1/presignature-binding";
/// SHA-256: the entropy by which a request shifts the nonces of its signatures.
pub const SIGNING_ENTROPY: &str = "arca/v1/signing-entropy";
/// SHA-256: what the signers of an ECDSA signature agree on, the request and their instances.
pub const SIGNING_CONTEXT: &str = "arca/v1/signing-context";
/// SHA-256: the names of a batch of presignatures, which each signer confirms to hold.
pub const PRESIGNATURE_NAMES: &str = "arca/v1/presignature-names";
/// SHA-256: where an object stands in the index.
pub const INDEX_PATH: &str = "arca/v1/index-path";
/// SHA-256: a page or branch of the index.
pub const INDEX_NODE: &str = "arca/v1/index-node";
/// SHA-256: the head of a party's state, from the one before it.
pub const STATE_HEAD: &str = "arca/v1/state-head";
/// HKDF info: the key that signs the checkpoints of this party's log.
pub const LOG_KEY: &str = "arca/v1/log-key";
/// HKDF info: the key that cosigns the checkpoints of other parties.
pub const WITNESS_KEY: &str = "arca/v1/witness-key";
