fn need<T: Clone>() {}

fn main() {
    need::<arca_threshold::ecdsa::Presignature>();
}
