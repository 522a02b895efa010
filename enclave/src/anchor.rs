//! What the anchor says, byte by byte: where the state stands, the root of its index, the edge of the audit log, and
//! what this party remembers of its peers.
//!
//! ```text
//! version[1]=1 sequence[8] head[32] has_root[1] root[32]
//! log[8] size[8] then for each bit that is set in size, highest first: hash[32]
//! count[2] then for each peer: length[1] name boot_id[16] grants[8] sequence[8] head[32] fenced[1] boot_id[16]...
//!     has_log[1] then if it is 1: log[8] size[8] root[32] length[2] note
//! ```
//!
//! Before it the length[4] of all that, behind it zeros up to a multiple of [`STEP`] bytes: the log's edge and what is
//! remembered grow and shrink by some bytes all the time, and on a full disk no change may fail for those.

use std::collections::BTreeMap;

use arca_audit::{
    Tree,
    entry::{Hex, LogPoint},
};

use crate::{
    index::Digest,
    lease::{Anchor, Remembered},
    log::SeenLog,
};

const VERSION: u8 = 1;
/// What is sealed has a multiple of so many bytes.
const STEP: usize = 4096;

/// The plaintext of the object "anchor".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnchorContent {
    /// Where the state stands.
    pub anchor: Anchor,
    /// The index; `None` when there is no object.
    pub root: Option<Digest>,
    /// Number of the audit log, and its edge.
    pub log: (u64, Tree),
    /// By name of the peer.
    pub remembered: BTreeMap<String, Remembered>,
}

impl AnchorContent {
    /// The bytes to seal.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        put_anchor(&mut out, &self.anchor);
        out.push(u8::from(self.root.is_some()));
        out.extend_from_slice(&self.root.unwrap_or_default());
        let (number, tree) = &self.log;
        out.extend_from_slice(&number.to_be_bytes());
        out.extend_from_slice(&tree.size().to_be_bytes());
        for hash in tree.edge() {
            out.extend_from_slice(hash);
        }
        put_remembered(&mut out, &self.remembered);
        padded(&out)
    }

    /// What [`encode`](Self::encode) wrote; `None` for anything else.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut rest = unpadded(bytes)?;
        let [VERSION] = take(&mut rest)? else {
            return None;
        };
        let anchor = take_anchor(&mut rest)?;
        let [has_root] = take(&mut rest)?;
        let root = take::<32>(&mut rest)?;
        let number = u64::from_be_bytes(take(&mut rest)?);
        let size = u64::from_be_bytes(take(&mut rest)?);
        let edge = (0..size.count_ones())
            .map(|_| take(&mut rest))
            .collect::<Option<Vec<_>>>()?;
        Some(Self {
            anchor,
            root: (has_root != 0).then_some(root),
            log: (number, Tree::from_edge(size, edge).ok()?),
            remembered: take_remembered(rest)?,
        })
    }

    /// What is remembered of the peers, alone: the plaintext of the object "peers".
    pub fn encode_remembered(remembered: &BTreeMap<String, Remembered>) -> Vec<u8> {
        let mut out = Vec::new();
        put_remembered(&mut out, remembered);
        padded(&out)
    }

    /// The inverse of [`encode_remembered`](Self::encode_remembered).
    pub fn decode_remembered(bytes: &[u8]) -> Option<BTreeMap<String, Remembered>> {
        take_remembered(unpadded(bytes)?)
    }
}

fn put_remembered(out: &mut Vec<u8>, remembered: &BTreeMap<String, Remembered>) {
    let count = u16::try_from(remembered.len()).unwrap_or(u16::MAX);
    out.extend_from_slice(&count.to_be_bytes());
    for (name, peer) in remembered.iter().take(usize::from(count)) {
        // Names of parties are 32 bytes at most, and 16 instances are remembered.
        out.push(u8::try_from(name.len()).unwrap_or(u8::MAX));
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(&peer.boot_id);
        out.extend_from_slice(&peer.grants.to_be_bytes());
        put_anchor(out, &peer.anchor);
        out.push(u8::try_from(peer.fenced.len()).unwrap_or(u8::MAX));
        for boot_id in &peer.fenced {
            out.extend_from_slice(boot_id);
        }
        out.push(u8::from(peer.log.is_some()));
        if let Some(seen) = &peer.log {
            out.extend_from_slice(&seen.point.log.to_be_bytes());
            out.extend_from_slice(&seen.point.size.to_be_bytes());
            out.extend_from_slice(&seen.point.root.0);
            // A checkpoint with one signature has some 300 bytes.
            let length = u16::try_from(seen.note.len()).unwrap_or(u16::MAX);
            out.extend_from_slice(&length.to_be_bytes());
            out.extend_from_slice(&seen.note);
        }
    }
}

fn take_remembered(mut rest: &[u8]) -> Option<BTreeMap<String, Remembered>> {
    let count = u16::from_be_bytes(take(&mut rest)?);
    let mut remembered = BTreeMap::new();
    for _ in 0..count {
        let [length] = take(&mut rest)?;
        let (name, after) = rest.split_at_checked(usize::from(length))?;
        rest = after;
        let name = String::from_utf8(name.to_vec()).ok()?;
        let boot_id = take(&mut rest)?;
        let grants = u64::from_be_bytes(take(&mut rest)?);
        let anchor = take_anchor(&mut rest)?;
        let [fenced] = take(&mut rest)?;
        let fenced = (0..fenced)
            .map(|_| take(&mut rest))
            .collect::<Option<Vec<_>>>()?;
        let [has_log] = take(&mut rest)?;
        let log = match has_log {
            0 => None,
            _ => Some(take_seen(&mut rest)?),
        };
        let peer = Remembered {
            boot_id,
            grants,
            anchor,
            fenced,
            log,
        };
        remembered.insert(name, peer);
    }
    rest.is_empty().then_some(remembered)
}

fn padded(content: &[u8]) -> Vec<u8> {
    // Far below: 32 parties are remembered with some 700 bytes each.
    let length = u32::try_from(content.len()).unwrap_or(u32::MAX);
    let mut out = length.to_be_bytes().to_vec();
    out.extend_from_slice(content);
    out.resize(out.len().next_multiple_of(STEP), 0);
    out
}

fn unpadded(bytes: &[u8]) -> Option<&[u8]> {
    let mut rest = bytes;
    let length = usize::try_from(u32::from_be_bytes(take(&mut rest)?)).ok()?;
    let (content, zeros) = rest.split_at_checked(length)?;
    let whole = (4 + length).next_multiple_of(STEP) == bytes.len();
    (whole && zeros.iter().all(|byte| *byte == 0)).then_some(content)
}

fn put_anchor(out: &mut Vec<u8>, anchor: &Anchor) {
    out.extend_from_slice(&anchor.sequence.to_be_bytes());
    out.extend_from_slice(&anchor.head);
}

fn take_anchor(rest: &mut &[u8]) -> Option<Anchor> {
    Some(Anchor {
        sequence: u64::from_be_bytes(take(rest)?),
        head: take(rest)?,
    })
}

fn take_seen(rest: &mut &[u8]) -> Option<SeenLog> {
    let point = LogPoint {
        log: u64::from_be_bytes(take(rest)?),
        size: u64::from_be_bytes(take(rest)?),
        root: Hex(take(rest)?),
    };
    let length = u16::from_be_bytes(take(rest)?);
    let (note, after) = rest.split_at_checked(usize::from(length))?;
    *rest = after;
    let note = note.to_vec();
    Some(SeenLog { point, note })
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (bytes, after) = rest.split_first_chunk::<N>()?;
    *rest = after;
    Some(*bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decodes_what_was_encoded_and_nothing_shorter_or_longer() {
        let anchor = Anchor {
            sequence: 7,
            head: [7; 32],
        };
        let peer = |fenced, log| Remembered {
            boot_id: [1; 16],
            grants: 3,
            anchor,
            fenced,
            log,
        };
        let seen = SeenLog {
            point: LogPoint {
                log: 1,
                size: 9,
                root: Hex([9; 32]),
            },
            note: b"note".to_vec(),
        };
        let content = AnchorContent {
            anchor,
            root: Some([8; 32]),
            log: (1, [[1; 32], [2; 32], [3; 32]].into_iter().collect()),
            remembered: [
                ("cloud".to_owned(), peer(vec![], Some(seen))),
                ("cto".to_owned(), peer(vec![[2; 16], [3; 16]], None)),
            ]
            .into(),
        };
        let bytes = content.encode();
        assert_eq!(AnchorContent::decode(&bytes), Some(content.clone()));
        for length in 0..bytes.len() {
            assert_eq!(AnchorContent::decode(&bytes[..length]), None);
        }
        for more in [&[0][..], &[0; STEP]] {
            assert_eq!(AnchorContent::decode(&[&bytes[..], more].concat()), None);
        }
        let mut padding = bytes.clone();
        *padding.last_mut().unwrap() = 1;
        assert_eq!(AnchorContent::decode(&padding), None);
        let peers = AnchorContent::encode_remembered(&content.remembered);
        assert_eq!(
            AnchorContent::decode_remembered(&peers),
            Some(content.remembered.clone())
        );
        assert_eq!(AnchorContent::decode_remembered(&bytes), None);
        // A log that grows makes it no larger.
        let grown = AnchorContent {
            log: (1, (0..63).map(|leaf| [leaf; 32]).collect()),
            ..content
        };
        assert_eq!(grown.encode().len(), bytes.len());
    }
}
