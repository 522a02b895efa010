//! TLS of the host's own: to a bucket, to witnesses. The enclave's ends inside the enclave.

/// Has rustls compute with ring, in this whole process; a program that chose before keeps its choice.
pub(crate) fn install() {
    // An error means that there is a choice already.
    let _ = rustls::crypto::ring::default_provider().install_default();
}
