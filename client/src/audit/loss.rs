//! Logs that begin anew: the administrators accepted a loss, and what came before is named.

use super::export::ExportedLog;
use super::finding::{Code, Finding};
use super::questions::Question;
use super::shared::Shared;

/// Where an entry stands that says that a loss was accepted.
pub(super) struct At<'a> {
    pub party: &'a str,
    pub log: u64,
    pub manifest: &'a [u8; 48],
}

/// The first start of a log names the one before it, of every log but the first.
pub(super) fn follows(
    shared: &mut Shared<'_>,
    place: u32,
    exported: &ExportedLog,
    index: u64,
    started: &arca_audit::entry::InstanceStarted,
) {
    let finding = |code, message: &str| {
        Finding::new(code, message)
            .of(&exported.party, exported.log)
            .at(index)
    };
    match &started.follows {
        None if exported.log > 1 && index == 0 => {
            shared.find(finding(
                Code::LossUnexplained,
                "it does not name the log that it follows",
            ));
        }
        None => {}
        Some(before) if before.log >= exported.log || index != 0 => {
            shared.find(finding(
                Code::LossUnexplained,
                "it follows a log that is not before it, or says so later than in its first entry",
            ));
        }
        Some(before) => {
            let question = Question {
                size: before.size,
                root: before.root.0,
                index,
            };
            let of = (exported.party.clone(), before.log);
            let outcome = shared.questions.ask(of, place, question).map(|_| ());
            shared.note(outcome);
        }
    }
}

/// A quorum of the administrators in force has accepted exactly this loss.
pub(super) fn accepted(
    shared: &Shared<'_>,
    at: &At<'_>,
    acceptance: &[u8; 48],
    (found, resumed): (u64, u64),
) -> Result<(), String> {
    let manifest = shared
        .manifests
        .get(at.manifest)
        .ok_or("its manifest is not here, or nobody vouches for it")?;
    let copies = shared
        .files
        .acceptances
        .get(acceptance)
        .ok_or("the acceptance that it names is not here")?;
    let accepted = copies
        .iter()
        .find_map(|copy| copy.verify(manifest).ok())
        .ok_or("the administrators of its manifest have not signed the acceptance that it names")?;
    let draft = accepted.draft();
    if draft.party != at.party {
        return Err("the acceptance is for another party".to_owned());
    }
    if draft.found_sequence != found || accepted.resumed_sequence() != resumed {
        return Err("the acceptance is for another state".to_owned());
    }
    if at.log != resumed {
        // A log is numbered with the state that it goes on from.
        return Err("the acceptance is for another log".to_owned());
    }
    Ok(())
}
