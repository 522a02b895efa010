//! Evidence appraised, with every check that was made and every field of the document: for people who want to see
//! why, and for reports.
//!
//! Nothing is decided here. The decision is that of [`verify_live`] and [`verify_archive`], which refuse at the first
//! check that fails; this module says which one that was.

mod document;
mod steps;

use std::collections::BTreeMap;

use arca_attestation::{
    ArchiveExpected, Error as Refusal, Expectation, Expected, Inspection, Measurements,
    TrustAnchors, TrustClass, UnixMillis, inspect, verify_archive, verify_live,
};
use serde::Serialize;

pub use document::{Certificate, Document};
use steps::Step;

/// What evidence is to be compared with.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// Whose evidence is believed.
    pub anchors: &'a TrustAnchors,
    /// What the enclave may run.
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

/// Reference values for PCR 0, 1 and 2.
#[derive(Clone, Copy, Debug)]
pub enum Reference<'a> {
    /// The evidence has to equal one of these. None at all refuses all evidence.
    OneOf(&'a [Measurements]),
    /// Whatever the document says, except debug mode.
    ///
    /// # Security
    /// Such evidence comes from some enclave and does not say which code runs in it: see [`Verdict::Authentic`].
    NotCompared,
}

/// How an appraisal ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Every check that was asked for passed, and the measurements equal a reference value.
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
    /// `nitro` or `simulated`: the root that the document was held against.
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
            rule: step.rule(inspection.as_ref()),
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
            (None, Reference::NotCompared) => Verdict::Authentic,
            (None, Reference::OneOf(_)) => Verdict::Verified,
        },
        trust_class: question.anchors.class(),
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
    let measurements = match question.reference {
        Reference::OneOf(measurements) => measurements,
        // The verifier knows no evidence without reference values, so it is given the document's own.
        Reference::NotCompared => {
            own = steps::claimed(inspection).map_or_else(Vec::new, |claimed| vec![claimed]);
            &own
        }
    };
    let pcrs = match question.now {
        Some(now) => {
            let expected = Expected {
                measurements,
                nonce: question.nonce.unwrap_or_default(),
                public_key: question.public_key.unwrap_or_default(),
                user_data: question.user_data.unwrap_or_default(),
            };
            verify_live(document, question.anchors, &expected, now)
                .map(|evidence| evidence.pcrs().clone())
        }
        None => {
            let expected = ArchiveExpected {
                measurements,
                nonce: expectation(question.nonce),
                public_key: expectation(question.public_key),
                user_data: expectation(question.user_data),
            };
            verify_archive(document, question.anchors, &expected)
                .map(|evidence| evidence.pcrs().clone())
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
