//! Outputs of BIP-340 keys, spent by the key path.
//!
//! An input is the key's own when its output is P2TR under the key tweaked with the empty script tree. Every
//! signature is SIGHASH_DEFAULT, which commits to all inputs with their amounts and scripts and to all outputs.

use bitcoin::hashes::Hash;
use bitcoin::key::{Secp256k1, TapTweak, UntweakedPublicKey};
use bitcoin::psbt::{Input, Output, Psbt};
use bitcoin::sighash::{Prevouts, SighashCache, TapSighashType};
use bitcoin::{Script, ScriptBuf, Transaction, TxOut};

use super::{Owner, Path, check_absent};
use crate::{Rejection, SigningKey};

pub(super) struct Taproot {
    internal: [u8; 32],
    /// The only script whose outputs are the key's: P2TR of the key tweaked with no script tree (BIP-86).
    script: ScriptBuf,
}

impl Taproot {
    pub(super) fn new(key: &[u8; 32]) -> Result<Self, Rejection> {
        let internal = UntweakedPublicKey::from_slice(key).map_err(|_| Rejection::InvalidKey)?;
        // Tweaking fails for a tweak that hits the group order or the key's negation: no one can find such a key.
        let (output_key, _parity) = internal.tap_tweak(&Secp256k1::verification_only(), None);
        Ok(Self {
            internal: *key,
            script: ScriptBuf::new_p2tr_tweaked(output_key),
        })
    }

    fn own(&self, script: &Script) -> Option<Path> {
        (script == self.script.as_script()).then(Path::new)
    }

    /// Whether the input names this key as its internal key; none if it names none.
    fn names_key(&self, input: &Input) -> Option<bool> {
        Some(input.tap_internal_key?.serialize() == self.internal)
    }
}

impl Owner for Taproot {
    const OUTPUTS: &str = "the key's BIP-86 output (P2TR of the key without script tree)";
    const SIGHASH_TYPE: (u32, &str) = (TapSighashType::Default as u32, "SIGHASH_DEFAULT");

    fn input(
        &self,
        index: usize,
        input: &Input,
        script: &Script,
    ) -> Result<Option<Path>, Rejection> {
        let own = self.own(script);
        if own.is_none() && self.names_key(input) == Some(true) {
            let detail = "is this key, but the output is not the key's BIP-86 output (P2TR without script tree)";
            return Err(Rejection::InputMismatch {
                input: index,
                field: "tap_internal_key",
                detail,
            });
        }
        Ok(own)
    }

    fn output(&self, _: usize, _: &Output, script: &Script) -> Result<Option<Path>, Rejection> {
        Ok(self.own(script))
    }

    fn check_own(&self, index: usize, input: &Input) -> Result<(), Rejection> {
        if self.names_key(input) == Some(false) {
            return Err(Rejection::InputMismatch {
                input: index,
                field: "tap_internal_key",
                detail: "is not this key, though the output is this key's",
            });
        }
        let of_script_trees = [
            ("tap_merkle_root", input.tap_merkle_root.is_some()),
            ("tap_leaf_script", !input.tap_scripts.is_empty()),
        ];
        let of_other_outputs = [
            ("redeem_script", input.redeem_script.is_some()),
            ("witness_script", input.witness_script.is_some()),
        ];
        check_absent(
            index,
            &of_script_trees,
            "is set, though the key's output has no script tree",
        )?;
        check_absent(
            index,
            &of_other_outputs,
            "is set, though the key's output is taproot",
        )
    }

    fn check_amounts(&self, _: &Psbt) -> Result<(), Rejection> {
        // The signature commits to them.
        Ok(())
    }

    fn signing_key(&self, _: Path) -> Result<SigningKey, Rejection> {
        Ok(SigningKey::TaprootKeyPath)
    }

    fn signature_hash(
        cache: &mut SighashCache<&Transaction>,
        index: usize,
        prevouts: &[TxOut],
    ) -> Option<[u8; 32]> {
        let prevouts = Prevouts::All(prevouts);
        let hash =
            cache.taproot_key_spend_signature_hash(index, &prevouts, TapSighashType::Default);
        Some(hash.ok()?.to_byte_array())
    }
}
