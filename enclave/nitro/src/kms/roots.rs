//! The roots under which AWS' endpoints have their certificates.
//!
//! The five that Amazon names for its services (<https://www.amazontrust.com/repository/>), DER, as the crate
//! `webpki-root-certs` 1.0.11 and Debian's `ca-certificates` have them. The machine's own list of authorities plays
//! no part: none of them but Amazon's may speak for KMS.

use rustls::pki_types::CertificateDer;

/// Amazon's roots with the SHA-256 of each, which a test compares.
const ROOTS: [(&[u8], &str); 5] = [
    // Amazon Root CA 1: RSA 2048.
    (
        include_bytes!("roots/amazon_root_ca_1.der"),
        "8ecde6884f3d87b1125ba31ac3fcb13d7016de7f57cc904fe1cb97c6ae98196e",
    ),
    // Amazon Root CA 2: RSA 4096.
    (
        include_bytes!("roots/amazon_root_ca_2.der"),
        "1ba5b2aa8c65401a82960118f80bec4f62304d83cec4713a19c39c011ea46db4",
    ),
    // Amazon Root CA 3: P-256.
    (
        include_bytes!("roots/amazon_root_ca_3.der"),
        "18ce6cfe7bf14e60b2e347b8dfe868cb31d02ebb3ada271569f50343b46db3a4",
    ),
    // Amazon Root CA 4: P-384.
    (
        include_bytes!("roots/amazon_root_ca_4.der"),
        "e35d28419ed02025cfa69038cd623962458da5c695fbdea3c22b0bfb25897092",
    ),
    // Starfield Services Root Certificate Authority - G2: RSA 2048.
    (
        include_bytes!("roots/starfield_services_root_g2.der"),
        "568d6905a2c88708a4b3025190edcfedb1974a606a13c6e5290fcb2ae63edab5",
    ),
];

/// Amazon's roots.
pub(crate) fn amazon() -> Vec<CertificateDer<'static>> {
    ROOTS.map(|(der, _)| CertificateDer::from(der)).to_vec()
}

#[cfg(test)]
mod tests {
    use sha2::{Digest as _, Sha256};

    use super::*;

    #[test]
    fn the_roots_are_amazons() {
        for (der, digest) in ROOTS {
            assert_eq!(hex::encode(Sha256::digest(der)), digest);
        }
        let mut store = rustls::RootCertStore::empty();
        assert_eq!(store.add_parsable_certificates(amazon()), (5, 0));
    }
}
