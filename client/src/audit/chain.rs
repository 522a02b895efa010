//! Signatures found on a chain, each to be explained by an outcome.

use std::collections::BTreeMap;
use std::io::{self, BufRead};

use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use super::finding::{Code, Finding, Findings};
use super::report::ChainSummary;
use super::spool::{Fields, Partitions};
use crate::error::{Error, Result};

/// A line of the file.
#[derive(Deserialize)]
struct Line {
    /// Hex: 64 bytes, 65 with Ethereum's recovery byte at the end, or Bitcoin's DER with or without its sighash byte.
    signature: String,
}

/// Digests of signatures, those of the chain and those of the logs, to be joined.
pub(super) struct Chain {
    partitions: Partitions,
    given: u64,
}

const OF_LOG: u8 = 0;
const OF_CHAIN: u8 = 1;

impl Chain {
    pub fn new(records: u64) -> Self {
        Self {
            partitions: Partitions::new(records),
            given: 0,
        }
    }

    /// An outcome names it.
    pub fn log(&mut self, digest: &[u8; 32]) -> io::Result<()> {
        self.write(digest, OF_LOG, 0)
    }

    fn write(&mut self, digest: &[u8; 32], of: u8, line: u64) -> io::Result<()> {
        let mut record = digest.to_vec();
        record.push(of);
        record.extend(line.to_le_bytes());
        self.partitions.write(digest, &record)
    }

    /// Reads those of the chain: JSON, one a line.
    pub fn read(&mut self, lines: impl BufRead) -> Result<()> {
        for (number, line) in (1..).zip(lines.lines()) {
            let wrong =
                |problem: String| Error::input(format!("chain signatures, line {number}"), problem);
            let line = line.map_err(|cause| wrong(cause.to_string()))?;
            if line.trim().is_empty() {
                continue;
            }
            let Line { signature } =
                serde_json::from_str(&line).map_err(|cause| wrong(cause.to_string()))?;
            let bytes = hex::decode(signature.strip_prefix("0x").unwrap_or(&signature))
                .map_err(|cause| wrong(cause.to_string()))?;
            let signature = compact(&bytes).ok_or_else(|| {
                wrong("is no signature of 64 or 65 bytes, and no DER of one".to_owned())
            })?;
            self.given += 1;
            self.write(&Sha256::digest(signature).into(), OF_CHAIN, number)
                .map_err(|cause| wrong(cause.to_string()))?;
        }
        Ok(())
    }

    /// Which are explained.
    pub fn join(self, findings: &mut Findings) -> io::Result<ChainSummary> {
        let mut summary = ChainSummary {
            given: self.given,
            ..ChainSummary::default()
        };
        for records in self.partitions.read() {
            let records = records?;
            let mut fields = Fields(&records);
            // Whether a log knows it, and the lines that give it.
            let mut digests: BTreeMap<[u8; 32], (bool, Vec<u64>)> = BTreeMap::new();
            while let (Some(digest), Some(of), Some(line)) =
                (fields.bytes(), fields.u8(), fields.u64())
            {
                let (known, lines) = digests.entry(digest).or_default();
                if of == OF_LOG {
                    *known = true;
                } else {
                    lines.push(line);
                }
            }
            for (_, (known, lines)) in digests {
                if known && lines.is_empty() {
                    summary.unused += 1;
                } else if known {
                    summary.explained += lines.len() as u64;
                } else {
                    for line in lines {
                        findings.add(Finding::new(
                            Code::ChainUnexplained,
                            format!("line {line} of the chain's signatures: no outcome in any log names it"),
                        ));
                    }
                }
            }
        }
        Ok(summary)
    }
}

fn compact(bytes: &[u8]) -> Option<[u8; 64]> {
    use bitcoin::secp256k1::ecdsa::Signature;
    match bytes.len() {
        64 => bytes.try_into().ok(),
        65 => bytes.first_chunk().copied(),
        _ => {
            // Bitcoin writes the kind of signature hash behind.
            let without = bytes.split_last().map(|(_, rest)| rest);
            Signature::from_der(bytes)
                .or_else(|_| Signature::from_der(without.unwrap_or_default()))
                .ok()
                .map(|signature| signature.serialize_compact())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_read_in_each_of_its_forms() {
        let mut compact_form = [0x11; 64];
        compact_form[32] = 0x22;
        let mut with_recovery = compact_form.to_vec();
        with_recovery.push(27);
        let der = bitcoin::secp256k1::ecdsa::Signature::from_compact(&compact_form)
            .unwrap()
            .serialize_der()
            .to_vec();
        let with_hash_kind = [der.clone(), vec![1]].concat();
        for form in [compact_form.to_vec(), with_recovery, der, with_hash_kind] {
            assert_eq!(compact(&form), Some(compact_form));
        }
        assert_eq!(compact(&[1; 63]), None);
        assert_eq!(compact(&[]), None);
    }

    #[test]
    fn what_no_log_knows_is_a_finding_with_its_line() {
        let (known, unknown, unused) = ([1; 64], [2; 64], [3; 64]);
        let mut chain = Chain::new(3);
        chain.log(&Sha256::digest(known).into()).unwrap();
        chain.log(&Sha256::digest(unused).into()).unwrap();
        let lines = format!(
            "{{\"signature\":\"0x{}\"}}\n\n{{\"signature\":\"{}\",\"key\":\"keys/1\"}}\n",
            hex::encode(known),
            hex::encode(unknown)
        );
        chain.read(lines.as_bytes()).unwrap();
        let mut findings = Findings::default();
        let summary = chain.join(&mut findings).unwrap();
        assert_eq!(
            (summary.given, summary.explained, summary.unused),
            (2, 1, 1)
        );
        let found = findings.into_sorted();
        assert_eq!(found.len(), 1);
        assert!(found[0].message.contains("line 3"), "{}", found[0].message);
        let mut chain = Chain::new(0);
        assert!(chain.read("{\"signature\":\"00\"}".as_bytes()).is_err());
    }
}
