//! Domain separation: every hash of this crate, and nothing else, is tagged here.

use sha2::{Digest, Sha256, Sha512};

/// What a run is about: parameters that all participants must share.
pub(crate) const CONTEXT: &str = "arca/v1/threshold/context";
/// One participant's broadcast of one round, as its receivers echo it.
pub(crate) const ECHO: &str = "arca/v1/threshold/echo";
/// Commitment to a participant's contribution to a key.
pub(crate) const DKG_COMMITMENT: &str = "arca/v1/threshold/dkg-commitment";
/// Public key package: key, threshold, verifying shares.
pub(crate) const PUBLIC_KEY_PACKAGE: &str = "arca/v1/threshold/public-key-package";

/// Everything that a pairwise setup is bound to: its run and both sides' first messages.
pub(crate) const PAIR_OFFERS: &str = "arca/v1/threshold/pair/offers";
/// One direction of it.
pub(crate) const PAIR_SESSION: &str = "arca/v1/threshold/pair/session";
/// Commitment to one side's half of the zero-sharing seed.
pub(crate) const PAIR_SEED_COMMITMENT: &str = "arca/v1/threshold/pair/seed-commitment";
/// The zero-sharing seed, from both halves.
pub(crate) const PAIR_SEED: &str = "arca/v1/threshold/pair/seed";
/// A base transfer's hash into the group. SHA-512.
pub(crate) const BASE_POINT: &str = "arca/v1/threshold/pair/base-point";
/// A base transfer's key.
pub(crate) const BASE_KEY: &str = "arca/v1/threshold/pair/base-key";
/// A puncturable tree's inner node, to its two children.
pub(crate) const TREE_NODE: &str = "arca/v1/threshold/pair/tree-node";
/// A puncturable tree's leaf, to the seed it stands for.
pub(crate) const TREE_LEAF: &str = "arca/v1/threshold/pair/tree-leaf";
/// A puncturable tree's leaf, to the value that its check is about.
pub(crate) const TREE_CHECK: &str = "arca/v1/threshold/pair/tree-check";
/// All check values of one side's trees.
pub(crate) const TREE_DIGEST: &str = "arca/v1/threshold/pair/tree-digest";
/// One message of a pairwise setup.
pub(crate) const PAIR_MESSAGE: &str = "arca/v1/threshold/pair/message";
/// A finished setup: all that was sent.
pub(crate) const PAIR_SETUP: &str = "arca/v1/threshold/pair/setup";
/// One side's confirmation of a finished setup.
pub(crate) const PAIR_CONFIRM: &str = "arca/v1/threshold/pair/confirm";
/// One scalar of a pair's share of zero.
pub(crate) const ZERO_SHARE: &str = "arca/v1/threshold/pair/zero-share";
/// One run of the transfer extension.
pub(crate) const EXTENSION: &str = "arca/v1/threshold/extension/run";
/// Key of the permutation that expands the seeds in one run.
pub(crate) const EXTENSION_EXPAND: &str = "arca/v1/threshold/extension/expand";
/// Challenge of the extension's consistency check.
pub(crate) const EXTENSION_CHALLENGE: &str = "arca/v1/threshold/extension/challenge";
/// Answer of the extension's consistency check.
pub(crate) const EXTENSION_CHECK: &str = "arca/v1/threshold/extension/check";
/// The extension's whole message.
pub(crate) const EXTENSION_MESSAGE: &str = "arca/v1/threshold/extension/message";
/// Key of the permutation that makes the pads of one run.
pub(crate) const MULTIPLY_PADS: &str = "arca/v1/threshold/multiply/pads";
/// One element of a curve's gadget vector.
pub(crate) const MULTIPLY_GADGET: &str = "arca/v1/threshold/multiply/gadget";
/// Everything that a multiplication's challenges follow from.
pub(crate) const MULTIPLY_TRANSCRIPT: &str = "arca/v1/threshold/multiply/transcript";
/// One challenge of the multiplications' consistency check.
pub(crate) const MULTIPLY_CHALLENGE: &str = "arca/v1/threshold/multiply/challenge";
/// Answer of the multiplications' consistency check.
pub(crate) const MULTIPLY_CHECK: &str = "arca/v1/threshold/multiply/check";
/// ECDSA: commitment to a participant's contribution to a key.
pub(crate) const ECDSA_DKG_COMMITMENT: &str = "arca/v1/threshold/ecdsa/dkg-commitment";
/// ECDSA: challenge of the proof of knowledge of a participant's part of the key.
pub(crate) const ECDSA_DKG_PROOF: &str = "arca/v1/threshold/ecdsa/dkg-proof";
/// ECDSA: the chain code, from what every participant contributed.
pub(crate) const ECDSA_CHAIN_CODE: &str = "arca/v1/threshold/ecdsa/chain-code";
/// ECDSA public key package: key, chain code, threshold, verifying shares.
pub(crate) const ECDSA_PUBLIC_KEY_PACKAGE: &str = "arca/v1/threshold/ecdsa/public-key-package";
/// Commitment to a signer's nonce points of a batch of presignatures.
pub(crate) const PRESIGN_COMMITMENT: &str = "arca/v1/threshold/ecdsa/presign-commitment";
/// What two signers of a presigning session give to their pairwise setup as its session.
pub(crate) const PRESIGN_PAIR: &str = "arca/v1/threshold/ecdsa/presign-pair";
/// Everything the signers of a presigning session broadcast.
pub(crate) const PRESIGN_TRANSCRIPT: &str = "arca/v1/threshold/ecdsa/presign-transcript";
/// Names one presignature.
pub(crate) const PRESIGNATURE: &str = "arca/v1/threshold/ecdsa/presignature";
/// What a presignature's nonce is shifted by for the message it signs.
pub(crate) const RERANDOMISE: &str = "arca/v1/threshold/ecdsa/rerandomise";
/// What hides a signature share unless all signers have the same view of the request.
pub(crate) const SHARE_MASK: &str = "arca/v1/threshold/ecdsa/share-mask";

/// SHA-256 over the tag and the parts, each with its length before it, so that no two lists of parts
/// give the same input.
pub(crate) fn hash(tag: &str, parts: &[&[u8]]) -> [u8; 32] {
    framed::<Sha256>(tag, parts).into()
}

/// The same with SHA-512, to be reduced to a scalar.
pub(crate) fn hash_wide(tag: &str, parts: &[&[u8]]) -> [u8; 64] {
    framed::<Sha512>(tag, parts).into()
}

fn framed<D: Digest>(tag: &str, parts: &[&[u8]]) -> sha2::digest::Output<D> {
    let mut hasher = D::new();
    for part in [tag.as_bytes()].iter().chain(parts) {
        hasher.update((part.len() as u64).to_be_bytes());
        hasher.update(part);
    }
    hasher.finalize()
}
