//! Outputs of ECDSA keys over secp256k1, native segwit version 0.
//!
//! An input is the key's own when its output is P2WPKH of
//!
//! - the key at the path that the request names, or
//! - a key that the PSBT says is one below the group's key: in `bip32_derivation`, with the group's key as the
//!   master (the first four bytes of its HASH160 as the fingerprint) and no hardened step. The path is derived
//!   here; a claim that is wrong refuses the whole PSBT.
//!
//! Change is recognised in the same two ways.
//!
//! # Amounts
//!
//! A BIP-143 signature commits to the amount of its own input alone (CVE-2020-14199). Who is asked twice to sign
//! one transaction of several inputs, each time with a lie about another input's amount, sees a small fee each
//! time, and the two answers together hold one good signature for every input: the real fee is what the lies hid.
//! So amounts are not believed: each input, of the key or not, must bring the transaction that it spends from,
//! whose hash the outpoint holds. A transaction of a single input needs no such proof: if the amount is a lie, its
//! only signature is worth nothing.

use std::collections::BTreeMap;

use bitcoin::bip32::{Fingerprint, KeySource};
use bitcoin::hashes::Hash;
use bitcoin::psbt::{Input, Output, Psbt};
use bitcoin::sighash::{EcdsaSighashType, SighashCache};
use bitcoin::{Script, ScriptBuf, Transaction, TxOut, secp256k1};

use super::{Owner, Path, check_absent};
use crate::key::Root;
use crate::{PublicKey, Rejection, SigningKey, derive, p2wpkh_script};

pub(super) struct P2wpkh {
    group: PublicKey,
    root: Root,
    fingerprint: Fingerprint,
    /// What the request names.
    path: Path,
    script: ScriptBuf,
}

impl P2wpkh {
    pub(super) fn new(group: &PublicKey, path: &[u32]) -> Result<Self, Rejection> {
        let root = Root::of(group)?;
        Ok(Self {
            group: *group,
            fingerprint: root.fingerprint(),
            root,
            path: path.to_vec(),
            script: ScriptBuf::from_bytes(p2wpkh_script(&derive(group, path)?)),
        })
    }

    /// Where the script belongs below the group's key, by the request's path and by what the PSBT claims.
    ///
    /// # Errors
    ///
    /// What is wrong with the claim.
    fn own(
        &self,
        claims: &BTreeMap<secp256k1::PublicKey, KeySource>,
        script: &Script,
    ) -> Result<Option<Path>, &'static str> {
        let claimed = self.claimed(claims, script)?;
        if script == self.script.as_script() {
            Ok(Some(self.path.clone()))
        } else {
            Ok(claimed)
        }
    }

    /// The path of the only claim that names the group's key, once it is true.
    fn claimed(
        &self,
        claims: &BTreeMap<secp256k1::PublicKey, KeySource>,
        script: &Script,
    ) -> Result<Option<Path>, &'static str> {
        let of_group = |(_, (fingerprint, _)): &(_, &KeySource)| *fingerprint == self.fingerprint;
        let mut claims = claims.iter().filter(of_group);
        let Some((public_key, (_, path))) = claims.next() else {
            return Ok(None);
        };
        // Derivation takes time, so there is one for each script.
        if claims.next().is_some() {
            return Err("names several keys below this key, and P2WPKH has one");
        }
        if script.as_bytes() != p2wpkh_script(&public_key.serialize()) {
            return Err("names a key below this key, but the script is not P2WPKH of it");
        }
        let path: Path = path.into_iter().map(|step| u32::from(*step)).collect();
        let derived = self
            .root
            .child(&path)
            .ok_or("has a path with a hardened step, or with more than 16")?;
        if derived != *public_key {
            return Err("names a key that is not at this path below this key");
        }
        Ok(Some(path))
    }
}

impl Owner for P2wpkh {
    const OUTPUTS: &str = "a P2WPKH output of the key at the requested path, or of one below it that \
                           bip32_derivation tells of";
    const SIGHASH_TYPE: (u32, &str) = (EcdsaSighashType::All as u32, "SIGHASH_ALL");

    fn input(
        &self,
        index: usize,
        input: &Input,
        script: &Script,
    ) -> Result<Option<Path>, Rejection> {
        let own = self.own(&input.bip32_derivation, script);
        own.map_err(|detail| Rejection::InputMismatch {
            input: index,
            field: "bip32_derivation",
            detail,
        })
    }

    fn output(
        &self,
        index: usize,
        output: &Output,
        script: &Script,
    ) -> Result<Option<Path>, Rejection> {
        let own = self.own(&output.bip32_derivation, script);
        own.map_err(|detail| Rejection::OutputMismatch {
            output: index,
            field: "bip32_derivation",
            detail,
        })
    }

    fn check_own(&self, index: usize, input: &Input) -> Result<(), Rejection> {
        let of_other_outputs = [
            ("tap_internal_key", input.tap_internal_key.is_some()),
            ("tap_merkle_root", input.tap_merkle_root.is_some()),
            ("tap_leaf_script", !input.tap_scripts.is_empty()),
            ("redeem_script", input.redeem_script.is_some()),
            ("witness_script", input.witness_script.is_some()),
        ];
        check_absent(
            index,
            &of_other_outputs,
            "is set, though the key's output is P2WPKH",
        )
    }

    fn check_amounts(&self, psbt: &Psbt) -> Result<(), Rejection> {
        let unproven = psbt
            .inputs
            .iter()
            .position(|input| input.non_witness_utxo.is_none());
        match unproven {
            Some(input) if psbt.inputs.len() > 1 => Err(Rejection::UnprovenAmount { input }),
            _ => Ok(()),
        }
    }

    fn signing_key(&self, path: Path) -> Result<SigningKey, Rejection> {
        SigningKey::derived(&self.group, &path)
    }

    fn signature_hash(
        cache: &mut SighashCache<&Transaction>,
        index: usize,
        prevouts: &[TxOut],
    ) -> Option<[u8; 32]> {
        let prevout = prevouts.get(index)?;
        let hash = cache.p2wpkh_signature_hash(
            index,
            &prevout.script_pubkey,
            prevout.value,
            EcdsaSighashType::All,
        );
        Some(hash.ok()?.to_byte_array())
    }
}
