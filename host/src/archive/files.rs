//! Where the archive's files are: a folder, or a bucket.

mod bucket;
mod disk;

use std::fmt;

use bytes::Bytes;

use crate::config::{ArchiveConfig, ArchivePlace};
use crate::error::Error;
pub(super) use bucket::Bucket;
pub(super) use disk::Disk;

/// Files by their paths, which are those of `docs/audit-log.md` and valid already.
#[tonic::async_trait]
pub(super) trait Files: fmt::Debug + Send + Sync {
    /// Makes files that are never changed again; durable, all of them, when this returns. One that is there with the
    /// same content is fine. Which of them were made when it fails is open.
    async fn create(&self, files: Vec<(String, Bytes)>) -> Result<(), FilesError>;

    /// Makes a file or replaces it, whole; durable when this returns.
    async fn replace(&self, path: &str, content: Bytes) -> Result<(), FilesError>;

    /// None when there is no such file.
    async fn read(&self, path: &str) -> Result<Option<Vec<u8>>, FilesError>;

    /// Deletes files; those that are not there are fine.
    async fn delete(&self, paths: Vec<String>) -> Result<(), FilesError>;

    /// The files in a folder, by their names in it, in no order.
    async fn list(&self, folder: &str) -> Result<Vec<String>, FilesError>;
}

/// Why the archive does not do what it is asked. Its message says what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FilesError {
    /// It may work later.
    #[error("{what}: {problem}. {remedy}")]
    Unavailable {
        /// The file, folder or bucket.
        what: String,
        problem: String,
        remedy: &'static str,
    },
    /// A file that is never to change is there with other content.
    #[error("{what} is there already, and it is not what this party's log has there")]
    Differs { what: String },
}

impl FilesError {
    /// What metrics call it.
    pub(super) fn label(&self) -> &'static str {
        match self {
            Self::Unavailable { .. } => "unavailable",
            Self::Differs { .. } => "conflict",
        }
    }
}

/// The files of the configuration. Only what could never work is refused; a bucket may come later.
///
/// # Errors
///
/// [`Error::Archive`].
pub(super) fn open(config: &ArchiveConfig) -> Result<Box<dyn Files>, Error> {
    Ok(match &config.place {
        ArchivePlace::Folder(folder) => Box::new(Disk::open(folder)?),
        ArchivePlace::Bucket(bucket) => Box::new(Bucket::open(bucket)?),
    })
}
