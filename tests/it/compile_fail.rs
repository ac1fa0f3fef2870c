//! What must not compile does not, for the reason that it must not.

// The compiler shortens paths as far as names are unique among all crates, which depends on the features.
#[test]
#[cfg_attr(not(feature = "serve"), ignore = "needs the features that ./test has")]
fn neither_a_permit_nor_an_actor_can_be_forged() {
    trybuild::TestCases::new().compile_fail("tests/compile_fail/*.rs");
}
