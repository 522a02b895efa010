//! Cross-witnessing: what the parties saw of each other's logs, put aside until the log that it is about is read.

use std::collections::BTreeMap;
use std::io::{self, BufReader, Read as _};

use arca_audit::Hash;
use tempfile::SpooledTempFile;

use super::spool::{Fields, Spool};

/// A log, by party and number.
pub(super) type LogName = (String, u64);

/// What one log says of another.
pub(super) struct Seen {
    spool: Spool,
    last: Option<(u64, Hash)>,
    /// How often a point was named, how many different ones, and the largest.
    pub times: u64,
    pub points: u64,
    pub largest: u64,
}

/// One point of a log that another log names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Question {
    pub size: u64,
    pub root: Hash,
    /// The entry that names it first.
    pub index: u64,
}

const RECORD: usize = 8 + 32 + 8;

/// All of them, by the log that is asked about and the place of the log that asks.
#[derive(Default)]
pub(super) struct Questions(BTreeMap<LogName, BTreeMap<u32, Seen>>);

impl Questions {
    /// Puts one aside. False when it is smaller than the one before of the same log, which is refused.
    pub fn ask(&mut self, of: LogName, by: u32, question: Question) -> io::Result<bool> {
        let seen = self
            .0
            .entry(of)
            .or_default()
            .entry(by)
            .or_insert_with(|| Seen {
                spool: Spool::new(),
                last: None,
                times: 0,
                points: 0,
                largest: 0,
            });
        seen.times += 1;
        let point = (question.size, question.root);
        if seen.last == Some(point) {
            return Ok(true);
        }
        if seen.last.is_some_and(|(size, _)| question.size < size) {
            return Ok(false);
        }
        seen.last = Some(point);
        seen.points += 1;
        seen.largest = question.size;
        let mut record = question.size.to_le_bytes().to_vec();
        record.extend(question.root);
        record.extend(question.index.to_le_bytes());
        seen.spool.write(&record)?;
        Ok(true)
    }

    /// What is asked about each log.
    pub fn into_logs(self) -> impl Iterator<Item = (LogName, BTreeMap<u32, Seen>)> {
        self.0.into_iter()
    }
}

/// The questions of one log about another, in the order of their sizes.
pub(super) struct Asked {
    spool: BufReader<SpooledTempFile>,
    next: Option<Question>,
}

impl Asked {
    pub fn new(seen: Seen) -> io::Result<Self> {
        let mut asked = Self {
            spool: seen.spool.read()?,
            next: None,
        };
        asked.advance()?;
        Ok(asked)
    }

    /// The next one, if it is about this size or a smaller one.
    pub fn up_to(&mut self, size: u64) -> io::Result<Option<Question>> {
        match self.next {
            Some(question) if question.size <= size => {
                self.advance()?;
                Ok(Some(question))
            }
            _ => Ok(None),
        }
    }

    fn advance(&mut self) -> io::Result<()> {
        let mut record = [0; RECORD];
        self.next = match self.spool.read_exact(&mut record) {
            Ok(()) => parse(&record),
            Err(cause) if cause.kind() == io::ErrorKind::UnexpectedEof => None,
            Err(cause) => return Err(cause),
        };
        Ok(())
    }
}

fn parse(record: &[u8]) -> Option<Question> {
    let mut fields = Fields(record);
    Some(Question {
        size: fields.u64()?,
        root: fields.bytes()?,
        index: fields.u64()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeated_points_are_asked_once_and_none_goes_back() {
        let mut questions = Questions::default();
        let log = ("ceo".to_owned(), 1);
        let mut ask = |size: u64, index: u64| {
            let root = [u8::try_from(size).unwrap(); 32];
            questions
                .ask(log.clone(), 0, Question { size, root, index })
                .unwrap()
        };
        assert!(ask(3, 0) && ask(3, 1) && ask(5, 2));
        assert!(!ask(4, 3));
        assert!(ask(9, 4));
        let (_, mut by) = questions.into_logs().next().unwrap();
        let seen = by.remove(&0).unwrap();
        assert_eq!((seen.times, seen.points, seen.largest), (5, 3, 9));
        let mut asked = Asked::new(seen).unwrap();
        assert_eq!(asked.up_to(2).unwrap(), None);
        assert_eq!(asked.up_to(3).unwrap().unwrap().index, 0);
        assert_eq!(asked.up_to(4).unwrap(), None);
        assert_eq!(asked.up_to(9).unwrap().unwrap().size, 5);
        assert_eq!(asked.up_to(9).unwrap().unwrap().size, 9);
        assert_eq!(asked.up_to(u64::MAX).unwrap(), None);
    }
}
