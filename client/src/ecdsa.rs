//! ECDSA signatures judged by code that no party signs with: libsecp256k1, and the p256 crate.

use bitcoin::secp256k1::ecdsa::{RecoverableSignature, RecoveryId, Signature};
use bitcoin::secp256k1::{Message, PublicKey, Secp256k1};

use crate::error::{Error, Result};
use crate::resources::EcdsaSigner;

/// What verifies signatures on secp256k1 here.
pub(crate) const SECP256K1_VERIFIER: &str = "libsecp256k1, ECDSA with low s";
/// What verifies signatures on P-256 here.
pub(crate) const P256_VERIFIER: &str = "the p256 crate, ECDSA with low s";

/// Verifies a signature under a compressed key, demands its s in the lower half, and that its recovery id leads
/// back to the key.
///
/// # Errors
/// [`Error::Unverified`] with what does not fit.
pub(crate) fn verify_secp256k1(
    signer: &EcdsaSigner,
    digest: &[u8; 32],
    signature: &[u8; 64],
) -> Result<()> {
    let parsed =
        Signature::from_compact(signature).map_err(|_| failed("r or s is out of range"))?;
    let mut low = parsed;
    low.normalize_s();
    if low != parsed {
        return Err(failed("its s is not in the lower half of the order"));
    }
    let key = PublicKey::from_slice(&signer.public_key)
        .map_err(|_| failed("its key is no point of secp256k1"))?;
    Secp256k1::verification_only()
        .verify_ecdsa(&Message::from_digest(*digest), &parsed, &key)
        .map_err(|_| failed("it is not this key's over this message"))?;
    if recover_secp256k1(digest, signature, signer.recovery_id)? != signer.public_key {
        return Err(failed("its recovery id leads to another key"));
    }
    Ok(())
}

/// The key whose signature over `digest` this is, compressed: as Ethereum finds a transaction's sender.
///
/// # Errors
/// [`Error::Unverified`] when there is none.
pub(crate) fn recover_secp256k1(
    digest: &[u8; 32],
    signature: &[u8; 64],
    recovery_id: u8,
) -> Result<[u8; 33]> {
    let recovery_id = RecoveryId::from_i32(recovery_id.into())
        .map_err(|_| failed("its recovery id is not 0 to 3"))?;
    let signature = RecoverableSignature::from_compact(signature, recovery_id)
        .map_err(|_| failed("r or s is out of range"))?;
    let key = Secp256k1::verification_only()
        .recover_ecdsa(&Message::from_digest(*digest), &signature)
        .map_err(|_| failed("no key has this signature"))?;
    Ok(key.serialize())
}

/// As [`verify_secp256k1`], on P-256.
///
/// # Errors
/// [`Error::Unverified`] with what does not fit.
pub(crate) fn verify_p256(
    signer: &EcdsaSigner,
    digest: &[u8; 32],
    signature: &[u8; 64],
) -> Result<()> {
    use p256::ecdsa::signature::hazmat::PrehashVerifier;
    use p256::ecdsa::{Signature, VerifyingKey};

    let signature =
        Signature::from_slice(signature).map_err(|_| failed("r or s is out of range"))?;
    if signature.normalize_s().is_some() {
        return Err(failed("its s is not in the lower half of the order"));
    }
    let key = VerifyingKey::from_sec1_bytes(&signer.public_key)
        .map_err(|_| failed("its key is no point of P-256"))?;
    key.verify_prehash(digest, &signature)
        .map_err(|_| failed("it is not this key's over this message"))?;
    let recovered = ecdsa::RecoveryId::from_byte(signer.recovery_id)
        .and_then(|id| VerifyingKey::recover_from_prehash(digest, &signature, id).ok());
    if recovered != Some(key) {
        return Err(failed("its recovery id leads to another key"));
    }
    Ok(())
}

/// A secp256k1 signature in DER, as Bitcoin's scripts and X.509 have it.
///
/// # Errors
/// [`Error::Unverified`] when it is none.
pub(crate) fn der(signature: &[u8; 64]) -> Result<Vec<u8>> {
    let signature =
        Signature::from_compact(signature).map_err(|_| failed("r or s is out of range"))?;
    Ok(signature.serialize_der().to_vec())
}

fn failed(problem: &str) -> Error {
    Error::unverified("ECDSA signature", problem)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bitcoin::secp256k1::SecretKey;

    const DIGEST: [u8; 32] = [0x5a; 32];

    type Verify = fn(&EcdsaSigner, &[u8; 32], &[u8; 64]) -> Result<()>;

    /// A good signature on each curve, and what verifies it.
    fn signed() -> [(EcdsaSigner, [u8; 64], Verify); 2] {
        let secp = Secp256k1::new();
        let secret = SecretKey::from_slice(&[9; 32]).unwrap();
        let (id, signature) = secp
            .sign_ecdsa_recoverable(&Message::from_digest(DIGEST), &secret)
            .serialize_compact();
        let first = EcdsaSigner {
            public_key: secret.public_key(&secp).serialize(),
            recovery_id: u8::try_from(id.to_i32()).unwrap(),
        };
        let secret = p256::ecdsa::SigningKey::from_slice(&[9; 32]).unwrap();
        let (mut p256, mut id) = secret.sign_prehash_recoverable(&DIGEST).unwrap();
        if let Some(low) = p256.normalize_s() {
            p256 = low;
            id = ecdsa::RecoveryId::new(!id.is_y_odd(), id.is_x_reduced());
        }
        let point = secret.verifying_key().to_encoded_point(true);
        let second = EcdsaSigner {
            public_key: point.as_bytes().try_into().unwrap(),
            recovery_id: id.to_byte(),
        };
        [
            (first, signature, verify_secp256k1),
            (second, p256.to_bytes().into(), verify_p256),
        ]
    }

    fn problem(outcome: Result<()>) -> String {
        outcome.unwrap_err().to_string()
    }

    #[test]
    fn good_signatures_verify_and_others_do_not() {
        for (signer, signature, verify) in signed() {
            verify(&signer, &DIGEST, &signature).unwrap();
            assert!(problem(verify(&signer, &[1; 32], &signature)).contains("not this key's"));
            let other = EcdsaSigner {
                recovery_id: signer.recovery_id ^ 1,
                ..signer
            };
            assert!(problem(verify(&other, &DIGEST, &signature)).contains("recovery id"));
            assert!(problem(verify(&signer, &DIGEST, &[0xff; 64])).contains("out of range"));
            verify(&signer, &DIGEST, &[0; 64]).unwrap_err();
        }
    }

    /// (r, n - s) verifies too, and is another transaction id: nobody gets two signatures for one.
    #[test]
    fn a_high_s_is_refused() {
        let [(signer, mut signature, _), (p256_signer, p256_signature, _)] = signed();
        let mut s = SecretKey::from_slice(&signature[32..]).unwrap();
        s = s.negate();
        signature[32..].copy_from_slice(&s.secret_bytes());
        let high = EcdsaSigner {
            recovery_id: signer.recovery_id ^ 1,
            ..signer
        };
        assert!(problem(verify_secp256k1(&high, &DIGEST, &signature)).contains("lower half"));

        let low = p256::ecdsa::Signature::from_slice(&p256_signature).unwrap();
        let high = p256::ecdsa::Signature::from_scalars(low.r(), -*low.s()).unwrap();
        let problem = problem(verify_p256(&p256_signer, &DIGEST, &high.to_bytes().into()));
        assert!(problem.contains("lower half"), "{problem}");
    }
}
