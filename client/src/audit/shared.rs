//! What is collected over all logs of an export while they are read.

use super::export::{Export, ExportedLog};
use super::files::Files;
use super::finding::{Finding, Findings};
use super::keys::Keys;
use super::manifests::Manifests;
use super::questions::Questions;
use super::record::Names;
use super::report::{TimelineBuilder, Totals};
use super::source::Source;
use super::spool::Partitions;
use super::trust::Trust;

pub(super) struct Shared<'a> {
    pub trust: &'a Trust,
    pub source: &'a dyn Source,
    pub export: &'a Export,
    pub files: &'a Files,
    pub manifests: &'a Manifests,
    pub findings: Findings,
    pub totals: Totals,
    pub timeline: TimelineBuilder,
    pub names: Names,
    pub keys: Keys,
    pub questions: Questions,
    /// What logs and openings say of sessions, by session.
    pub sessions: Partitions,
    /// Why temporary files could not be written. Nothing is concluded after that.
    pub fault: Option<std::io::Error>,
}

impl Shared<'_> {
    pub fn find(&mut self, finding: Finding) {
        self.findings.add(finding);
    }

    /// Keeps the first fault.
    pub fn note(&mut self, outcome: std::io::Result<()>) {
        if let (Err(fault), None) = (outcome, &self.fault) {
            self.fault = Some(fault);
        }
    }
}

/// One log as it was read, and what later checks ask of it.
pub(super) struct LogFacts {
    pub exported: ExportedLog,
    pub log_key: Option<[u8; 32]>,
    pub witness_key: Option<[u8; 32]>,
    /// How many boots it has.
    pub boots: u32,
    pub last_ms: u64,
    /// Whether entries after `settled` are as few as an export under way explains.
    pub is_tail_short: bool,
    /// Whether its first entries show an acceptance of the loss of the log before it.
    pub loss_accepted: bool,
}

/// How long the entries may span that came while the export was under way.
pub(super) const LONGEST_TAIL_MS: u64 = 10 * 60 * 1000;

impl LogFacts {
    /// Whether an entry was made while the export was under way, so that what it names in other logs may not be here.
    pub fn is_tail(&self, index: u64) -> bool {
        self.is_tail_short && index >= self.exported.settled
    }
}
