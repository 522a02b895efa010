//! Checkpoints of which the host knows: published, and cosigned by external witnesses.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use arca_audit::Hash;
use arca_audit::checkpoint::Checkpoint;
use arca_audit::note::{NoteSignature, SignedNote};
use tokio::sync::watch;

/// A checkpoint with the signatures under it. The host judges none of the log's and its peers'.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Note {
    checkpoint: Checkpoint,
    signed: SignedNote,
}

impl Note {
    pub(super) fn parse(note: &[u8]) -> Option<Self> {
        let signed = SignedNote::parse(note).ok()?;
        let checkpoint = signed.text().parse().ok()?;
        Some(Self { checkpoint, signed })
    }

    pub(super) fn size(&self) -> u64 {
        self.checkpoint.size
    }

    pub(super) fn root(&self) -> &Hash {
        &self.checkpoint.root
    }

    pub(super) fn origin(&self) -> &str {
        self.checkpoint.origin.as_str()
    }

    pub(super) fn text(&self) -> &str {
        self.signed.text()
    }

    pub(super) fn signatures(&self) -> &[NoteSignature] {
        self.signed.signatures()
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        self.signed.to_bytes()
    }

    /// With a signature more; one of the same key gives way, and one for which there is no room is left out.
    pub(super) fn with(mut self, signature: NoteSignature) -> Self {
        // An error leaves it as it was.
        let _ = self.signed.add(signature);
        self
    }

    /// With those signatures of another note of the same checkpoint that it lacks; unchanged by one of another.
    pub(super) fn with_signatures_of(mut self, other: &Self) -> Self {
        if self.text() != other.text() {
            return self;
        }
        for signature in other.signatures() {
            let same =
                |own: &NoteSignature| own.name() == signature.name() && own.id() == signature.id();
            if !self.signatures().iter().any(same) {
                self = self.with(signature.clone());
            }
        }
        self
    }
}

/// The newest of each log.
#[derive(Debug, Default)]
pub(super) struct Notes {
    published: watch::Sender<BTreeMap<u64, Note>>,
    cosigned: Mutex<BTreeMap<u64, Cosigned>>,
}

#[derive(Debug)]
struct Cosigned {
    note: Note,
    /// Whether the archive has it.
    kept: bool,
}

impl Notes {
    pub(super) fn published(&self, number: u64) -> Option<Note> {
        self.published.borrow().get(&number).cloned()
    }

    pub(super) fn publications(&self) -> watch::Receiver<BTreeMap<u64, Note>> {
        self.published.subscribe()
    }

    pub(super) fn publish(&self, number: u64, note: Note) {
        self.published.send_modify(|published| {
            published.insert(number, note);
        });
    }

    pub(super) fn cosigned(&self, number: u64) -> Option<Note> {
        let cosigned = self.all_cosigned();
        cosigned.get(&number).map(|cosigned| cosigned.note.clone())
    }

    /// A checkpoint that the archive says was cosigned.
    pub(super) fn remember_cosigned(&self, number: u64, note: Note) {
        let mut cosigned = self.all_cosigned();
        cosigned
            .entry(number)
            .or_insert(Cosigned { note, kept: true });
    }

    /// A cosigned checkpoint: joins what others said of the same, replaces what was said of an older one.
    pub(super) fn cosign(&self, number: u64, note: Note) {
        let mut cosigned = self.all_cosigned();
        let note = match cosigned.remove(&number) {
            Some(known) if known.note.size() > note.size() => {
                cosigned.insert(number, known);
                return;
            }
            Some(known) => note.with_signatures_of(&known.note),
            None => note,
        };
        cosigned.insert(number, Cosigned { note, kept: false });
    }

    /// What was cosigned and is not in the archive yet.
    pub(super) fn to_keep(&self, number: u64) -> Option<Note> {
        let cosigned = self.all_cosigned();
        let cosigned = cosigned.get(&number).filter(|cosigned| !cosigned.kept);
        cosigned.map(|cosigned| cosigned.note.clone())
    }

    pub(super) fn kept(&self, number: u64, note: &Note) {
        if let Some(cosigned) = self.all_cosigned().get_mut(&number) {
            cosigned.kept |= cosigned.note == *note;
        }
    }

    fn all_cosigned(&self) -> MutexGuard<'_, BTreeMap<u64, Cosigned>> {
        self.cosigned.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
