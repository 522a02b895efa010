//! Why a payload is refused.

use crate::Scheme;

/// Why nothing of a payload is signed. Messages carry positions and numbers, never the payload's bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Rejection {
    /// The payload is for another kind of key.
    #[error("{payload} is signed with {expected}, and this is a key for {actual}")]
    SchemeMismatch {
        /// What the payload is.
        payload: &'static str,
        /// What it needs.
        expected: &'static str,
        /// What the key is.
        actual: Scheme,
    },
    /// The key has no grant for raw digests.
    #[error(
        "this key does not sign raw digests; send the transaction, or create a key with allow_raw_digest"
    )]
    RawDigestNotAllowed,
    /// 32 zero bytes under ECDSA: signatures over them can be made up without the key.
    #[error("digest: 32 zero bytes are not signed with ECDSA")]
    ZeroDigest,
    /// The derivation path cannot be used with this key.
    #[error("derivation_path: {detail}")]
    DerivationPath {
        /// What is wrong.
        detail: &'static str,
    },
    /// The key's bytes are no point of its curve.
    #[error("the public key is no valid point of its curve")]
    InvalidKey,
    /// The payload exceeds a bound.
    #[error("{field}: {actual} exceeds the limit of {limit}")]
    TooLarge {
        /// What is too large.
        field: &'static str,
        /// Its size, as far as it was counted.
        actual: u64,
        /// The bound.
        limit: u64,
    },
    /// The bytes are no well-formed payload of their kind.
    #[error("{field}: {detail}")]
    Malformed {
        /// Where.
        field: String,
        /// What is wrong.
        detail: &'static str,
    },
    /// A field is well-formed, and holds what is not signed.
    #[error("{field}: {detail}")]
    FieldRefused {
        /// Which.
        field: String,
        /// What is wrong.
        detail: &'static str,
    },
    /// An Ethereum transaction of a type that is not understood.
    #[error(
        "ethereum_transaction: type {actual:#04x} is refused; legacy, 0x01, 0x02 and 0x03 are signed"
    )]
    TransactionType {
        /// The first byte.
        actual: u8,
    },
    /// A legacy Ethereum transaction that any chain would take.
    #[error(
        "ethereum_transaction: names no chain and would be valid on every one; add chain_id, 0, 0 (EIP-155)"
    )]
    NoChainId,
    /// A PSBT input lacks the output it spends, without which amounts and signature hashes are unknown.
    #[error("psbt.inputs[{input}]: neither witness_utxo nor non_witness_utxo tells what it spends")]
    MissingUtxo {
        /// The input's index.
        input: usize,
    },
    /// What a PSBT says about an input contradicts itself or the key.
    #[error("psbt.inputs[{input}].{field}: {detail}")]
    InputMismatch {
        /// The input's index.
        input: usize,
        /// The PSBT field.
        field: &'static str,
        /// What is wrong.
        detail: &'static str,
    },
    /// What a PSBT says about an output contradicts the key.
    #[error("psbt.outputs[{output}].{field}: {detail}")]
    OutputMismatch {
        /// The output's index.
        output: usize,
        /// The PSBT field.
        field: &'static str,
        /// What is wrong.
        detail: &'static str,
    },
    /// An input's amount is only claimed, in a transaction of several inputs whose signatures do not commit to it.
    #[error(
        "psbt.inputs[{input}].non_witness_utxo: is missing; with several inputs, P2WPKH signatures need the whole previous transaction of each to prove its amount"
    )]
    UnprovenAmount {
        /// The input's index.
        input: usize,
    },
    /// An input of the key asks for another signature hash type than the one that is signed.
    #[error(
        "psbt.inputs[{input}].sighash_type: {actual:#04x} is refused, only {expected} is signed"
    )]
    SighashType {
        /// The input's index.
        input: usize,
        /// What the PSBT asks for.
        actual: u32,
        /// What is signed.
        expected: &'static str,
    },
    /// An input of the key carries a signature already.
    #[error("psbt.inputs[{input}].{field}: the input is signed already")]
    AlreadySigned {
        /// The input's index.
        input: usize,
        /// The PSBT field that holds the signature.
        field: &'static str,
    },
    /// No input of the PSBT belongs to the key.
    #[error("psbt: none of the {inputs} inputs spends {expected}")]
    NoInputOfKey {
        /// How many inputs were looked at.
        inputs: usize,
        /// What the key's outputs are.
        expected: &'static str,
    },
    /// An amount, or a sum of amounts, exceeds 21 million bitcoin.
    #[error("{field}: more than 21 million bitcoin")]
    AmountOutOfRange {
        /// Which amount.
        field: String,
    },
    /// The outputs exceed the inputs.
    #[error("psbt: the outputs, {outputs} sat, exceed the inputs, {inputs} sat")]
    NegativeFee {
        /// Sum of the inputs in satoshi.
        inputs: u64,
        /// Sum of the outputs in satoshi.
        outputs: u64,
    },
    /// The key is not among the message's required signers.
    #[error("solana_message: the key is not among the {signers} required signers")]
    NotASigner {
        /// How many signers the message requires.
        signers: usize,
    },
}

impl Rejection {
    /// A stable name for programs. Never changes its meaning; new ones may be added.
    pub fn reason(&self) -> &'static str {
        match self {
            Rejection::SchemeMismatch { .. } => "SCHEME_MISMATCH",
            Rejection::RawDigestNotAllowed => "RAW_DIGEST_NOT_ALLOWED",
            Rejection::ZeroDigest => "ZERO_DIGEST",
            Rejection::DerivationPath { .. } => "DERIVATION_PATH",
            Rejection::InvalidKey => "INVALID_KEY",
            Rejection::TooLarge { .. } => "PAYLOAD_TOO_LARGE",
            Rejection::Malformed { .. } => "PAYLOAD_MALFORMED",
            Rejection::FieldRefused { .. } => "FIELD_REFUSED",
            Rejection::TransactionType { .. } => "ETHEREUM_TRANSACTION_TYPE",
            Rejection::NoChainId => "ETHEREUM_NO_CHAIN_ID",
            Rejection::MissingUtxo { .. } => "PSBT_MISSING_UTXO",
            Rejection::InputMismatch { .. } => "PSBT_INPUT_MISMATCH",
            Rejection::OutputMismatch { .. } => "PSBT_OUTPUT_MISMATCH",
            Rejection::UnprovenAmount { .. } => "PSBT_UNPROVEN_AMOUNT",
            Rejection::SighashType { .. } => "PSBT_SIGHASH_TYPE",
            Rejection::AlreadySigned { .. } => "PSBT_ALREADY_SIGNED",
            Rejection::NoInputOfKey { .. } => "PSBT_NO_INPUT_OF_KEY",
            Rejection::AmountOutOfRange { .. } => "PSBT_AMOUNT_OUT_OF_RANGE",
            Rejection::NegativeFee { .. } => "PSBT_NEGATIVE_FEE",
            Rejection::NotASigner { .. } => "SOLANA_NOT_A_SIGNER",
        }
    }

    pub(crate) fn malformed(field: impl Into<String>, detail: &'static str) -> Self {
        Rejection::Malformed {
            field: field.into(),
            detail,
        }
    }
}
