fn read(nonces: arca_threshold::Nonces<frost_ed25519::Ed25519Sha512>) {
    let _ = nonces.0;
}

fn main() {}
