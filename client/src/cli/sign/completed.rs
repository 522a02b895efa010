//! What the signatures were put into.

use arca_client::{Error, Scheme, ethereum, psbt, solana, verify};
use serde::Serialize;

use super::Signed;

/// A finished transaction, or as far as it goes. All of it was verified here.
#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(super) enum Transaction {
    Bitcoin {
        txid: String,
        hex: String,
        fee_sat: u64,
        verified_inputs: Vec<usize>,
        verified_by: &'static str,
    },
    Psbt {
        psbt: String,
        open_inputs: Vec<usize>,
    },
    Solana {
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<String>,
        base64: String,
        missing_signers: Vec<String>,
        verified_by: &'static str,
    },
    Ethereum {
        #[serde(rename = "type")]
        kind: &'static str,
        chain_id: u64,
        hash: String,
        raw: String,
        from: String,
        verified_by: &'static str,
        #[serde(skip_serializing_if = "Option::is_none")]
        note: Option<&'static str>,
    },
    Signature {
        signature: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        recovery_id: Option<u8>,
        public_key: String,
        verified_by: &'static str,
    },
}

impl From<ethereum::Signed> for Transaction {
    fn from(signed: ethereum::Signed) -> Self {
        Self::Ethereum {
            kind: signed.kind,
            chain_id: signed.chain_id,
            hash: format!("0x{}", hex::encode(signed.hash)),
            raw: format!("0x{}", hex::encode(&signed.raw)),
            from: arca_policy::ethereum_checksum(&signed.from),
            verified_by: ethereum::VERIFIER,
            note: signed.needs_sidecar.then_some(
                "without the sidecar of its blobs: nodes want it beside the transaction",
            ),
        }
    }
}

pub(super) fn eth(signed: &Signed) -> Result<ethereum::Signed, Error> {
    let public_key = signed.key.public_key.derive(&signed.path)?;
    let [signature] = signed.request.signatures.as_slice() else {
        return Err(not_one(signed));
    };
    ethereum::Signed::new(&signed.intent, &public_key, signature)
}

pub(super) fn psbt(psbt: bitcoin::Psbt, signed: &Signed) -> Result<Transaction, Error> {
    let signatures = signed.request.signatures.iter();
    let (outcome, verified_by) = if signed.key.scheme == Scheme::Bip340 {
        let signatures: Vec<_> = signatures.map(|one| (one.input, one.signature)).collect();
        let internal_key = signed.key.public_key.bip340()?;
        (
            psbt::finalise(psbt, internal_key, &signatures)?,
            psbt::VERIFIER,
        )
    } else {
        // Each is of the key that was derived here: `verify::signatures` has compared them.
        let signatures: Vec<_> = signatures
            .filter_map(|one| Some((one.input, one.ecdsa?.public_key, one.signature)))
            .collect();
        (
            psbt::finalise_p2wpkh(psbt, &signatures)?,
            psbt::P2WPKH_VERIFIER,
        )
    };
    Ok(match outcome {
        psbt::Signed::Final(spend) => Transaction::Bitcoin {
            txid: spend.transaction.compute_txid().to_string(),
            hex: spend.hex(),
            fee_sat: spend.fee.to_sat(),
            verified_inputs: spend.verified,
            verified_by,
        },
        psbt::Signed::Partial { psbt, open } => Transaction::Psbt {
            psbt: psbt.to_string(),
            open_inputs: open,
        },
    })
}

pub(super) fn solana(message: solana::Message, signed: &Signed) -> Result<Transaction, Error> {
    let [signature] = signed.request.signatures.as_slice() else {
        return Err(not_one(signed));
    };
    let key = signed.key.public_key.ed25519()?;
    let transaction = message.into_transaction(key, &signature.signature)?;
    Ok(Transaction::Solana {
        id: transaction.id(),
        base64: transaction.base64(),
        missing_signers: transaction
            .missing
            .iter()
            .map(arca_client::address::solana)
            .collect(),
        verified_by: solana::VERIFIER,
    })
}

pub(super) fn digest(signed: &Signed) -> Result<Transaction, Error> {
    let [signature] = signed.request.signatures.as_slice() else {
        return Err(not_one(signed));
    };
    let public_key = match &signature.ecdsa {
        Some(signer) => hex::encode(signer.public_key),
        None => hex::encode(signed.key.public_key.as_bytes()),
    };
    Ok(Transaction::Signature {
        signature: hex::encode(signature.signature),
        recovery_id: signature.ecdsa.map(|signer| signer.recovery_id),
        public_key,
        verified_by: verify::verifier(signed.key.scheme),
    })
}

fn not_one(signed: &Signed) -> Error {
    Error::Unverified {
        object: signed.request.name.clone(),
        problem: "it does not hold exactly one signature".to_owned(),
    }
}

/// For people.
pub(super) fn fields(transaction: &Transaction) -> Vec<(&'static str, String)> {
    match transaction {
        Transaction::Bitcoin {
            txid,
            hex,
            fee_sat,
            verified_inputs,
            verified_by,
        } => {
            let inputs: Vec<String> = verified_inputs.iter().map(ToString::to_string).collect();
            vec![
                ("txid", txid.clone()),
                ("fee", format!("{fee_sat} sat")),
                (
                    "verified",
                    format!("inputs {}: {verified_by}", inputs.join(", ")),
                ),
                ("transaction", hex.clone()),
            ]
        }
        Transaction::Psbt { psbt, open_inputs } => {
            let inputs: Vec<String> = open_inputs.iter().map(ToString::to_string).collect();
            vec![
                (
                    "still open",
                    format!("inputs {} wait for other signers", inputs.join(", ")),
                ),
                ("psbt", psbt.clone()),
            ]
        }
        Transaction::Solana {
            id,
            base64,
            missing_signers,
            verified_by,
        } => {
            let mut fields = vec![
                (
                    "id",
                    id.clone()
                        .unwrap_or_else(|| "open: the payer has not signed".to_owned()),
                ),
                ("verified", (*verified_by).to_owned()),
                ("transaction", base64.clone()),
            ];
            if !missing_signers.is_empty() {
                fields.push(("still missing", missing_signers.join(", ")));
            }
            fields
        }
        Transaction::Ethereum {
            kind,
            chain_id,
            hash,
            raw,
            from,
            verified_by,
            note,
        } => {
            let mut fields = vec![
                ("hash", hash.clone()),
                ("type", format!("{kind}, chain {chain_id}")),
                ("from", from.clone()),
                ("verified", (*verified_by).to_owned()),
                ("transaction", raw.clone()),
            ];
            fields.extend(note.map(|note| ("note", note.to_owned())));
            fields
        }
        Transaction::Signature {
            signature,
            recovery_id,
            public_key,
            verified_by,
        } => {
            let mut fields = vec![
                ("verified", (*verified_by).to_owned()),
                ("public key", public_key.clone()),
                ("signature", signature.clone()),
            ];
            fields.extend(recovery_id.map(|id| ("recovery id", id.to_string())));
            fields
        }
    }
}

/// What a node says, for people.
pub(super) fn receipt(receipt: &ethereum::Receipt) -> Vec<(&'static str, String)> {
    let end = if receipt.success {
        "executed"
    } else {
        "reverted: the fee is paid, and nothing else has happened"
    };
    vec![
        ("mined", format!("in block {}, {end}", receipt.block)),
        (
            "gas",
            format!("{} units at {} wei", receipt.gas_used, receipt.gas_price),
        ),
    ]
}
