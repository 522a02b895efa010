//! The two keys in the token: how they are made, found and judged.

use cryptoki::{
    mechanism::Mechanism,
    object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle},
    session::Session,
};
use rand_core::{OsRng, RngCore as _};

use crate::{
    HsmError, ec,
    module::{brief, call},
};

/// P-384 (secp384r1, 1.3.132.0.34) as CKA_EC_PARAMS has it, DER.
pub(crate) const P384: [u8; 7] = [0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22];
const KEK_BYTES: u64 = 32;
const ID_BYTES: usize = 16;

/// How the two keys are called, and once they are known, which ones they are.
#[derive(Clone, Debug)]
pub(crate) struct Names {
    pub(crate) token: String,
    pub(crate) kek: String,
    pub(crate) identity: String,
}

/// What tells the keys apart from others that take their place. Nothing here is secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) kek_id: Vec<u8>,
    pub(crate) identity_id: Vec<u8>,
    /// The identity key, SubjectPublicKeyInfo in DER.
    pub(crate) spki: Vec<u8>,
}

/// Handles, good for one login.
#[derive(Clone, Copy)]
pub(crate) struct Handles {
    pub(crate) kek: ObjectHandle,
    pub(crate) identity: ObjectHandle,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Sort {
    Kek,
    Identity,
}

/// Makes both keys in the token, which must have none of these labels.
pub(crate) fn make(session: &Session, names: &Names) -> Result<Known, HsmError> {
    for label in [&names.kek, &names.identity] {
        let there = session
            .find_objects(&[Attribute::Label(label.as_bytes().to_vec())])
            .map_err(|error| call("looking for keys", &error))?;
        if !there.is_empty() {
            return Err(HsmError::ObjectExists {
                token: names.token.clone(),
                label: label.clone(),
            });
        }
    }
    let kek = make_kek(session, &names.kek)?;
    let made = make_identity(session, &names.identity)
        .and_then(|pair| Ok((pair, find(session, names, None)?)));
    match made {
        Ok((_, (known, _))) => Ok(known),
        Err(error) => {
            // Neither key is used yet. Whoever starts again should find the token as it was.
            let label = Attribute::Label(names.identity.as_bytes().to_vec());
            let halves = session.find_objects(&[label]).unwrap_or_default();
            for object in halves.into_iter().chain([kek]) {
                let _ = session.destroy_object(object);
            }
            Err(error)
        }
    }
}

/// Asks for attributes that not every module knows, and if it knows them not, for those that all do.
fn strictest<T>(
    operation: &'static str,
    attempt: impl Fn(&[Attribute]) -> Result<T, cryptoki::error::Error>,
) -> Result<T, HsmError> {
    let wishes = [
        vec![Attribute::Modifiable(false), Attribute::Copyable(false)],
        vec![Attribute::Modifiable(false)],
        vec![],
    ];
    let mut last = None;
    for wish in wishes {
        match attempt(&wish) {
            Ok(made) => return Ok(made),
            Err(error) => last = Some(error),
        }
    }
    Err(HsmError::Call {
        operation,
        cause: last.map_or_else(String::new, |error| brief(&error)),
    })
}

fn new_id() -> Vec<u8> {
    let mut id = vec![0; ID_BYTES];
    OsRng.fill_bytes(&mut id);
    id
}

fn make_kek(session: &Session, label: &str) -> Result<ObjectHandle, HsmError> {
    let id = new_id();
    strictest("making the key-encryption key", |wish| {
        let mut template = vec![
            Attribute::Class(ObjectClass::SECRET_KEY),
            Attribute::KeyType(KeyType::AES),
            Attribute::ValueLen(KEK_BYTES.into()),
            Attribute::Label(label.as_bytes().to_vec()),
            Attribute::Id(id.clone()),
            Attribute::Token(true),
            Attribute::Private(true),
            Attribute::Sensitive(true),
            Attribute::Extractable(false),
            Attribute::Encrypt(true),
            Attribute::Decrypt(true),
            Attribute::Wrap(false),
            Attribute::Unwrap(false),
            Attribute::Sign(false),
            Attribute::Verify(false),
            Attribute::Derive(false),
        ];
        template.extend_from_slice(wish);
        session.generate_key(&Mechanism::AesKeyGen, &template)
    })
}

fn make_identity(session: &Session, label: &str) -> Result<(ObjectHandle, ObjectHandle), HsmError> {
    let id = new_id();
    strictest("making the identity key", |wish| {
        let public = [
            Attribute::Class(ObjectClass::PUBLIC_KEY),
            Attribute::KeyType(KeyType::EC),
            Attribute::EcParams(P384.to_vec()),
            Attribute::Label(label.as_bytes().to_vec()),
            Attribute::Id(id.clone()),
            Attribute::Token(true),
            Attribute::Private(false),
            Attribute::Verify(true),
        ];
        let mut private = vec![
            Attribute::Class(ObjectClass::PRIVATE_KEY),
            Attribute::KeyType(KeyType::EC),
            Attribute::Label(label.as_bytes().to_vec()),
            Attribute::Id(id.clone()),
            Attribute::Token(true),
            Attribute::Private(true),
            Attribute::Sensitive(true),
            Attribute::Extractable(false),
            Attribute::Sign(true),
            Attribute::Decrypt(false),
            Attribute::Unwrap(false),
            Attribute::Derive(false),
        ];
        private.extend_from_slice(wish);
        session.generate_key_pair(&Mechanism::EccKeyPairGen, &public, &private)
    })
}

/// Finds both keys and judges their attributes. Once they are `known`, no others are taken for them.
pub(crate) fn find(
    session: &Session,
    names: &Names,
    known: Option<&Known>,
) -> Result<(Known, Handles), HsmError> {
    let kek_id = known.map(|known| known.kek_id.as_slice());
    let identity_id = known.map(|known| known.identity_id.as_slice());
    let secret = ObjectClass::SECRET_KEY;
    let kek = one(session, names, secret, "secret key", &names.kek, kek_id)?;
    judge(session, kek, &names.kek, Sort::Kek)?;
    let private = ObjectClass::PRIVATE_KEY;
    let identity = one(
        session,
        names,
        private,
        "private key",
        &names.identity,
        identity_id,
    )?;
    judge(session, identity, &names.identity, Sort::Identity)?;
    let public = one(
        session,
        names,
        ObjectClass::PUBLIC_KEY,
        "public key",
        &names.identity,
        identity_id,
    )?;
    let found = Known {
        kek_id: id_of(session, kek, &names.kek)?,
        identity_id: id_of(session, identity, &names.identity)?,
        spki: spki_of(session, public, &names.identity)?,
    };
    if known.is_some_and(|known| *known != found) {
        return Err(HsmError::WrongResult {
            label: names.identity.clone(),
            what: "another public key stands where this party's was when it started",
        });
    }
    Ok((found, Handles { kek, identity }))
}

fn one(
    session: &Session,
    names: &Names,
    class: ObjectClass,
    class_name: &'static str,
    label: &str,
    id: Option<&[u8]>,
) -> Result<ObjectHandle, HsmError> {
    let template = [
        Attribute::Class(class),
        Attribute::Label(label.as_bytes().to_vec()),
    ];
    let all = session
        .find_objects(&template)
        .map_err(|error| call("looking for keys", &error))?;
    // Some modules match labels loosely, and one key must be told from another.
    let mut found = Vec::new();
    for object in all {
        if id.is_none() || Some(id_of(session, object, label)?.as_slice()) == id {
            found.push(object);
        }
    }
    match found.as_slice() {
        [object] => Ok(*object),
        [] => Err(HsmError::MissingObject {
            token: names.token.clone(),
            class: class_name,
            label: label.to_owned(),
            id: id.map_or_else(String::new, |id| format!(" and CKA_ID {}", hex::encode(id))),
            remedy: if id.is_some() {
                "it was there when this program started: restore the token from its backup"
            } else {
                "if the party is new, `arca-enclave-hsm init` makes it; otherwise restore the token from its backup"
            },
        }),
        many => Err(HsmError::ManyObjects {
            token: names.token.clone(),
            class: class_name,
            label: label.to_owned(),
            count: many.len(),
        }),
    }
}

fn attribute(
    session: &Session,
    object: ObjectHandle,
    kind: AttributeType,
) -> Result<Option<Attribute>, HsmError> {
    match session.get_attributes(object, &[kind]) {
        Ok(found) => Ok(found.into_iter().next()),
        Err(cryptoki::error::Error::Pkcs11(
            cryptoki::error::RvError::AttributeTypeInvalid
            | cryptoki::error::RvError::AttributeSensitive,
            _,
        )) => Ok(None),
        Err(error) => Err(call("reading a key's attributes", &error)),
    }
}

fn id_of(session: &Session, object: ObjectHandle, label: &str) -> Result<Vec<u8>, HsmError> {
    match attribute(session, object, AttributeType::Id)? {
        Some(Attribute::Id(id)) if !id.is_empty() => Ok(id),
        _ => Err(HsmError::Attribute {
            label: label.to_owned(),
            attribute: "CKA_ID",
            is: "empty".to_owned(),
            must: "the one that init gave it",
        }),
    }
}

fn spki_of(session: &Session, public: ObjectHandle, label: &str) -> Result<Vec<u8>, HsmError> {
    let point = match attribute(session, public, AttributeType::EcPoint)? {
        Some(Attribute::EcPoint(point)) => ec::spki(&point),
        _ => None,
    };
    point.ok_or_else(|| HsmError::Attribute {
        label: label.to_owned(),
        attribute: "CKA_EC_POINT",
        is: "something else".to_owned(),
        must: "an uncompressed point of P-384",
    })
}

/// Refuses a key that the token might give away, or that came from outside.
fn judge(session: &Session, key: ObjectHandle, label: &str, sort: Sort) -> Result<(), HsmError> {
    let refused = |attribute, is: String, must| HsmError::Attribute {
        label: label.to_owned(),
        attribute,
        is,
        must,
    };
    // What a module does not tell is not given.
    let protects = [
        (AttributeType::Token, "CKA_TOKEN", true),
        (AttributeType::Private, "CKA_PRIVATE", true),
        (AttributeType::Sensitive, "CKA_SENSITIVE", true),
        (AttributeType::Extractable, "CKA_EXTRACTABLE", false),
        (AttributeType::AlwaysSensitive, "CKA_ALWAYS_SENSITIVE", true),
        (
            AttributeType::NeverExtractable,
            "CKA_NEVER_EXTRACTABLE",
            true,
        ),
        (AttributeType::Local, "CKA_LOCAL", true),
    ];
    for (kind, name, must) in protects {
        let is = attribute(session, key, kind)?.and_then(|found| boolean(&found));
        if is != Some(must) {
            return Err(refused(name, shown(is), word(must)));
        }
    }
    // Other uses than ours: modules that do not know an attribute have no such use.
    let uses: &[(AttributeType, &'static str, bool)] = match sort {
        Sort::Kek => &[
            (AttributeType::Encrypt, "CKA_ENCRYPT", true),
            (AttributeType::Decrypt, "CKA_DECRYPT", true),
            (AttributeType::Wrap, "CKA_WRAP", false),
            (AttributeType::Unwrap, "CKA_UNWRAP", false),
            (AttributeType::Derive, "CKA_DERIVE", false),
        ],
        Sort::Identity => &[
            (AttributeType::Sign, "CKA_SIGN", true),
            (AttributeType::Decrypt, "CKA_DECRYPT", false),
            (AttributeType::Unwrap, "CKA_UNWRAP", false),
            (AttributeType::Derive, "CKA_DERIVE", false),
        ],
    };
    for (kind, name, must) in uses {
        let is = attribute(session, key, *kind)?.and_then(|found| boolean(&found));
        if is.unwrap_or(false) != *must {
            return Err(refused(name, shown(is), word(*must)));
        }
    }
    let right = match sort {
        Sort::Kek => {
            attribute(session, key, AttributeType::KeyType)?
                == Some(Attribute::KeyType(KeyType::AES))
                && attribute(session, key, AttributeType::ValueLen)?
                    == Some(Attribute::ValueLen(KEK_BYTES.into()))
        }
        Sort::Identity => {
            attribute(session, key, AttributeType::KeyType)?
                == Some(Attribute::KeyType(KeyType::EC))
                && attribute(session, key, AttributeType::EcParams)?
                    == Some(Attribute::EcParams(P384.to_vec()))
        }
    };
    if !right {
        return Err(refused(
            "CKA_KEY_TYPE",
            "another".to_owned(),
            match sort {
                Sort::Kek => "AES of 256 bits",
                Sort::Identity => "EC on P-384",
            },
        ));
    }
    Ok(())
}

fn boolean(attribute: &Attribute) -> Option<bool> {
    match attribute {
        Attribute::Token(value)
        | Attribute::Private(value)
        | Attribute::Sensitive(value)
        | Attribute::Extractable(value)
        | Attribute::AlwaysSensitive(value)
        | Attribute::NeverExtractable(value)
        | Attribute::Local(value)
        | Attribute::Encrypt(value)
        | Attribute::Decrypt(value)
        | Attribute::Wrap(value)
        | Attribute::Unwrap(value)
        | Attribute::Derive(value)
        | Attribute::Sign(value) => Some(*value),
        _ => None,
    }
}

fn shown(is: Option<bool>) -> String {
    is.map_or("not told", word).to_owned()
}

fn word(value: bool) -> &'static str {
    if value { "true" } else { "false" }
}
