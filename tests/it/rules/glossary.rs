//! The words of public names: each is in docs/domain.md, which has the glossary, or in the list of plain words beside the
//! tests. A new word is a choice that somebody makes: the field's term, or one line more in one of the two.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use syn::{Fields, ImplItem, Item, Visibility};

/// Every word of a name, in small letters: `WorkspaceBuildId`, `build_id` and `BUILD_ID` are three and two.
fn words(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut before = '_';
    for c in name.chars() {
        if c == '_' || (c.is_uppercase() && before.is_lowercase()) {
            words.push(String::new());
        }
        if c.is_ascii_alphabetic() {
            words.last_mut().expect("one").push(c.to_ascii_lowercase());
        }
        before = c;
    }
    words.retain(|word| word.len() > 1);
    words
}

#[derive(Default)]
struct Names(BTreeMap<String, String>);

impl Names {
    fn add(&mut self, name: &impl ToString, within: &str) {
        let name = name.to_string();
        for word in words(&name) {
            self.0.entry(word).or_insert_with(|| format!("{within}::{name}"));
        }
    }

    fn fields(&mut self, fields: &Fields, within: &str, all: bool) {
        let is_public = |field: &&syn::Field| all || matches!(field.vis, Visibility::Public(_));
        for field in fields.iter().filter(is_public).filter_map(|field| field.ident.as_ref()) {
            self.add(field, within);
        }
    }

    fn items(&mut self, items: &[Item], within: &str) {
        for item in items {
            match item {
                Item::Const(item) if is_public(&item.vis) => self.add(&item.ident, within),
                Item::Fn(item) if is_public(&item.vis) => self.add(&item.sig.ident, within),
                Item::Mod(item) if is_public(&item.vis) => self.add(&item.ident, within),
                Item::Type(item) if is_public(&item.vis) => self.add(&item.ident, within),
                Item::Trait(item) if is_public(&item.vis) => {
                    self.add(&item.ident, within);
                    for item in &item.items {
                        if let syn::TraitItem::Fn(item) = item {
                            self.add(&item.sig.ident, within);
                        }
                    }
                }
                Item::Struct(item) if is_public(&item.vis) => {
                    self.add(&item.ident, within);
                    self.fields(&item.fields, within, false);
                }
                Item::Enum(item) if is_public(&item.vis) => {
                    self.add(&item.ident, within);
                    for variant in &item.variants {
                        self.add(&variant.ident, within);
                        self.fields(&variant.fields, within, true);
                    }
                }
                Item::Impl(item) => {
                    for item in &item.items {
                        match item {
                            ImplItem::Fn(item) if is_public(&item.vis) => self.add(&item.sig.ident, within),
                            ImplItem::Const(item) if is_public(&item.vis) => self.add(&item.ident, within),
                            _ => {}
                        }
                    }
                }
                _ => {}
            }
        }
    }
}

fn is_public(visibility: &Visibility) -> bool {
    matches!(visibility, Visibility::Public(_))
}

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The words that the glossary has in its last column, each with the term that stands for it.
fn synonyms(document: &str) -> Vec<(&str, &str)> {
    let (_, glossary) = document.split_once("\n# Glossary\n").expect("a glossary");
    let rows = glossary.lines().filter_map(|line| {
        let [_, term, _, not, _] = line.split('|').map(str::trim).collect::<Vec<_>>()[..] else { return None };
        Some((term, not))
    });
    let found: Vec<_> = rows
        .skip(2)
        .flat_map(|(term, not)| not.split(", ").filter(|word| !word.is_empty()).map(move |word| (word, term)))
        .collect();
    assert!(!found.is_empty(), "the last column of the glossary has words that are not to be used");
    found
}

#[test]
fn public_names_are_made_of_the_words_of_the_glossary() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut sources = Vec::new();
    files(&root.join("src"), &mut sources);
    let mut names = Names::default();
    for source in sources {
        // What is public there is public within the binary only.
        if source.starts_with(root.join("src/cli")) {
            continue;
        }
        let text = fs::read_to_string(&source).expect("a source");
        let file = syn::parse_file(&text).expect("Rust");
        names.items(&file.items, source.strip_prefix(root).expect("of this tree").to_str().expect("a path"));
    }
    let domain = fs::read_to_string(root.join("docs/domain.md")).expect("docs/domain.md");
    let (rules, glossary) = domain.split_once("\n# Glossary\n").expect("a glossary");
    let terms: String = glossary.lines().map(|line| line.rsplit_once("| ").map_or(line, |(row, _)| row)).collect();
    let known: BTreeSet<String> =
        (rules.to_owned() + &terms).split(|c: char| !c.is_ascii_alphabetic()).map(str::to_ascii_lowercase).collect();
    let said_otherwise: Vec<_> = synonyms(&domain)
        .into_iter()
        .filter_map(|(word, term)| Some(format!("{} says {word:?} for {term:?}", names.0.get(word)?)))
        .collect();
    assert!(said_otherwise.is_empty(), "the glossary of docs/domain.md has another word: {said_otherwise:?}");
    let plain = include_str!("../golden/words.txt");
    let plain: BTreeSet<&str> = plain.lines().filter(|line| !line.starts_with('#')).collect();
    let is_known = |word: &str| known.contains(word) || plain.contains(word);
    let unknown: Vec<_> = names.0.iter().filter(|(word, _)| !is_known(word)).collect();
    let unknown: Vec<_> = unknown.into_iter().map(|(word, name)| format!("{word} ({name})")).collect();
    assert!(
        unknown.is_empty(),
        "neither docs/domain.md nor tests/it/golden/words.txt has: {}\nuse the field's term; or explain the word in the \
         glossary, or add it to the list if everybody knows it",
        unknown.join(", ")
    );
    let unused: Vec<_> = plain.iter().filter(|word| !names.0.contains_key(**word) || known.contains(**word)).collect();
    assert!(unused.is_empty(), "tests/it/golden/words.txt need not have: {unused:?}");
}
