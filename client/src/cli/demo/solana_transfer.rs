//! A transfer of the system program, with a made-up blockhash.

use arca_client::{Key, Payload, SigningRequest, address, solana};
use rand_core::{OsRng, RngCore};

use super::report::Item;

const LAMPORTS: u64 = 1_500_000;

/// A transfer on its way.
pub(super) struct Transfer {
    message: solana::Message,
    recipient: String,
}

impl Transfer {
    pub fn prepare(key: &Key) -> anyhow::Result<Self> {
        let mut recipient = [0; 32];
        let mut blockhash = [0; 32];
        OsRng.fill_bytes(&mut recipient);
        OsRng.fill_bytes(&mut blockhash);
        let from = key.public_key.ed25519()?;
        Ok(Self {
            message: solana::transfer(from, &recipient, LAMPORTS, &blockhash),
            recipient: address::solana(&recipient),
        })
    }

    pub fn payload(&self) -> Payload {
        Payload::SolanaMessage(self.message.bytes().to_vec())
    }

    /// Assembles the transaction, which verifies the signature.
    pub fn finish(self, key: &Key, signed: &SigningRequest) -> anyhow::Result<Item> {
        let [signature] = signed.signatures.as_slice() else {
            anyhow::bail!("{} does not hold exactly one signature", signed.name);
        };
        let transaction = self
            .message
            .into_transaction(key.public_key.ed25519()?, &signature.signature)?;
        let id = transaction.id().unwrap_or_default();
        Ok(
            Item::new(format!("Solana: {LAMPORTS} lamports to {}", self.recipient))
                .detail("id", &id)
                .detail("verified by", solana::VERIFIER)
                .with("chain", &"solana")
                .with("id", &id)
                .with("transaction", &transaction.base64())
                .with("verified_by", &solana::VERIFIER),
        )
    }
}
