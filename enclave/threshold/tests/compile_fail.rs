//! What must not compile: copying or serialising what may be used once.

#[test]
fn single_use_secrets_move() {
    trybuild::TestCases::new().compile_fail("tests/compile-fail/*.rs");
}
