use std::sync::Arc;

use arca_threshold::ecdsa::{KeyPackage, Presignature, SigningParams, sign_online};

fn twice(key: Arc<KeyPackage>, presignature: Presignature, one: SigningParams, other: SigningParams) {
    let _ = sign_online(Arc::clone(&key), &[0; 32], vec![presignature], one);
    let _ = sign_online(key, &[0; 32], vec![presignature], other);
}

fn main() {}
