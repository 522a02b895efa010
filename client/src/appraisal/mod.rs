//! Evidence appraised, with every check that was made and every field of the document: for people who want to see
//! why, and for reports.
//!
//! Nothing is decided here. The decision is that of [`verify_live`] and [`verify_archive`], which refuse at the first
//! check that fails; this module says which one that was.

mod document;
mod steps;

use std::collections::BTreeMap;

use arca_attestation::{
    ArchiveExpected, ClusterKind, Error as Refusal, Expectation, Expected, Facts, Inspection,
    ReferenceValues, TrustAnchors, TrustClass, UnixMillis, inspect, verify_archive, verify_live,
};
use serde::Serialize;

pub use document::{Certificate, Document, Token};
use steps::Step;

/// What evidence is to be compared with.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// Whose evidence is believed.
    pub anchors: &'a TrustAnchors,
    /// Of which class the attester is, and what of that class is trusted.
    pub reference: Reference<'a>,
    /// Values of further PCRs, by index.
    pub further_pcrs: &'a BTreeMap<u8, [u8; 48]>,
    /// None: not compared, which live evidence does not allow; that holds for the next two as well.
    pub nonce: Option<&'a [u8]>,
    /// The attester's key.
    pub public_key: Option<&'a [u8]>,
    /// What the evidence is bound to.
    pub user_data: Option<&'a [u8]>,
    /// The verifier's clock for live evidence; None for stored evidence, which is judged at its own time.
    pub now: Option<UnixMillis>,
}

/// What the attester has to be.
#[derive(Clone, Copy, Debug)]
pub enum Reference<'a> {
    /// One of these images, or under one of these roots of HSMs. None at all refuses all evidence.
    Values(&'a ReferenceValues),
    /// An enclave of this kind of cluster that runs whatever it runs, except in debug mode.
    ///
    /// # Security
    /// Such evidence does not say which code runs: see [`Verdict::Authentic`].
    AnyEnclave(ClusterKind),
}

impl Reference<'_> {
    /// The class that is expected.
    pub fn class(&self) -> TrustClass {
        match self {
            Self::Values(values) => values.class(),
            Self::AnyEnclave(kind) => ReferenceValues::enclave(*kind, Vec::new()).class(),
        }
    }
}

/// How an appraisal ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Every check that was asked for passed, those against the reference values too.
    Verified,
    /// Every check that was asked for passed, and the measurements were compared with nothing.
    Authentic,
    /// A check failed.
    Refused,
}

/// What one check came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It holds.
    Passed,
    /// It does not hold, and the evidence is refused for it.
    Failed,
    /// There was nothing to compare with.
    NotAsked,
    /// An earlier check failed.
    NotReached,
}

/// One check of the verifier.
#[derive(Clone, Debug, Serialize)]
pub struct Check {
    /// Stable, in snake_case.
    pub check: String,
    /// What has to hold, for people.
    pub rule: String,
    /// Whether it does.
    pub outcome: Outcome,
    /// What was found, or why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// What came of a document.
#[derive(Clone, Debug, Serialize)]
pub struct Appraisal {
    /// The whole.
    pub verdict: Verdict,
    /// The class that was expected, under whose roots the document was held.
    pub trust_class: TrustClass,
    /// Every check, in the order in which they are made.
    pub checks: Vec<Check>,
    /// Why the evidence is refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// What the document claims, if it could be read; true only where the verdict is not [`Verdict::Refused`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub document: Option<Document>,
    /// There was nothing to compare PCR 0, 1 and 2 with, and all checks before that passed.
    #[serde(skip)]
    pub lacks_reference_values: bool,
}

impl Appraisal {
    /// The check that failed.
    pub fn failed(&self) -> Option<&Check> {
        self.checks
            .iter()
            .find(|check| check.outcome == Outcome::Failed)
    }
}

/// Appraises a document: a COSE_Sign1, tagged or not.
pub fn appraise(document: &[u8], question: &Question<'_>) -> Appraisal {
    let inspection = inspect(document);
    let refusal = match &inspection {
        Ok(inspection) => decide(document, question, inspection).err(),
        Err(refusal) => Some(Failure::Refusal(refusal.clone())),
    };
    let inspection = inspection.ok();
    let failed = refusal
        .as_ref()
        .map(|failure| failure.step(question, inspection.as_ref()));
    let problem = refusal.as_ref().map(Failure::to_string);
    let mut checks = Vec::new();
    let mut reached = true;
    for step in steps::all(question, inspection.as_ref()) {
        let outcome = if failed == Some(step) {
            reached = false;
            Outcome::Failed
        } else if !step.is_asked(question) {
            Outcome::NotAsked
        } else if reached {
            Outcome::Passed
        } else {
            Outcome::NotReached
        };
        let detail = match outcome {
            Outcome::Failed => {
                let values = step.comparison(question, inspection.as_ref());
                problem
                    .clone()
                    .map(|problem| [Some(problem), values].into_iter().flatten().collect())
                    .map(|parts: Vec<String>| parts.join("; "))
            }
            Outcome::NotReached => None,
            Outcome::Passed | Outcome::NotAsked => {
                step.note(question, inspection.as_ref(), document)
            }
        };
        checks.push(Check {
            check: step.name(),
            rule: step.rule(question, inspection.as_ref()),
            outcome,
            detail,
        });
    }
    if let (true, Some(problem)) = (reached, &problem) {
        // A refusal that this list does not know: nothing may look as if it had passed.
        for check in &mut checks {
            check.outcome = Outcome::NotReached;
            check.detail = None;
        }
        checks.push(Check {
            check: "other".to_owned(),
            rule: "a check that this program does not list".to_owned(),
            outcome: Outcome::Failed,
            detail: Some(problem.clone()),
        });
    }
    Appraisal {
        verdict: match (&problem, question.reference) {
            (Some(_), _) => Verdict::Refused,
            (None, Reference::AnyEnclave(_)) => Verdict::Authentic,
            (None, Reference::Values(_)) => Verdict::Verified,
        },
        trust_class: question.reference.class(),
        checks,
        lacks_reference_values: matches!(
            refusal,
            Some(Failure::Refusal(Refusal::NoReferenceValues))
        ),
        problem,
        document: inspection.map(Document::from),
    }
}

/// Why a document is refused.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{0}")]
    Refusal(Refusal),
    /// One of [`Question::further_pcrs`], which the verifier does not know of.
    #[error("PCR {0} is another than expected")]
    FurtherPcr(u8),
}

impl Failure {
    fn step(&self, question: &Question<'_>, inspection: Option<&Inspection>) -> Step {
        match self {
            Self::Refusal(refusal) => Step::of(refusal, question, inspection),
            Self::FurtherPcr(index) => Step::FurtherPcr(*index),
        }
    }
}

fn decide(
    document: &[u8],
    question: &Question<'_>,
    inspection: &Inspection,
) -> Result<(), Failure> {
    let own;
    let reference = match question.reference {
        Reference::Values(values) => values,
        // The verifier knows no evidence without reference values, so it is given the document's own.
        Reference::AnyEnclave(kind) => {
            let claimed = steps::claimed(inspection);
            own = ReferenceValues::enclave(kind, claimed.into_iter().collect());
            &own
        }
    };
    let pcrs = |facts: &Facts| facts.pcrs().cloned().unwrap_or_default();
    let pcrs = match question.now {
        Some(now) => {
            let expected = Expected {
                reference,
                nonce: question.nonce.unwrap_or_default(),
                public_key: question.public_key.unwrap_or_default(),
                user_data: question.user_data.unwrap_or_default(),
            };
            verify_live(document, question.anchors, &expected, now).map(|evidence| pcrs(&evidence))
        }
        None => {
            let expected = ArchiveExpected {
                reference,
                nonce: expectation(question.nonce),
                public_key: expectation(question.public_key),
                user_data: expectation(question.user_data),
            };
            verify_archive(document, question.anchors, &expected).map(|evidence| pcrs(&evidence))
        }
    };
    let pcrs = pcrs.map_err(Failure::Refusal)?;
    let other = question
        .further_pcrs
        .iter()
        .find(|(index, expected)| pcrs.get(index) != Some(expected));
    match other {
        Some((index, _)) => Err(Failure::FurtherPcr(*index)),
        None => Ok(()),
    }
}

fn expectation(bytes: Option<&[u8]>) -> Expectation<'_> {
    bytes.map_or(Expectation::NotCompared, Expectation::Equals)
}
