fn need<T: serde::Serialize>() {}

fn main() {
    need::<arca_threshold::Nonces<frost_ed25519::Ed25519Sha512>>();
}
