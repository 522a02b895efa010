//! What a module and its token can do, asked and tried.

use std::fmt::Write as _;

use cryptoki::{
    context::Pkcs11,
    mechanism::{Mechanism, MechanismType},
    object::{Attribute, AttributeType, KeyType, ObjectClass},
    session::Session,
    slot::Slot,
};
use serde::Serialize;
use sha2::{Digest as _, Sha384};

use crate::{
    HsmError, ec,
    module::{Module, brief},
    platform,
};

/// The whole answer.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The library, as it presents itself.
    pub library: String,
    /// The version of PKCS#11 that it implements.
    pub cryptoki: String,
    /// The token, as it presents itself.
    pub token: String,
    /// The token's state: PIN and login.
    pub state: Vec<String>,
    /// Each thing that is needed.
    pub checks: Vec<Check>,
}

/// One thing that is needed.
#[derive(Clone, Debug, Serialize)]
pub struct Check {
    /// What.
    pub name: &'static str,
    /// How it went.
    pub outcome: Outcome,
    /// Why, or what was seen.
    pub detail: String,
}

/// How a check went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It is there and works.
    Ok,
    /// It is missing, or does not work.
    Missing,
    /// Nice to have, and not there.
    Weaker,
    /// Not tried: no PIN.
    Untried,
}

impl Report {
    /// The names of what is missing.
    pub fn missing(&self) -> Vec<&'static str> {
        let missing = self
            .checks
            .iter()
            .filter(|check| check.outcome == Outcome::Missing);
        missing.map(|check| check.name).collect()
    }

    /// A table for people.
    pub fn table(&self) -> String {
        let mut text = format!(
            "library   {}\nPKCS#11   {}\ntoken     {}\nstate     {}\n\n",
            self.library,
            self.cryptoki,
            self.token,
            self.state.join(", ")
        );
        for check in &self.checks {
            let outcome = match check.outcome {
                Outcome::Ok => "ok",
                Outcome::Missing => "MISSING",
                Outcome::Weaker => "weaker",
                Outcome::Untried => "untried",
            };
            let _ = writeln!(text, "{outcome:<8} {:<30} {}", check.name, check.detail);
        }
        text
    }
}

/// Asks the module, and with a login tries everything on keys that end with the session.
pub(crate) fn probe(module: &Module, try_it: bool) -> Result<Report, HsmError> {
    let pkcs11 = module.pkcs11();
    let (slot, token) = module.find()?;
    let info = pkcs11
        .get_library_info()
        .map_err(|error| crate::module::call("asking the library", &error))?;
    let mut state = Vec::new();
    for (is, word) in [
        (token.login_required(), "login required"),
        (token.user_pin_initialized(), "user PIN set"),
        (
            token.user_pin_count_low(),
            "a wrong PIN was tried since the last login",
        ),
        (
            token.user_pin_final_try(),
            "ONE MORE WRONG PIN LOCKS THE TOKEN",
        ),
        (token.user_pin_locked(), "USER PIN LOCKED"),
        (token.write_protected(), "write-protected"),
        (
            token.protected_authentication_path(),
            "has a PIN pad of its own, which is not used",
        ),
    ] {
        if is {
            state.push(word.to_owned());
        }
    }
    let mut checks = mechanisms(pkcs11, slot);
    if try_it {
        let (session, _) = module.open(false)?;
        checks.extend(trials(&session));
        let _ = session.close();
    } else {
        checks.extend(TRIALS.map(|name| Check {
            name,
            outcome: Outcome::Untried,
            detail: "needs a login: give --config".to_owned(),
        }));
    }
    let version = info.library_version();
    let cryptoki = info.cryptoki_version();
    Ok(Report {
        library: format!(
            "{} {} {}.{}",
            info.manufacturer_id().trim(),
            info.library_description().trim(),
            version.major(),
            version.minor()
        ),
        cryptoki: format!("{}.{}", cryptoki.major(), cryptoki.minor()),
        token: format!(
            "`{}`, {}",
            token.label().trim_end(),
            crate::module::stated(&token)
        ),
        state,
        checks,
    })
}

fn mechanisms(pkcs11: &Pkcs11, slot: Slot) -> Vec<Check> {
    let listed = pkcs11.get_mechanism_list(slot).unwrap_or_default();
    let needed = [
        ("CKM_AES_KEY_GEN", MechanismType::AES_KEY_GEN, 32),
        ("CKM_AES_GCM", MechanismType::AES_GCM, 32),
        ("CKM_EC_KEY_PAIR_GEN", MechanismType::ECC_KEY_PAIR_GEN, 384),
        ("CKM_ECDSA", MechanismType::ECDSA, 384),
    ];
    needed
        .into_iter()
        .map(|(name, mechanism, size)| {
            let there = listed.contains(&mechanism);
            let (outcome, detail) = match pkcs11.get_mechanism_info(slot, mechanism) {
                Ok(info) if there => {
                    let (min, max) = (info.min_key_size(), info.max_key_size());
                    // Some count AES keys in bits, some tell nothing at all.
                    let fits = max == 0 || max >= size;
                    let outcome = if fits { Outcome::Ok } else { Outcome::Missing };
                    (outcome, format!("keys of {min} to {max}"))
                }
                _ if there => (Outcome::Ok, "listed".to_owned()),
                _ => (Outcome::Missing, "the token does not list it".to_owned()),
            };
            Check {
                name,
                outcome,
                detail,
            }
        })
        .collect()
}

const TRIALS: [&str; 5] = [
    "C_GenerateRandom",
    "AES-256-GCM on a new key",
    "ECDSA on a new P-384 key",
    "keys cannot be taken out",
    "keys cannot be altered",
];

/// On session keys with the attributes of the real ones.
fn trials(session: &Session) -> Vec<Check> {
    let [random, gcm, ecdsa, stay, fixed] = TRIALS;
    let mut checks = vec![check(random, draw(session))];
    let kek = [
        Attribute::Class(ObjectClass::SECRET_KEY),
        Attribute::KeyType(KeyType::AES),
        Attribute::ValueLen(32_u64.into()),
        Attribute::Token(false),
        Attribute::Private(true),
        Attribute::Sensitive(true),
        Attribute::Extractable(false),
        Attribute::Encrypt(true),
        Attribute::Decrypt(true),
        Attribute::Wrap(false),
        Attribute::Unwrap(false),
    ];
    let made = session
        .generate_key(&Mechanism::AesKeyGen, &kek)
        .map_err(|error| brief(&error));
    checks.push(check(
        gcm,
        made.clone().and_then(|key| platform::try_gcm(session, key)),
    ));
    checks.push(check(ecdsa, sign(session)));
    let attributes = made.and_then(|key| {
        let kinds = [
            AttributeType::Sensitive,
            AttributeType::Extractable,
            AttributeType::AlwaysSensitive,
            AttributeType::NeverExtractable,
            AttributeType::Local,
        ];
        let expected = [
            Attribute::Sensitive(true),
            Attribute::Extractable(false),
            Attribute::AlwaysSensitive(true),
            Attribute::NeverExtractable(true),
            Attribute::Local(true),
        ];
        let found = session
            .get_attributes(key, &kinds)
            .map_err(|error| brief(&error))?;
        if let Some(wrong) = expected.iter().find(|one| !found.contains(one)) {
            return Err(format!("{wrong:?} is not what the token says"));
        }
        let value = session.get_attributes(key, &[AttributeType::Value]);
        if value.is_ok_and(|value| !value.is_empty()) {
            return Err("CKA_VALUE of a sensitive key could be read".to_owned());
        }
        Ok("sensitive, never extractable, made in the token; CKA_VALUE is refused".to_owned())
    });
    checks.push(check(stay, attributes));
    let mut unmodifiable = kek.to_vec();
    unmodifiable.push(Attribute::Modifiable(false));
    let honoured = session.generate_key(&Mechanism::AesKeyGen, &unmodifiable);
    checks.push(match honoured {
        Ok(_) => check(fixed, Ok("CKA_MODIFIABLE=false is accepted".to_owned())),
        Err(error) => Check {
            name: fixed,
            outcome: Outcome::Weaker,
            detail: format!(
                "{}; keys are made without CKA_MODIFIABLE=false",
                brief(&error)
            ),
        },
    });
    checks
}

fn check(name: &'static str, result: Result<String, String>) -> Check {
    let (outcome, detail) = match result {
        Ok(detail) => (Outcome::Ok, detail),
        Err(detail) => (Outcome::Missing, detail),
    };
    Check {
        name,
        outcome,
        detail,
    }
}

fn draw(session: &Session) -> Result<String, String> {
    let mut drawn = [[0; 32]; 2];
    for bytes in &mut drawn {
        session
            .generate_random_slice(bytes)
            .map_err(|error| brief(&error))?;
    }
    let [first, second] = drawn;
    if first == second || first == [0; 32] {
        return Err("it returns the same bytes every time".to_owned());
    }
    Ok("32 bytes".to_owned())
}

fn sign(session: &Session) -> Result<String, String> {
    let failed = |error: cryptoki::error::Error| brief(&error);
    let public = [
        Attribute::Token(false),
        Attribute::EcParams(crate::keys::P384.to_vec()),
        Attribute::Verify(true),
    ];
    let private = [
        Attribute::Token(false),
        Attribute::Private(true),
        Attribute::Sensitive(true),
        Attribute::Extractable(false),
        Attribute::Sign(true),
    ];
    let (public, private) = session
        .generate_key_pair(&Mechanism::EccKeyPairGen, &public, &private)
        .map_err(failed)?;
    let point = session
        .get_attributes(public, &[AttributeType::EcPoint])
        .map_err(failed)?;
    let Some(Attribute::EcPoint(point)) = point.into_iter().next() else {
        return Err("the public key has no CKA_EC_POINT".to_owned());
    };
    let spki = ec::spki(&point).ok_or("CKA_EC_POINT is no uncompressed point of P-384")?;
    let digest: [u8; 48] = Sha384::digest(b"probe").into();
    let raw = session
        .sign(&Mechanism::Ecdsa, private, &digest)
        .map_err(failed)?;
    ec::checked(&spki, &digest, &raw).ok_or("the signature does not verify")?;
    Ok("a SHA-384 digest, signed and verified".to_owned())
}
