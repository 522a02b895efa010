//! A log as an enclave writes it, and the files of an archive as an auditor reads them.

use std::collections::BTreeMap;
use std::path::Path;

use arca_audit::checkpoint::Checkpoint;
use arca_audit::note::{KeyKind, SignedNote, VerifierKey};
use arca_audit::tile::encode_entries;
use arca_audit::writer::{BundleWriter, TileWriter};
use arca_audit::{Tree, leaf_hash};
use arca_proto::v1::storage_service_client::StorageServiceClient;
use arca_proto::v1::{GetLogFileRequest, PutBlobsRequest, put_blobs_request::Blob};
use ed25519_dalek::SigningKey;
use sha2::{Digest as _, Sha256};
use tonic::Status;
use tonic::transport::Channel;

use super::soon;

/// A log, and all that there is to know of it.
#[derive(Clone)]
pub struct TestLog {
    pub number: u64,
    pub entries: Vec<Vec<u8>>,
    pub tree: Tree,
    key: SigningKey,
}

impl TestLog {
    pub fn new(number: u64) -> Self {
        Self {
            number,
            entries: Vec::new(),
            tree: Tree::new(),
            key: SigningKey::from_bytes(&[7; 32]),
        }
    }

    pub fn origin(&self) -> String {
        format!("arca/simulated/sim-test/ceo/{}", self.number)
    }

    pub fn key(&self) -> VerifierKey {
        let name = self.origin().parse().unwrap();
        VerifierKey::of_signing_key(name, KeyKind::Ed25519, &self.key)
    }

    pub fn size(&self) -> u64 {
        self.tree.size()
    }

    pub fn checkpoint(&self) -> SignedNote {
        let checkpoint = Checkpoint {
            origin: self.origin().parse().unwrap(),
            size: self.size(),
            root: self.tree.root(),
        };
        checkpoint.sign(&self.key)
    }

    /// One transaction of so many entries.
    pub fn append(&mut self, count: usize) -> PutBlobsRequest {
        self.append_marked(count, "")
    }

    /// Entries that say so.
    pub fn append_marked(&mut self, count: usize, mark: &str) -> PutBlobsRequest {
        let first = self.size();
        for index in first..first + count as u64 {
            let entry = format!(
                "entry {index} of log {} {mark}{}",
                self.number,
                "x".repeat((index % 50) as usize)
            );
            self.tree.append(leaf_hash(entry.as_bytes()));
            self.entries.push(entry.into_bytes());
        }
        let new = self.entries.iter().skip(usize::try_from(first).unwrap());
        let new = encode_entries(&new.collect::<Vec<_>>()).unwrap();
        let blob = |name: &str, blob| Blob {
            name: format!("log/{}/{name}", self.number),
            blob,
        };
        PutBlobsRequest {
            blobs: vec![
                blob(&format!("entries/{first:020}"), new),
                blob("checkpoint", self.checkpoint().to_bytes()),
            ],
            guard: None,
        }
    }

    /// Every file that the archive of this log has once it is published.
    pub fn files(&self) -> BTreeMap<String, Vec<u8>> {
        let (mut tiles, mut bundles) = (TileWriter::new(), BundleWriter::new());
        let mut files = BTreeMap::new();
        let mut keep = |(path, content): (arca_audit::tile::TilePath, Vec<u8>)| {
            files.insert(format!("{}/{path}", self.number), content);
        };
        for entry in &self.entries {
            tiles
                .append([leaf_hash(entry)])
                .into_iter()
                .for_each(&mut keep);
            bundles
                .append(entry)
                .unwrap()
                .into_iter()
                .for_each(&mut keep);
        }
        tiles.partial().into_iter().for_each(&mut keep);
        bundles.partial().into_iter().for_each(&mut keep);
        let checkpoint = self.checkpoint().to_bytes();
        files.insert(format!("{}/checkpoint", self.number), checkpoint);
        files
    }
}

/// A file that entries name.
pub fn file(content: &[u8]) -> (String, Blob) {
    let digest = Sha256::digest(content);
    let name: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    let blob = Blob {
        name: format!("log/files/{name}"),
        blob: content.to_vec(),
    };
    (format!("files/{name}"), blob)
}

/// Every file of an archive in a folder, less those that are the host's own.
pub fn files_in(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    fn walk(root: &Path, folder: &Path, files: &mut BTreeMap<String, Vec<u8>>) {
        let Ok(entries) = std::fs::read_dir(folder) else {
            return;
        };
        for entry in entries.map(Result::unwrap) {
            let path = entry.path();
            if entry.file_name().to_str().unwrap().starts_with('.') {
            } else if entry.file_type().unwrap().is_dir() {
                walk(root, &path, files);
            } else if let Ok(content) = std::fs::read(&path) {
                let name = path.strip_prefix(root).unwrap().to_str().unwrap();
                files.insert(name.to_owned(), content);
            }
        }
    }
    let mut files = BTreeMap::new();
    walk(folder, folder, &mut files);
    files
}

pub async fn read_log(
    storage: &mut StorageServiceClient<Channel>,
    path: &str,
) -> Result<Vec<u8>, Status> {
    let request = GetLogFileRequest { path: path.into() };
    let response = soon(storage.get_log_file(request)).await?;
    Ok(response.into_inner().content)
}
