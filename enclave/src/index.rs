//! The index of sealed objects: which blob of each object is the newest.
//!
//! A trie over SHA-256 of the objects' names, sixteen ways at each step, whose leaves are pages of up to
//! [`PAGE`] entries. A branch holds the digests of what is under it, so the digest of the root decides the
//! newest blob of every object. The host stores the pieces in the clear; the root stands in the sealed anchor
//! (see `state.rs`). A host that changes, withholds or goes back on any piece is found out by its digest.
//!
//! Pure: whoever looks something up is told which piece is missing and fetches it.

use std::collections::{BTreeMap, HashMap};

use sha2::{Digest as _, Sha256};

use crate::tags;

/// Entries that a page holds before it becomes a branch.
pub const PAGE: usize = 32;
const FANOUT: usize = 16;
/// Pieces that are kept in memory: some 20 MB at most.
const KEPT: usize = 1 << 13;
/// A path is 64 half bytes long, and no two objects share all of them.
const DEPTH: usize = 64;

const PAGE_CODE: u8 = 0;
const BRANCH_CODE: u8 = 1;

/// SHA-256.
pub type Digest = [u8; 32];

/// Which blob of an object is the newest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version {
    /// Counts the object's blobs, from 1.
    pub sequence: u64,
    /// SHA-256 of the blob.
    pub digest: Digest,
}

/// Where an object stands: SHA-256 of its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Path(Digest);

impl Path {
    /// Of the object with this name.
    pub fn of(object: &str) -> Self {
        Self(
            Sha256::new()
                .chain_update(tags::INDEX_PATH)
                .chain_update([0])
                .chain_update(object)
                .finalize()
                .into(),
        )
    }

    /// Which way to go at this depth: 0 to 15.
    fn step(&self, depth: usize) -> u8 {
        let byte = self.0.get(depth / 2).copied().unwrap_or_default();
        if depth.is_multiple_of(2) {
            byte >> 4
        } else {
            byte & 0x0f
        }
    }

    fn place(&self, depth: usize) -> Place {
        Place((0..depth).map(|depth| self.step(depth)).collect())
    }
}

/// Where a piece stands: the steps that lead to it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place(Vec<u8>);

impl Place {
    /// Name under which the host files the piece.
    pub fn object(&self) -> String {
        let mut name = String::from("index/");
        if self.0.is_empty() {
            name.push_str("root");
        }
        for step in &self.0 {
            name.push(char::from_digit(u32::from(*step), 16).unwrap_or('?'));
        }
        name
    }

    fn below(&self, step: u8) -> Self {
        let mut steps = self.0.clone();
        steps.push(step);
        Self(steps)
    }
}

/// A piece of the index.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    /// In ascending order of paths.
    Page(Vec<(Path, Version)>),
    Branch(Box<[Option<Digest>; FANOUT]>),
}

/// Why a look-up has no answer yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// Which piece has to be fetched.
    pub place: Place,
    /// What it has to hash to.
    pub digest: Digest,
}

/// The pieces at hand. Any of them may be forgotten and fetched again.
#[derive(Default)]
pub struct Index {
    root: Option<Digest>,
    kept: HashMap<Place, (Digest, Piece)>,
}

/// An index after some objects changed, not yet in force.
pub struct Update {
    root: Option<Digest>,
    changed: BTreeMap<Place, (Digest, Piece)>,
}

impl Update {
    /// The root's digest.
    pub fn root(&self) -> Option<Digest> {
        self.root
    }

    /// What the host has to store, by object name.
    pub fn blobs(&self) -> impl Iterator<Item = (String, Vec<u8>)> + '_ {
        self.changed
            .iter()
            .map(|(place, (_, piece))| (place.object(), piece.encode()))
    }
}

impl Index {
    /// The index with this root; `None` when it is empty.
    pub fn new(root: Option<Digest>) -> Self {
        Self {
            root,
            kept: HashMap::new(),
        }
    }

    /// The newest blob of an object, or that there is none.
    ///
    /// # Errors
    /// [`Missing`] names the piece to [`insert`](Self::insert) before asking again.
    pub fn get(&self, path: &Path) -> Result<Option<Version>, Missing> {
        let mut next = self.root;
        for depth in 0..=DEPTH {
            let Some(digest) = next else { return Ok(None) };
            match self.piece(&path.place(depth), digest)? {
                Piece::Page(entries) => {
                    let found = entries.iter().find(|(other, _)| other == path);
                    return Ok(found.map(|(_, version)| *version));
                }
                Piece::Branch(children) => {
                    next = children
                        .get(usize::from(path.step(depth)))
                        .copied()
                        .flatten();
                }
            }
        }
        Ok(None)
    }

    /// Takes in a piece as the host returned it, if it is the one that was missing.
    pub fn insert(&mut self, missing: &Missing, blob: &[u8]) -> bool {
        if digest_of(blob) != missing.digest {
            return false;
        }
        let Some(piece) = Piece::decode(blob) else {
            return false;
        };
        self.keep(missing.place.clone(), missing.digest, piece);
        true
    }

    /// The index with these versions in place of what it has.
    ///
    /// # Errors
    /// [`Missing`], as in [`get`](Self::get).
    pub fn with(&self, versions: &[(Path, Version)]) -> Result<Update, Missing> {
        let mut update = Update {
            root: self.root,
            changed: BTreeMap::new(),
        };
        let changes: BTreeMap<Path, Version> = versions.iter().copied().collect();
        let changes: Vec<_> = changes.into_iter().collect();
        if !changes.is_empty() {
            update.root =
                Some(self.change(&mut update.changed, Place(vec![]), self.root, &changes)?);
        }
        Ok(update)
    }

    /// Makes an update the index.
    pub fn apply(&mut self, update: Update) {
        self.root = update.root;
        for (place, (digest, piece)) in update.changed {
            self.keep(place, digest, piece);
        }
    }

    /// Changes what is at `place` and below it; returns its new digest.
    fn change(
        &self,
        changed: &mut BTreeMap<Place, (Digest, Piece)>,
        place: Place,
        present: Option<Digest>,
        changes: &[(Path, Version)],
    ) -> Result<Digest, Missing> {
        let depth = place.0.len();
        let mut children = match present {
            Some(digest) => match self.piece(&place, digest)? {
                Piece::Branch(children) => children.clone(),
                Piece::Page(entries) => {
                    let mut entries: BTreeMap<_, _> = entries.iter().copied().collect();
                    entries.extend(changes.iter().copied());
                    let entries: Vec<_> = entries.into_iter().collect();
                    return self.settle(changed, place, entries);
                }
            },
            None => return self.settle(changed, place, changes.to_vec()),
        };
        for (step, child) in (0u8..).zip(children.iter_mut()) {
            let below: Vec<_> = under(changes, depth, step);
            if !below.is_empty() {
                *child = Some(self.change(changed, place.below(step), *child, &below)?);
            }
        }
        Ok(record(changed, place, Piece::Branch(children)))
    }

    /// Puts entries where nothing else is: a page, or a branch over pages.
    fn settle(
        &self,
        changed: &mut BTreeMap<Place, (Digest, Piece)>,
        place: Place,
        entries: Vec<(Path, Version)>,
    ) -> Result<Digest, Missing> {
        let depth = place.0.len();
        if entries.len() <= PAGE || depth >= DEPTH {
            return Ok(record(changed, place, Piece::Page(entries)));
        }
        let mut children = Box::new([None; FANOUT]);
        for (step, child) in (0u8..).zip(children.iter_mut()) {
            let below = under(&entries, depth, step);
            if !below.is_empty() {
                *child = Some(self.settle(changed, place.below(step), below)?);
            }
        }
        Ok(record(changed, place, Piece::Branch(children)))
    }

    fn piece(&self, place: &Place, digest: Digest) -> Result<&Piece, Missing> {
        match self.kept.get(place) {
            Some((kept, piece)) if *kept == digest => Ok(piece),
            _ => Err(Missing {
                place: place.clone(),
                digest,
            }),
        }
    }

    fn keep(&mut self, place: Place, digest: Digest, piece: Piece) {
        if self.kept.len() >= KEPT {
            // Rarely, and then all but the top: what is in use comes back piece by piece.
            self.kept.retain(|place, _| place.0.len() < 3);
        }
        self.kept.insert(place, (digest, piece));
    }
}

fn under(entries: &[(Path, Version)], depth: usize, step: u8) -> Vec<(Path, Version)> {
    entries
        .iter()
        .filter(|(path, _)| path.step(depth) == step)
        .copied()
        .collect()
}

fn record(changed: &mut BTreeMap<Place, (Digest, Piece)>, place: Place, piece: Piece) -> Digest {
    let digest = digest_of(&piece.encode());
    changed.insert(place, (digest, piece));
    digest
}

fn digest_of(blob: &[u8]) -> Digest {
    Sha256::new()
        .chain_update(tags::INDEX_NODE)
        .chain_update([0])
        .chain_update(blob)
        .finalize()
        .into()
}

impl Piece {
    /// A code, then the entries (path, sequence, digest) or a bit map and the digests that are there.
    fn encode(&self) -> Vec<u8> {
        match self {
            Self::Page(entries) => {
                let mut out = vec![PAGE_CODE];
                for (path, version) in entries {
                    out.extend_from_slice(&path.0);
                    out.extend_from_slice(&version.sequence.to_be_bytes());
                    out.extend_from_slice(&version.digest);
                }
                out
            }
            Self::Branch(children) => {
                let mut out = vec![BRANCH_CODE];
                let there = (0u16..)
                    .zip(children.iter())
                    .filter(|(_, child)| child.is_some())
                    .fold(0u16, |there, (step, _)| there | 1 << step);
                out.extend_from_slice(&there.to_be_bytes());
                for child in children.iter().flatten() {
                    out.extend_from_slice(child);
                }
                out
            }
        }
    }

    /// What [`encode`](Self::encode) wrote. Whoever calls it has compared the digest: these are our own bytes.
    fn decode(blob: &[u8]) -> Option<Self> {
        let (code, mut rest) = blob.split_first()?;
        match *code {
            PAGE_CODE => {
                let mut entries = Vec::new();
                while !rest.is_empty() {
                    let (path, after) = rest.split_first_chunk::<32>()?;
                    let (sequence, after) = after.split_first_chunk::<8>()?;
                    let (digest, after) = after.split_first_chunk::<32>()?;
                    rest = after;
                    entries.push((
                        Path(*path),
                        Version {
                            sequence: u64::from_be_bytes(*sequence),
                            digest: *digest,
                        },
                    ));
                }
                Some(Self::Page(entries))
            }
            BRANCH_CODE => {
                let (there, mut rest) = rest.split_first_chunk::<2>()?;
                let there = u16::from_be_bytes(*there);
                let mut children = Box::new([None; FANOUT]);
                for (step, child) in (0u16..).zip(children.iter_mut()) {
                    if there & 1 << step != 0 {
                        let (digest, after) = rest.split_first_chunk::<32>()?;
                        *child = Some(*digest);
                        rest = after;
                    }
                }
                rest.is_empty().then_some(Self::Branch(children))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A host that stores what it is given.
    #[derive(Default)]
    struct Disk(HashMap<String, Vec<u8>>);

    impl Disk {
        fn get(&self, index: &mut Index, object: &str) -> Option<Version> {
            loop {
                match index.get(&Path::of(object)) {
                    Ok(version) => return version,
                    Err(missing) => self.fetch(index, &missing),
                }
            }
        }

        fn fetch(&self, index: &mut Index, missing: &Missing) {
            assert!(index.insert(missing, &self.0[&missing.place.object()]));
        }

        fn set(&mut self, index: &mut Index, versions: &[(Path, Version)]) {
            let update = loop {
                match index.with(versions) {
                    Ok(update) => break update,
                    Err(missing) => self.fetch(index, &missing),
                }
            };
            self.0.extend(update.blobs());
            index.apply(update);
        }
    }

    fn version(sequence: u64) -> Version {
        Version {
            sequence,
            digest: [u8::try_from(sequence % 251).unwrap(); 32],
        }
    }

    fn object(number: u64) -> String {
        format!("signing/{number}")
    }

    #[test]
    fn finds_what_was_set_and_nothing_else_also_from_the_disk_alone() {
        let mut disk = Disk::default();
        let mut index = Index::new(None);
        assert_eq!(index.get(&Path::of("signing/1")), Ok(None));
        for batch in 0..60u64 {
            let versions: Vec<_> = (batch * 40..batch * 40 + 40)
                .map(|number| (Path::of(&object(number)), version(number + 1)))
                .collect();
            disk.set(&mut index, &versions);
        }
        disk.set(&mut index, &[(Path::of(&object(7)), version(9000))]);
        let mut fresh = Index::new(index.root);
        for index in [&mut index, &mut fresh] {
            for number in 0..2400 {
                let expected = if number == 7 { 9000 } else { number + 1 };
                assert_eq!(disk.get(index, &object(number)), Some(version(expected)));
            }
            assert_eq!(disk.get(index, &object(2400)), None);
        }
    }

    #[test]
    fn the_root_depends_on_the_content_alone() {
        let set: Vec<_> = (0..500)
            .map(|number| (Path::of(&object(number)), version(number)))
            .collect();
        let mut at_once = Index::new(None);
        Disk::default().set(&mut at_once, &set);
        let (mut one_by_one, mut disk) = (Index::new(None), Disk::default());
        for entry in set.iter().rev() {
            disk.set(&mut one_by_one, &[*entry]);
        }
        assert_eq!(at_once.root, one_by_one.root);
    }

    #[test]
    fn an_older_or_altered_piece_is_not_taken() {
        let mut disk = Disk::default();
        let mut index = Index::new(None);
        let path = Path::of("key/1");
        disk.set(&mut index, &[(path, version(1))]);
        let old = disk.0["index/root"].clone();
        disk.set(&mut index, &[(path, version(2))]);
        let new = disk.0["index/root"].clone();
        let mut index = Index::new(index.root);
        let missing = index.get(&path).unwrap_err();
        assert!(!index.insert(&missing, &old));
        for position in 0..new.len() {
            let mut altered = new.clone();
            altered[position] ^= 1;
            assert!(!index.insert(&missing, &altered));
            assert!(!index.insert(&missing, &new[..position]));
        }
        assert!(index.insert(&missing, &new));
        assert_eq!(index.get(&path), Ok(Some(version(2))));
    }

    #[test]
    fn pieces_that_were_forgotten_are_asked_for_again() {
        let mut disk = Disk::default();
        let mut index = Index::new(None);
        let versions: Vec<_> = (0..2000)
            .map(|number| (Path::of(&object(number)), version(number)))
            .collect();
        disk.set(&mut index, &versions);
        index.kept.clear();
        disk.set(&mut index, &[(Path::of("key/1"), version(1))]);
        assert_eq!(disk.get(&mut index, &object(1999)), Some(version(1999)));
        assert_eq!(disk.get(&mut index, "key/1"), Some(version(1)));
    }
}
