//! The payload of an NSM's attestation document as its bytes say it, step 3 of the verifier.
//!
//! Source: "Verifying the root of trust" and the CDDL in `docs/attestation_process.md` of the NSM API
//! repository. Nothing here is verified yet.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use crate::cbor::Reader;
use crate::cose::{Broken, MAX_DOCUMENT};
use crate::error::{CborFault, Error};

/// Bounds of the format's CDDL. Evidence of an HSM has the same.
pub(crate) const MAX_CERTIFICATE: usize = 1024;
pub(crate) const MAX_PUBLIC_KEY: usize = 1024;
pub(crate) const MAX_USER_DATA: usize = 512;
pub(crate) const MAX_NONCE: usize = 512;
const MAX_PCR_INDEX: u64 = 31;
/// The CDDL sets none. Real bundles have four; each one costs a signature verification.
const MAX_BUNDLE: usize = 16;

/// The payload's fields, within their bounds.
pub(crate) struct Fields<'a> {
    pub(crate) module_id: &'a str,
    /// Milliseconds since 1970, not zero.
    pub(crate) timestamp: u64,
    pub(crate) pcrs: BTreeMap<u8, [u8; 48]>,
    /// The leaf, DER.
    pub(crate) certificate: &'a [u8],
    /// DER, root first, not empty.
    pub(crate) cabundle: Vec<&'a [u8]>,
    pub(crate) public_key: Option<&'a [u8]>,
    pub(crate) user_data: Option<&'a [u8]>,
    pub(crate) nonce: Option<&'a [u8]>,
}

impl<'a> Fields<'a> {
    pub(crate) fn parse(payload: &'a [u8]) -> Result<Self, Error> {
        let mut reader = Reader::new(payload);
        Self::read(&mut reader).map_err(|error| match error {
            Broken::Refused(error) => error,
            Broken::Cbor(fault) => Error::Cbor {
                part: "payload",
                offset: reader.offset(),
                fault,
            },
        })
    }

    /// A key that the format does not have (yet) is read over, strictly: it is signed like the rest, and nothing
    /// that this verifier decides depends on it.
    fn read(reader: &mut Reader<'a>) -> Result<Self, Broken> {
        let mut module_id = None;
        let mut digest = None;
        let mut timestamp = None;
        let mut pcrs = None;
        let mut certificate = None;
        let mut cabundle = None;
        let mut public_key = None;
        let mut user_data = None;
        let mut nonce = None;

        let mut seen = BTreeSet::new();
        let mut left = reader.map()?;
        while reader.more(&mut left)? {
            let key = reader.text()?;
            if !seen.insert(key) {
                return Err(CborFault::DuplicateKey.into());
            }
            match key {
                "module_id" => module_id = Some(reader.text()?),
                "digest" => digest = Some(reader.text()?),
                "timestamp" => timestamp = Some(reader.unsigned()?),
                "pcrs" => pcrs = Some(read_pcrs(reader)?),
                "certificate" => certificate = Some(reader.bytes()?),
                "cabundle" => cabundle = Some(read_bundle(reader)?),
                "public_key" => public_key = reader.bytes_or_null()?,
                "user_data" => user_data = reader.bytes_or_null()?,
                "nonce" => nonce = reader.bytes_or_null()?,
                _ => reader.skip()?,
            }
        }
        reader.end()?;

        let missing = |field| Error::MissingField { field };
        let fields = Self {
            module_id: module_id.ok_or_else(|| missing("module_id"))?,
            timestamp: timestamp.ok_or_else(|| missing("timestamp"))?,
            pcrs: pcrs.ok_or_else(|| missing("pcrs"))?,
            certificate: certificate.ok_or_else(|| missing("certificate"))?,
            cabundle: cabundle.ok_or_else(|| missing("cabundle"))?,
            public_key,
            user_data,
            nonce,
        };
        if digest.ok_or_else(|| missing("digest"))? != "SHA384" {
            return Err(Error::DigestAlgorithm.into());
        }
        fields.check_bounds()?;
        Ok(fields)
    }

    fn check_bounds(&self) -> Result<(), Error> {
        let length = |field: Option<&[u8]>| field.map_or(0, <[u8]>::len);
        within("module_id", self.module_id.len(), 1..=MAX_DOCUMENT)?;
        within("pcrs", self.pcrs.len(), 1..=32)?;
        within("certificate", self.certificate.len(), 1..=MAX_CERTIFICATE)?;
        within("cabundle", self.cabundle.len(), 1..=MAX_BUNDLE)?;
        for certificate in &self.cabundle {
            within("cabundle", certificate.len(), 1..=MAX_CERTIFICATE)?;
        }
        within("public_key", length(self.public_key), 0..=MAX_PUBLIC_KEY)?;
        within("user_data", length(self.user_data), 0..=MAX_USER_DATA)?;
        within("nonce", length(self.nonce), 0..=MAX_NONCE)?;
        if self.timestamp == 0 {
            Err(Error::Timestamp)
        } else {
            Ok(())
        }
    }
}

pub(crate) fn within(
    field: &'static str,
    size: usize,
    bounds: RangeInclusive<usize>,
) -> Result<(), Error> {
    if bounds.contains(&size) {
        Ok(())
    } else {
        Err(Error::FieldBounds { field, size })
    }
}

fn read_pcrs(reader: &mut Reader<'_>) -> Result<BTreeMap<u8, [u8; 48]>, Broken> {
    let mut pcrs = BTreeMap::new();
    let mut left = reader.map()?;
    while reader.more(&mut left)? {
        let index = match reader.unsigned()? {
            index @ 0..=MAX_PCR_INDEX => u8::try_from(index).map_err(|_| Error::PcrIndex)?,
            _ => return Err(Error::PcrIndex.into()),
        };
        let value = reader.bytes()?;
        let value = value.try_into().map_err(|_| Error::PcrLength {
            index,
            size: value.len(),
        })?;
        if pcrs.insert(index, value).is_some() {
            return Err(CborFault::DuplicateKey.into());
        }
    }
    Ok(pcrs)
}

fn read_bundle<'a>(reader: &mut Reader<'a>) -> Result<Vec<&'a [u8]>, Broken> {
    let mut bundle = Vec::new();
    let mut left = reader.array()?;
    while reader.more(&mut left)? {
        bundle.push(reader.bytes()?);
    }
    Ok(bundle)
}
