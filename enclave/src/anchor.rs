//! What the anchor says, byte by byte: where the state stands, the root of its index, the edge of the audit log, and
//! what this party remembers of its peers.
//!
//! ```text
//! version[1]=1 sequence[8] head[32] has_root[1] root[32]
//! log[8] size[8] then for each bit that is set in size, highest first: hash[32]
//! count[2] then for each peer: length[1] name boot_id[16] grants[8] sequence[8] head[32] fenced[1] boot_id[16]...
//!     has_log[1] then if it is 1: log[8] size[8] root[32] length[2] note
//! ```

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
        out.extend(Self::encode_remembered(&self.remembered));
        out
    }

    /// What [`encode`](Self::encode) wrote; `None` for anything else.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut rest = bytes;
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
            remembered: Self::decode_remembered(rest)?,
        })
    }

    /// What is remembered of the peers, alone: the plaintext of the object "peers".
    pub fn encode_remembered(remembered: &BTreeMap<String, Remembered>) -> Vec<u8> {
        let count = u16::try_from(remembered.len()).unwrap_or(u16::MAX);
        let mut out = count.to_be_bytes().to_vec();
        for (name, peer) in remembered.iter().take(usize::from(count)) {
            // Names of parties are 32 bytes at most, and 16 instances are remembered.
            out.push(u8::try_from(name.len()).unwrap_or(u8::MAX));
            out.extend_from_slice(name.as_bytes());
            out.extend_from_slice(&peer.boot_id);
            out.extend_from_slice(&peer.grants.to_be_bytes());
            put_anchor(&mut out, &peer.anchor);
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
        out
    }

    /// The inverse of [`encode_remembered`](Self::encode_remembered).
    pub fn decode_remembered(bytes: &[u8]) -> Option<BTreeMap<String, Remembered>> {
        let mut rest = bytes;
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
        assert_eq!(AnchorContent::decode(&bytes), Some(content));
        for length in 0..bytes.len() {
            assert_eq!(AnchorContent::decode(&bytes[..length]), None);
        }
        assert_eq!(AnchorContent::decode(&[&bytes[..], &[0]].concat()), None);
    }
}
