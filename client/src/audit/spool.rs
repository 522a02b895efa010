//! Records that do not fit in memory: small binary ones, in temporary files once there are many.

use std::io::{self, BufReader, BufWriter, Read, Seek as _, Write as _};

use tempfile::SpooledTempFile;

/// Kept in memory up to here.
const IN_MEMORY: usize = 256 * 1024;

/// Appended to, then read once from the beginning.
pub(super) struct Spool(BufWriter<SpooledTempFile>);

impl Spool {
    pub fn new() -> Self {
        Self(BufWriter::with_capacity(
            8 * 1024,
            SpooledTempFile::new(IN_MEMORY),
        ))
    }

    pub fn write(&mut self, record: &[u8]) -> io::Result<()> {
        self.0.write_all(record)
    }

    pub fn read(self) -> io::Result<BufReader<SpooledTempFile>> {
        let mut file = self
            .0
            .into_inner()
            .map_err(io::IntoInnerError::into_error)?;
        file.rewind()?;
        Ok(BufReader::with_capacity(64 * 1024, file))
    }
}

/// Spools by the first bytes of a hash, so that what belongs together is in one of them, and each fits in memory.
pub(super) struct Partitions(Vec<Spool>);

impl Partitions {
    /// As many as it takes for `records` of some hundred bytes.
    pub fn new(records: u64) -> Self {
        const RECORDS_OF_ONE: u64 = 50_000;
        let count = usize::try_from(records / RECORDS_OF_ONE).unwrap_or(usize::MAX);
        Self((0..count.clamp(1, 256)).map(|_| Spool::new()).collect())
    }

    /// Adds a record that belongs to `hash`.
    pub fn write(&mut self, hash: &[u8; 32], record: &[u8]) -> io::Result<()> {
        let [high, low, ..] = *hash;
        let place = usize::from(u16::from_be_bytes([high, low])) % self.0.len();
        match self.0.get_mut(place) {
            Some(spool) => spool.write(record),
            None => Ok(()),
        }
    }

    /// Each partition, whole.
    pub fn read(self) -> impl Iterator<Item = io::Result<Vec<u8>>> {
        self.0.into_iter().map(|spool| {
            let mut records = Vec::new();
            spool.read()?.read_to_end(&mut records)?;
            Ok(records)
        })
    }
}

/// Reads the fixed parts of a record.
pub(super) struct Fields<'a>(pub &'a [u8]);

impl<'a> Fields<'a> {
    pub fn bytes<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (bytes, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*bytes)
    }

    pub fn u8(&mut self) -> Option<u8> {
        self.bytes::<1>().map(|[byte]| byte)
    }

    pub fn u32(&mut self) -> Option<u32> {
        self.bytes().map(u32::from_le_bytes)
    }

    pub fn u64(&mut self) -> Option<u64> {
        self.bytes().map(u64::from_le_bytes)
    }

    pub fn hashes(&mut self) -> Option<Vec<[u8; 32]>> {
        let count = self.u32()?;
        (0..count).map(|_| self.bytes()).collect()
    }
}
