//! The archive in a folder. A file is written under another name, synced, and linked to its own: it is whole or not
//! there, and takes no other's place.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use nix::fcntl::{Flock, FlockArg};
use tokio::task::spawn_blocking;

use super::{Files, FilesError};
use crate::error::Error;

/// Files on their way; what a killed host left there goes at the next start.
const UNFINISHED: &str = ".unfinished";
/// Whoever holds it archives here.
const LOCK: &str = ".lock";

/// A folder of files.
#[derive(Debug)]
pub(in crate::archive) struct Disk(Arc<Folder>);

#[derive(Debug)]
struct Folder {
    root: PathBuf,
    unfinished: AtomicU64,
    _lock: Flock<File>,
}

impl Disk {
    /// Opens a folder, making it if there is none. Blocks.
    ///
    /// # Errors
    ///
    /// [`Error::Archive`].
    pub(in crate::archive) fn open(root: &Path) -> Result<Self, Error> {
        let refuse = |problem: String, remedy| Error::Archive {
            place: root.display().to_string(),
            problem,
            remedy,
        };
        let cannot = |error: io::Error| {
            refuse(
                format!("cannot be used: {error}"),
                "Let this account make files there, or name another folder (archive.folder)",
            )
        };
        let folder = root.join(UNFINISHED);
        make_folders(&folder, &mut BTreeSet::new()).map_err(cannot)?;
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(root.join(LOCK))
            .map_err(cannot)?;
        let lock = Flock::lock(lock, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| {
            refuse(
                format!("another host archives there ({errno})"),
                "Stop it, or name another folder (archive.folder): each party has an archive of its own",
            )
        })?;
        for left in fs::read_dir(&folder).map_err(cannot)? {
            fs::remove_file(left.map_err(cannot)?.path()).map_err(cannot)?;
        }
        Ok(Self(Arc::new(Folder {
            root: root.to_owned(),
            unfinished: AtomicU64::new(0),
            _lock: lock,
        })))
    }

    /// Runs what blocks where it may.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Folder) -> Result<T, FilesError> + Send + 'static,
    ) -> Result<T, FilesError> {
        let folder = Arc::clone(&self.0);
        let done = spawn_blocking(move || work(&folder)).await;
        done.unwrap_or_else(|error| {
            Err(FilesError::Unavailable {
                what: "the archive".into(),
                problem: error.to_string(),
                remedy: "See the host's log",
            })
        })
    }
}

#[tonic::async_trait]
impl Files for Disk {
    async fn create(&self, files: Vec<(String, Bytes)>) -> Result<(), FilesError> {
        self.blocking(move |folder| {
            // One sync of each folder for all the files in it.
            let mut touched = BTreeSet::new();
            for (path, content) in files {
                let create = folder.create(&path, &content, &mut touched);
                if !create.map_err(|error| folder.failed(&path, &error))? {
                    return Err(FilesError::Differs {
                        what: folder.root.join(path).display().to_string(),
                    });
                }
            }
            sync(&touched).map_err(|error| folder.failed("", &error))
        })
        .await
    }

    async fn replace(&self, path: &str, content: Bytes) -> Result<(), FilesError> {
        let path = path.to_owned();
        self.blocking(move |folder| {
            let mut touched = BTreeSet::new();
            folder
                .replace(&path, &content, &mut touched)
                .and_then(|()| sync(&touched))
                .map_err(|error| folder.failed(&path, &error))
        })
        .await
    }

    async fn read(&self, path: &str) -> Result<Option<Vec<u8>>, FilesError> {
        let path = path.to_owned();
        self.blocking(move |folder| {
            found(fs::read(folder.root.join(&path))).map_err(|error| folder.failed(&path, &error))
        })
        .await
    }

    async fn delete(&self, paths: Vec<String>) -> Result<(), FilesError> {
        self.blocking(move |folder| {
            for path in paths {
                let file = folder.root.join(&path);
                found(fs::remove_file(&file)).map_err(|error| folder.failed(&path, &error))?;
                // The last partial tile takes its folder with it; one that is not empty stays.
                let _ = file.parent().map(fs::remove_dir);
            }
            Ok(())
        })
        .await
    }

    async fn list(&self, folder: &str) -> Result<Vec<String>, FilesError> {
        let path = folder.to_owned();
        self.blocking(move |folder| {
            let failed = |error| folder.failed(&path, &error);
            let Some(entries) = found(fs::read_dir(folder.root.join(&path))).map_err(failed)?
            else {
                return Ok(Vec::new());
            };
            let mut names = Vec::new();
            for entry in entries {
                names.extend(entry.map_err(failed)?.file_name().into_string());
            }
            Ok(names)
        })
        .await
    }
}

impl Folder {
    /// False when it is there with other content.
    fn create(
        &self,
        path: &str,
        content: &[u8],
        touched: &mut BTreeSet<PathBuf>,
    ) -> io::Result<bool> {
        let path = self.root.join(path);
        if let Some(there) = found(fs::read(&path))? {
            // Perhaps from before a crash that came before its folder was synced.
            touched.extend(path.parent().map(Path::to_owned));
            return Ok(there == content);
        }
        let unfinished = self.write(content)?;
        let linked =
            make_folders_of(&path, touched).and_then(|()| fs::hard_link(&unfinished, &path));
        fs::remove_file(&unfinished)?;
        match linked {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                Ok(fs::read(&path)? == content)
            }
            linked => linked.map(|()| true),
        }
    }

    fn replace(
        &self,
        path: &str,
        content: &[u8],
        touched: &mut BTreeSet<PathBuf>,
    ) -> io::Result<()> {
        let path = self.root.join(path);
        let unfinished = self.write(content)?;
        let renamed = make_folders_of(&path, touched).and_then(|()| fs::rename(&unfinished, &path));
        if renamed.is_err() {
            fs::remove_file(&unfinished)?;
        }
        renamed
    }

    /// A synced file with this content, under a name that is nobody else's.
    fn write(&self, content: &[u8]) -> io::Result<PathBuf> {
        let number = self.unfinished.fetch_add(1, Ordering::Relaxed);
        let path = self.root.join(UNFINISHED).join(number.to_string());
        let write = || {
            let mut file = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o644)
                .open(&path)?;
            file.write_all(content)?;
            file.sync_all()
        };
        write().inspect_err(|_| {
            // A full disk is no fuller for it.
            let _ = fs::remove_file(&path);
        })?;
        Ok(path)
    }

    fn failed(&self, path: &str, error: &io::Error) -> FilesError {
        use ErrorKind::{PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull};
        FilesError::Unavailable {
            what: self.root.join(path).display().to_string(),
            problem: error.to_string(),
            remedy: match error.kind() {
                StorageFull | QuotaExceeded => {
                    "Free space on its disk; until then entries stay in the storage file"
                }
                PermissionDenied | ReadOnlyFilesystem => "Let this account make files there",
                _ => "Look at the kernel's log; the disk may be failing",
            },
        }
    }
}

fn make_folders_of(path: &Path, touched: &mut BTreeSet<PathBuf>) -> io::Result<()> {
    match path.parent() {
        Some(folder) => make_folders(folder, touched),
        None => Ok(()),
    }
}

/// Makes a folder with those above it. Those in which something is new are touched, and so is the folder.
fn make_folders(folder: &Path, touched: &mut BTreeSet<PathBuf>) -> io::Result<()> {
    if !touched.contains(folder) && !folder.is_dir() {
        if let Some(above) = folder.parent() {
            make_folders(above, touched)?;
        }
        match DirBuilder::new().mode(0o755).create(folder) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
            Ok(()) | Err(_) => {}
        }
    }
    touched.insert(folder.to_owned());
    Ok(())
}

fn sync(folders: &BTreeSet<PathBuf>) -> io::Result<()> {
    folders
        .iter()
        .filter(|folder| **folder != Path::new(""))
        .try_for_each(|folder| File::open(folder)?.sync_all())
}

fn found<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}
