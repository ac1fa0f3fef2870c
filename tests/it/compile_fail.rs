//! What must not compile does not, for the reason that it must not.

#[test]
fn neither_a_permit_nor_an_actor_can_be_forged() {
    trybuild::TestCases::new().compile_fail("tests/compile_fail/*.rs");
}
