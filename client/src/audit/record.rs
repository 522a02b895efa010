//! What entries say of sessions, in a form that can be put aside and joined later.

use super::spool::Fields;

/// One thing that a log, or an opening, says of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub session: [u8; 32],
    /// Which log, by its place among all.
    pub log: u32,
    pub index: u64,
    pub what: What,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum What {
    Intent {
        request: [u8; 32],
        /// By its place among all keys.
        key: u32,
        epoch: u64,
        time_ms: u64,
        /// Counts the boots of the log.
        boot: u32,
        coordinator: u8,
        /// A bit for each party's place among all names.
        signers: u64,
    },
    Signed(Vec<[u8; 32]>),
    Released,
    Failed,
    Opened(Vec<[u8; 32]>),
}

impl Record {
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = self.session.to_vec();
        bytes.extend(self.log.to_le_bytes());
        bytes.extend(self.index.to_le_bytes());
        let hashes = |bytes: &mut Vec<u8>, tag: u8, hashes: &[[u8; 32]]| {
            bytes.push(tag);
            bytes.extend(
                u32::try_from(hashes.len())
                    .unwrap_or(u32::MAX)
                    .to_le_bytes(),
            );
            bytes.extend(hashes.as_flattened());
        };
        match &self.what {
            What::Intent {
                request,
                key,
                epoch,
                time_ms,
                boot,
                coordinator,
                signers,
            } => {
                bytes.push(0);
                bytes.extend(request);
                bytes.extend(key.to_le_bytes());
                bytes.extend(epoch.to_le_bytes());
                bytes.extend(time_ms.to_le_bytes());
                bytes.extend(boot.to_le_bytes());
                bytes.push(*coordinator);
                bytes.extend(signers.to_le_bytes());
            }
            What::Signed(digests) => hashes(&mut bytes, 1, digests),
            What::Released => bytes.push(2),
            What::Failed => bytes.push(3),
            What::Opened(digests) => hashes(&mut bytes, 4, digests),
        }
        bytes
    }

    /// The next of several; nothing at their end.
    pub fn next(fields: &mut Fields<'_>) -> Option<Self> {
        Some(Self {
            session: fields.bytes()?,
            log: fields.u32()?,
            index: fields.u64()?,
            what: match fields.u8()? {
                0 => What::Intent {
                    request: fields.bytes()?,
                    key: fields.u32()?,
                    epoch: fields.u64()?,
                    time_ms: fields.u64()?,
                    boot: fields.u32()?,
                    coordinator: fields.u8()?,
                    signers: fields.u64()?,
                },
                1 => What::Signed(fields.hashes()?),
                2 => What::Released,
                3 => What::Failed,
                4 => What::Opened(fields.hashes()?),
                _ => return None,
            },
        })
    }
}

/// Names, each with a small number.
#[derive(Clone, Debug, Default)]
pub(super) struct Names(Vec<String>);

/// A bit mask has no more, and no manifest has more parties at a time.
const MOST_NAMES: usize = 64;

impl Names {
    /// The name's place; nothing when there are too many.
    pub fn place(&mut self, name: &str) -> Option<u8> {
        let place = match self.0.iter().position(|known| known == name) {
            Some(place) => place,
            None if self.0.len() < MOST_NAMES => {
                self.0.push(name.to_owned());
                self.0.len() - 1
            }
            None => return None,
        };
        u8::try_from(place).ok()
    }

    /// A bit for each; nothing when one is there twice, or there are too many.
    pub fn mask(&mut self, names: &[String]) -> Option<u64> {
        names.iter().try_fold(0, |mask, name| {
            let bit = 1 << self.place(name)?;
            (mask & bit == 0).then_some(mask | bit)
        })
    }

    pub fn name(&self, place: u8) -> &str {
        self.0.get(usize::from(place)).map_or("?", String::as_str)
    }

    /// The names in a mask.
    pub fn of(&self, mask: u64) -> impl Iterator<Item = (u8, &str)> {
        (0..64)
            .filter(move |place| mask >> place & 1 == 1)
            .map(|place| (place, self.name(place)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_back_one_after_the_other() {
        let record = |what| Record {
            session: [7; 32],
            log: 3,
            index: 1 << 40,
            what,
        };
        let records = [
            What::Intent {
                request: [1; 32],
                key: 5,
                epoch: 6,
                time_ms: 7,
                boot: 8,
                coordinator: 9,
                signers: 0b101,
            },
            What::Signed(vec![[2; 32], [3; 32]]),
            What::Released,
            What::Failed,
            What::Opened(Vec::new()),
        ]
        .map(record);
        let bytes: Vec<u8> = records.iter().flat_map(Record::encode).collect();
        let mut fields = Fields(&bytes);
        let read: Vec<Record> = std::iter::from_fn(|| Record::next(&mut fields)).collect();
        assert_eq!(read, records);
    }

    #[test]
    fn a_name_keeps_its_place() {
        let mut names = Names::default();
        let three = ["ceo", "cto", "cloud"].map(str::to_owned);
        assert_eq!(names.mask(&three), Some(0b111));
        assert_eq!(names.place("cto"), Some(1));
        assert_eq!(names.mask(&["cloud".to_owned(), "cloud".to_owned()]), None);
        assert_eq!(
            names.of(0b101).map(|(_, name)| name).collect::<Vec<_>>(),
            ["ceo", "cloud"]
        );
        for index in 3..64 {
            assert!(names.place(&index.to_string()).is_some());
        }
        assert_eq!(names.place("one more"), None);
    }
}
