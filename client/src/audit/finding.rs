//! What an audit found, and what to do about it.

use serde::Serialize;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth knowing; nothing is wrong.
    Note,
    /// Cannot be shown from these files, or needs a person to look.
    Warning,
    /// Something that must be true is not.
    Error,
}

impl Severity {
    /// As it is written everywhere.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// Stable, in kebab-case.
    pub code: &'static str,
    /// Whose log it is in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub party: Option<String>,
    /// Which of that party's logs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log: Option<u64>,
    /// Which entry of that log.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub index: Option<u64>,
    /// What was found.
    pub message: String,
    /// What to do.
    pub remedy: &'static str,
}

impl Finding {
    /// A finding about the export as a whole.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            severity: code.severity(),
            code: code.as_str(),
            party: None,
            log: None,
            index: None,
            message: message.into(),
            remedy: code.remedy(),
        }
    }

    /// Which party's log it is in, and which one of its logs.
    #[must_use]
    pub fn of(mut self, party: &str, log: u64) -> Self {
        self.party = Some(party.to_owned());
        self.log = Some(log);
        self
    }

    /// Which entry it is about.
    #[must_use]
    pub fn at(mut self, index: u64) -> Self {
        self.index = Some(index);
        self
    }

    /// Less bad than usual, for a reason that the message names.
    #[must_use]
    pub fn as_severe_as(mut self, severity: Severity) -> Self {
        self.severity = severity;
        self
    }
}

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident, $code:literal, $severity:ident, $remedy:literal;)*) => {
        /// Every kind of finding, with how bad it is and what to do about it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Code { $($(#[$doc])* $name,)* }

        impl Code {
            /// All of them.
            pub const ALL: &'static [Code] = &[$(Code::$name,)*];

            /// Stable, in kebab-case.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $code,)* }
            }

            /// How bad it is, unless the finding says otherwise.
            pub fn severity(self) -> Severity {
                match self { $(Self::$name => Severity::$severity,)* }
            }

            /// What to do.
            pub fn remedy(self) -> &'static str {
                match self { $(Self::$name => $remedy,)* }
            }
        }
    };
}

codes! {
    /// A file of the export is missing.
    FileMissing, "file-missing", Error,
        "export again; if it is missing there too, the party's host withholds it";
    /// A file of the export cannot be read as what it is.
    FileMalformed, "file-malformed", Error,
        "export again, and compare both files: they must be equal";
    /// A hash tile or entry bundle does not lead to the root of the checkpoint.
    TileMismatch, "tile-mismatch", Error,
        "these files are not the log that was signed: export again from another place, and keep both";
    /// The checkpoint's signature is not the log key's.
    CheckpointUnsigned, "checkpoint-unsigned", Error,
        "do not rely on this log: ask the party's operator for the checkpoint that its enclave gives";
    /// No other party has cosigned the checkpoint.
    Unwitnessed, "checkpoint-unwitnessed", Warning,
        "export again once the parties are connected: they cosign within a second";
    /// An external witness that was asked for has not cosigned it.
    WitnessMissing, "witness-missing", Error,
        "see that the party submits to this witness, and export again";
    /// An entry is not in its one canonical form.
    EntryMalformed, "entry-malformed", Error,
        "the enclave did not write this: find out which code ran there";
    /// Time runs back by more than clocks differ.
    TimeBack, "time-back", Warning,
        "look at the party's clock: what it said of expiry in this span is doubtful";
    /// An entry's boot, manifest and evidence were not introduced by an `instance-started`.
    NotIntroduced, "not-introduced", Error,
        "nothing shows which code wrote this entry: find out what ran there";
    /// An instance wrote after a later one had started.
    TwoInstances, "two-instances", Error,
        "two enclaves of this party ran at once: keep the one that its peers deal with";
    /// The evidence of an instance does not verify.
    Evidence, "evidence-refused", Error,
        "nothing shows which code wrote what follows: find out what ran there";
    /// An instance's evidence is not from when it says that it started.
    EvidenceTime, "evidence-time", Warning,
        "compare the clocks of the party and of its platform";
    /// The measurement of a peer is none of those in the manifest.
    Measurement, "measurement-unknown", Error,
        "this party talked to code that the manifest does not allow: find out what ran at the peer";
    /// The log or witness key changed within one log.
    KeyChanged, "log-key-changed", Error,
        "the party's identity state was replaced: find out by whom";
    /// A manifest is not signed by those who may.
    ManifestRefused, "manifest-refused", Error,
        "do not rely on anything under this manifest; pin the administrators who signed the first one";
    /// An entry was made outside of the manifest's validity.
    ManifestTime, "manifest-not-valid", Warning,
        "compare the party's clock with the manifest's validity; renew manifests earlier";
    /// The epoch went back.
    ManifestBack, "manifest-back", Error,
        "a party went back to an older manifest: find out how";
    /// A session has an intent and no outcome, in a boot that went on.
    NoOutcome, "intent-without-outcome", Error,
        "the enclave did not write what became of this: find out which code ran there";
    /// A session has an intent and no outcome because the instance ended.
    NoOutcomeRestart, "intent-ended-by-restart", Note,
        "nothing: the instance ended before it could write the outcome";
    /// A session has an intent and no outcome because the log ends soon after.
    NoOutcomeYet, "intent-pending", Note,
        "the outcome is in the next export";
    /// A session has an outcome and no intent.
    NoIntent, "outcome-without-intent", Error,
        "a share left without being announced: find out which code ran there";
    /// A session has two intents at one party.
    TwoIntents, "intent-twice", Error,
        "one session must release one share: find out which code ran there";
    /// Parties were shown different requests or signers in one session.
    SessionDiffers, "session-differs", Error,
        "the coordinator showed different things to different parties: take it out of service";
    /// A signer has no intent for a session that was signed.
    SignerSilent, "signer-without-intent", Error,
        "the signer's log does not know of its own signature: find out what ran there, and whether entries were withheld";
    /// The outcome of a session names another number of things than were to be signed.
    OutcomeDiffers, "outcome-differs", Error,
        "compare the signatures of the request with those on the chain";
    /// A signature has no opening.
    NoOpening, "signature-not-opened", Warning,
        "export as an auditor of this cluster, with openings; without one nobody can say what was signed";
    /// An opening does not fit its entry, or what it holds does not verify.
    Opening, "opening-refused", Error,
        "what is said to have been signed is not what the log commits to: keep the file, and ask the coordinator's operator";
    /// A signature was made with a key that no log knows.
    UnknownKey, "key-unknown", Error,
        "export the whole logs: the key was made before the range begins";
    /// Parties disagree about a key.
    KeyDiffers, "key-differs", Error,
        "do not use this key: its parties do not hold shares of the same one";
    /// A party saw another history of a log.
    Fork, "log-forked", Error,
        "this log had two histories: keep both checkpoints, take the party out of service, and find out what ran there";
    /// A party saw more of a log than is here.
    Truncated, "log-truncated", Error,
        "entries are missing at the end: export again; if they are missing there too, the party's host withholds them";
    /// Entries were lost, and the administrators accepted that.
    Lost, "entries-lost", Warning,
        "see the acceptance for the reason; compare it with what the peers did in that time";
    /// A log that begins anew has no acceptance that verifies.
    LossUnexplained, "loss-unexplained", Error,
        "the administrators have accepted no such loss: find out who began this log";
    /// What a party saw of a log went back.
    SeenBack, "seen-back", Error,
        "the party that saw it forgot: its sealed state may have been rolled back";
    /// A party recorded that a peer's log contradicts what it cosigned.
    Conflict, "log-conflict", Error,
        "both signed checkpoints are in the entry: take the peer out of service, and find out what ran there";
    /// A signature on the chain is explained by no log.
    ChainUnexplained, "chain-signature-unexplained", Error,
        "somebody signs with this key outside of what the logs know: move what it guards";
    /// Two openings for one session.
    OpeningTwice, "opening-twice", Warning,
        "compare them: the coordinator opens a session once";
    /// Something in the export is none of it.
    Unexpected, "file-unexpected", Warning,
        "remove it: nothing in it was looked at";
    /// The export is of a range, and this part could not be checked.
    OutOfRange, "out-of-range", Note,
        "export the whole logs to have it checked";
}

/// Findings, bounded: the worst and first ones in full, the others counted.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    kept: Vec<Finding>,
    counts: std::collections::BTreeMap<(Severity, &'static str), u64>,
}

/// Findings of one code that are kept in full.
const KEPT_OF_A_CODE: u64 = 100;

impl Findings {
    /// Adds one.
    pub fn add(&mut self, finding: Finding) {
        let count = self
            .counts
            .entry((finding.severity, finding.code))
            .or_default();
        *count = count.saturating_add(1);
        if *count <= KEPT_OF_A_CODE {
            self.kept.push(finding);
        }
    }

    /// How many there are of a severity, those included that were not kept.
    pub fn count(&self, severity: Severity) -> u64 {
        self.counts
            .iter()
            .filter(|((of, _), _)| *of == severity)
            .map(|(_, count)| *count)
            .sum()
    }

    /// How many there are of each code.
    pub fn counts(&self) -> impl Iterator<Item = (Severity, &'static str, u64)> + '_ {
        self.counts
            .iter()
            .rev()
            .map(|((severity, code), count)| (*severity, *code, *count))
    }

    /// The worst first, then by party, log and index.
    pub fn into_sorted(self) -> Vec<Finding> {
        let mut kept = self.kept;
        kept.sort_by(|a, b| {
            (b.severity, &a.party, a.log, a.index, a.code)
                .cmp(&(a.severity, &b.party, b.log, b.index, b.code))
        });
        kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_stable_and_different() {
        let mut codes: Vec<&str> = Code::ALL.iter().map(|code| code.as_str()).collect();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), Code::ALL.len());
        assert!(Code::ALL.iter().all(|code| !code.remedy().is_empty()));
    }

    #[test]
    fn the_worst_comes_first_and_all_are_counted() {
        let mut findings = Findings::default();
        for index in 0..500 {
            findings.add(
                Finding::new(Code::NoOutcomeRestart, "x")
                    .of("ceo", 1)
                    .at(index),
            );
        }
        findings.add(Finding::new(Code::TimeBack, "x").of("cto", 1));
        findings.add(Finding::new(Code::Fork, "x").of("cto", 1));
        assert_eq!(findings.count(Severity::Note), 500);
        assert_eq!(findings.count(Severity::Error), 1);
        let sorted = findings.into_sorted();
        assert_eq!(sorted.len(), 102);
        assert_eq!(sorted[0].code, "log-forked");
        assert_eq!(sorted[1].code, "time-back");
        assert_eq!(sorted[2].index, Some(0));
    }
}
