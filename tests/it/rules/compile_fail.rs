//! What must not compile does not, for the reason that it must not.

// It builds the library and all crates once more. What the compiler says depends on the features: names are shortened as far
// as they are unique among all crates.
#[test]
#[ignore = "takes minutes, and all features: ./test --all"]
fn neither_a_permit_nor_an_actor_can_be_forged() {
    trybuild::TestCases::new().compile_fail("tests/compile_fail/*.rs");
}
