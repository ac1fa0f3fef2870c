//! Names for workspaces whose chat gave none that can be used.

use uuid::Uuid;

use crate::model::WorkspaceName;

/// So many characters, a hyphen and four digits are the longest name.
const LONGEST_BASE: usize = 27;

/// A name like the seed, with four random hexadecimal digits at its end (domain: creating a workspace).
pub(super) fn generate(seed: &str) -> WorkspaceName {
    let digits = Uuid::new_v4().simple().to_string();
    let name = format!("{}-{}", base(seed), &digits[..4]);
    name.parse().expect("letters, digits and single hyphens")
}

/// The seed in lower case, with a hyphen for whatever a name cannot have.
fn base(seed: &str) -> String {
    let seed = seed.to_lowercase();
    let words = seed.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    let mut base = words.collect::<Vec<_>>().join("-");
    base.truncate(LONGEST_BASE);
    match base.trim_matches('-') {
        "" => "workspace".to_owned(),
        base => base.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generated_name_is_like_its_seed_and_always_valid() {
        for (seed, expected) in [
            ("Docker Containers", "docker-containers"),
            ("  _my--box_ ", "my-box"),
            ("", "workspace"),
            ("-ä-", "workspace"),
            ("new", "new"),
            (" Create ", "create"),
            ("0123456789012345678901234-xyz", "0123456789012345678901234-x"),
            ("01234567890123456789012345-xyz", "01234567890123456789012345"),
            ("01234567890123456789012345678901234567890", "012345678901234567890123456"),
        ] {
            let name = generate(seed);
            let (base, digits) = name.as_str().rsplit_once('-').expect("a hyphen");
            assert_eq!(base, expected);
            assert!(digits.len() == 4 && digits.bytes().all(|digit| digit.is_ascii_hexdigit()), "{name}");
        }
        assert!((0..100).any(|_| generate("a") != generate("a")));
    }
}
