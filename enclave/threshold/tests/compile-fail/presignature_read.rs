fn read(presignature: arca_threshold::ecdsa::Presignature) {
    let _ = presignature.secret;
}

fn main() {}
