fn need<T: serde::Serialize>() {}

fn main() {
    need::<arca_threshold::ecdsa::KeyPackage>();
}
