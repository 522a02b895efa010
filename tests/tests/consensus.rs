//! What the parties sign is judged by Bitcoin Core's own consensus code: key generation, a PSBT decoded by each
//! signer for itself, threshold signatures, a finished transaction. Without processes or a network; those are
//! in the end-to-end tests.
//!
//! That code is C++, which building and testing Arca otherwise does not need: `make consensus`.

#![allow(clippy::indexing_slicing, clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arca_policy::{KeyFacts, Payload, PublicKey, SigningKey};
use arca_threshold::{
    DkgParams, KeyPackage, Outbox, Participant, Protocol, Scheme, SessionId, Signable, Signed,
    SigningParams, Transition, Tweak, dkg, sign,
};
use bitcoin::absolute::LockTime;
use bitcoin::bip32::{ChildNumber, Xpriv, Xpub};
use bitcoin::consensus::encode::serialize;
use bitcoin::hashes::Hash;
use bitcoin::key::{Secp256k1, UntweakedPublicKey};
use bitcoin::secp256k1::Message;
use bitcoin::transaction::Version;
use bitcoin::{
    Amount, NetworkKind, OutPoint, Psbt, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid,
    Witness,
};
use bitcoinconsensus::{Utxo, VERIFY_ALL_PRE_TAPROOT, VERIFY_TAPROOT, verify_with_flags};
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng as _;

#[test]
fn threshold_signatures_are_valid_spends() {
    let mut rng = ChaCha20Rng::seed_from_u64(341);
    let keys = generate(&mut rng);
    let public_key = keys.values().next().unwrap().public_key();
    let internal = UntweakedPublicKey::from_slice(&public_key).unwrap();
    let own = ScriptBuf::new_p2tr(&Secp256k1::verification_only(), internal, None);
    let prevouts = vec![output(70_000, &own), output(30_000, &own)];

    for signers in [[1, 2], [1, 3], [2, 3]] {
        let psbt = psbt(&prevouts);
        let facts = KeyFacts {
            public_key: PublicKey::Bip340(public_key),
            allow_raw_digest: false,
        };
        let intent = arca_policy::decode(&Payload::Psbt(psbt.serialize()), &facts, &[]).unwrap();
        let messages = intent.signables().iter().map(|signable| {
            assert_eq!(signable.key, SigningKey::TaprootKeyPath);
            Signable {
                message: signable.message.clone(),
                tweak: Tweak::TaprootKeyPath,
            }
        });
        let signatures = sign_by(&keys, signers, messages.collect(), &mut rng);

        let mut transaction = psbt.unsigned_tx;
        for (signable, signature) in intent.signables().iter().zip(&signatures) {
            transaction.input[signable.input as usize].witness = Witness::from_slice(&[signature]);
        }
        judge(&transaction, &prevouts).unwrap();

        // The judge judges: another amount, another destination, another input's signature are no spend.
        let mut other_amount = prevouts.clone();
        other_amount[1].value += Amount::ONE_SAT;
        judge(&transaction, &other_amount).unwrap_err();
        let mut other_destination = transaction.clone();
        other_destination.output[0].script_pubkey = own.clone();
        judge(&other_destination, &prevouts).unwrap_err();
        let mut swapped = transaction.clone();
        swapped.input[0].witness = transaction.input[1].witness.clone();
        judge(&swapped, &prevouts).unwrap_err();
    }
}

#[test]
fn signatures_of_derived_ecdsa_keys_are_valid_spends() {
    // Whole private keys stand in for the shares: what is judged are the hashes, and whose they are.
    let secp = Secp256k1::new();
    let root = Xpriv::new_master(NetworkKind::Main, &[7; 64]).unwrap();
    let public_root = Xpub::from_priv(&secp, &root);
    let facts = KeyFacts {
        public_key: PublicKey::EcdsaSecp256k1 {
            key: public_root.public_key.serialize(),
            chain_code: public_root.chain_code.to_bytes(),
        },
        allow_raw_digest: false,
    };
    let paths: [&[u32]; 3] = [&[44, 7], &[0, 5], &[44, 7]];
    let child = |path: &[u32]| {
        let steps: Vec<_> = path.iter().map(|step| ChildNumber::from(*step)).collect();
        root.derive_priv(&secp, &steps).unwrap().private_key
    };
    let script = |path| {
        let public_key = bitcoin::CompressedPublicKey(child(path).public_key(&secp));
        ScriptBuf::new_p2wpkh(&public_key.wpubkey_hash())
    };
    let prevouts = paths.map(|path| output(50_000, &script(path)));
    let mut psbt = psbt(&prevouts);
    for (index, prevout) in prevouts.iter().enumerate() {
        let previous = Transaction {
            version: Version::TWO,
            lock_time: LockTime::from_height(u32::try_from(index).unwrap()).unwrap(),
            input: vec![TxIn::default()],
            output: vec![prevout.clone()],
        };
        psbt.unsigned_tx.input[index].previous_output = OutPoint::new(previous.compute_txid(), 0);
        psbt.inputs[index].non_witness_utxo = Some(previous);
    }
    let steps: Vec<_> = paths[1]
        .iter()
        .map(|step| ChildNumber::from(*step))
        .collect();
    psbt.inputs[1].bip32_derivation.insert(
        child(paths[1]).public_key(&secp),
        (public_root.fingerprint(), steps.into()),
    );
    let intent = arca_policy::decode(&Payload::Psbt(psbt.serialize()), &facts, paths[0]).unwrap();
    assert_eq!(intent.signables().len(), 3);

    let mut transaction = psbt.unsigned_tx;
    for (signable, input) in intent.signables().iter().zip(&mut transaction.input) {
        let SigningKey::Derived { path, public_key } = &signable.key else {
            panic!("not a derived key")
        };
        let message = Message::from_digest(signable.message.clone().try_into().unwrap());
        let signature = secp.sign_ecdsa(&message, &child(path));
        let signature = bitcoin::ecdsa::Signature::sighash_all(signature);
        input.witness = Witness::from_slice(&[signature.to_vec(), public_key.to_vec()]);
    }
    judge(&transaction, &prevouts).unwrap();

    // The judge judges.
    let mut other_amount = prevouts.clone();
    other_amount[1].value += Amount::ONE_SAT;
    judge(&transaction, &other_amount).unwrap_err();
    let mut swapped = transaction.clone();
    swapped.input[0].witness = transaction.input[2].witness.clone();
    judge(&swapped, &prevouts).unwrap_err();
}

/// Every input, by `libbitcoinconsensus`.
fn judge(transaction: &Transaction, prevouts: &[TxOut]) -> Result<(), bitcoinconsensus::Error> {
    let bytes = serialize(transaction);
    let scripts: Vec<&[u8]> = prevouts
        .iter()
        .map(|prevout| prevout.script_pubkey.as_bytes())
        .collect();
    let spent: Vec<Utxo> = prevouts
        .iter()
        .zip(&scripts)
        .map(|(prevout, script)| Utxo {
            script_pubkey: script.as_ptr(),
            script_pubkey_len: u32::try_from(script.len()).unwrap(),
            value: i64::try_from(prevout.value.to_sat()).unwrap(),
        })
        .collect();
    for (index, (prevout, script)) in prevouts.iter().zip(&scripts).enumerate() {
        let flags = VERIFY_ALL_PRE_TAPROOT | VERIFY_TAPROOT;
        verify_with_flags(
            script,
            prevout.value.to_sat(),
            &bytes,
            Some(&spent),
            index,
            flags,
        )?;
    }
    Ok(())
}

fn psbt(prevouts: &[TxOut]) -> Psbt {
    let txin = |index: usize| TxIn {
        previous_output: OutPoint::new(Txid::hash(&index.to_le_bytes()), 0),
        sequence: Sequence::ENABLE_RBF_NO_LOCKTIME,
        ..TxIn::default()
    };
    let transaction = Transaction {
        version: Version::TWO,
        lock_time: LockTime::ZERO,
        input: (0..prevouts.len()).map(txin).collect(),
        // BIP-173, "Examples".
        output: vec![output(
            99_000,
            &ScriptBuf::from_hex("0014751e76e8199196d454941c45d1b3a323f1433bd6").unwrap(),
        )],
    };
    let mut psbt = Psbt::from_unsigned_tx(transaction).unwrap();
    for (input, prevout) in psbt.inputs.iter_mut().zip(prevouts) {
        input.witness_utxo = Some(prevout.clone());
    }
    psbt
}

fn output(amount: u64, script: &ScriptBuf) -> TxOut {
    TxOut {
        value: Amount::from_sat(amount),
        script_pubkey: script.clone(),
    }
}

type Keys = BTreeMap<Participant, Arc<KeyPackage>>;

/// A key of three participants, two of whom sign.
fn generate(rng: &mut ChaCha20Rng) -> Keys {
    let participants = participants([1, 2, 3]);
    let mut starts = BTreeMap::new();
    for me in &participants {
        let params = DkgParams {
            scheme: Scheme::Bip340,
            session: SessionId::new([1; 32]),
            context: [0; 32],
            me: *me,
            participants: participants.clone(),
            threshold: 2,
        };
        starts.insert(*me, dkg(params, rng).unwrap());
    }
    run(starts, rng)
        .into_iter()
        .map(|(me, key)| (me, Arc::new(key)))
        .collect()
}

fn sign_by<const N: usize>(
    keys: &Keys,
    signers: [u16; N],
    messages: Vec<Signable>,
    rng: &mut ChaCha20Rng,
) -> Vec<[u8; 64]> {
    let signers = participants(signers);
    let coordinator = *signers.first().unwrap();
    let mut starts = BTreeMap::new();
    for me in &signers {
        let params = SigningParams {
            session: SessionId::new([2; 32]),
            context: [0; 32],
            signers: signers.clone(),
            coordinator,
            messages: messages.clone(),
        };
        starts.insert(*me, sign(Arc::clone(&keys[me]), params, rng).unwrap());
    }
    match run(starts, rng).remove(&coordinator).unwrap() {
        Signed::Signatures(signatures) => signatures,
        other => panic!("the coordinator has no signatures: {other:?}"),
    }
}

fn participants<const N: usize>(indices: [u16; N]) -> BTreeSet<Participant> {
    indices
        .into_iter()
        .map(|index| Participant::new(index).unwrap())
        .collect()
}

/// Delivers every message of every round.
fn run<O>(
    starts: BTreeMap<Participant, (Protocol<O>, Outbox)>,
    rng: &mut ChaCha20Rng,
) -> BTreeMap<Participant, O> {
    let mut running = BTreeMap::new();
    let mut letters = Vec::new();
    for (me, (protocol, outbox)) in starts {
        post(&mut letters, me, outbox);
        running.insert(me, protocol);
    }
    let mut done = BTreeMap::new();
    while !running.is_empty() {
        let delivered = std::mem::take(&mut letters);
        for (me, protocol) in std::mem::take(&mut running) {
            let mut inbox = protocol.inbox();
            for (from, _, bytes) in delivered.iter().filter(|(_, to, _)| *to == me) {
                inbox.insert(*from, bytes.clone()).unwrap();
            }
            match protocol.advance(inbox, rng).unwrap() {
                Transition::Continue(protocol, outbox) => {
                    post(&mut letters, me, outbox);
                    running.insert(me, protocol);
                }
                Transition::Done(output, outbox) => {
                    post(&mut letters, me, outbox);
                    done.insert(me, output);
                }
            }
        }
    }
    done
}

type Letter = (Participant, Participant, Vec<u8>);

fn post(letters: &mut Vec<Letter>, from: Participant, outbox: Outbox) {
    letters.extend(
        outbox
            .into_iter()
            .map(|(to, bytes)| (from, to, bytes.to_vec())),
    );
}
