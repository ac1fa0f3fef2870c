//! The files in docs/deploy: what they ask of `coderdb`, and what they make of its exit codes.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use serde_json::Value;

use crate::support::{self, run, source::files};

/// What a cluster is told, by name.
fn manifests() -> BTreeMap<String, Value> {
    let named = |(file, text): (String, String)| {
        Some((file.strip_suffix(".yaml")?.to_owned(), serde_saphyr::from_str(&text).expect("YAML")))
    };
    files("docs/deploy").into_iter().filter_map(named).collect()
}

/// Everything below a key of this name, wherever it is.
fn all<'a>(value: &'a Value, key: &str) -> Vec<&'a Value> {
    match value {
        Value::Object(object) => {
            object.iter().flat_map(|(k, v)| (k == key).then_some(v).into_iter().chain(all(v, key))).collect()
        }
        Value::Array(array) => array.iter().flat_map(|v| all(v, key)).collect(),
        _ => Vec::new(),
    }
}

/// The containers that run `coderdb`.
fn containers(manifest: &Value) -> Vec<&Value> {
    let lists = ["containers", "initContainers"].into_iter().flat_map(|key| all(manifest, key));
    let containers = lists.flat_map(|list| list.as_array().expect("a list"));
    containers.filter(|container| container["image"].as_str().is_some_and(|i| i.contains("/coderdb:"))).collect()
}

#[test]
fn a_job_fails_at_once_with_the_exit_codes_that_another_try_cannot_change() {
    let operations =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/operations.md")).expect("the table");
    let table = operations.split("\n## Exit codes\n").nth(1).and_then(|rest| rest.split("\n## ").next());
    let lines = table.expect("the section").lines().filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |"));
    let in_vain: Vec<u64> = lines
        .filter_map(|line| {
            let (code, rest) = line.split_once(" | ")?;
            let again = rest.rsplit(" | ").next()?;
            (again.starts_with("no") || again == "look first").then(|| code.parse().expect("one code"))
        })
        .collect();
    assert!(in_vain.len() > 5, "the table has them: {in_vain:?}");
    let job = &manifests()["job"];
    let rule = &job["spec"]["podFailurePolicy"]["rules"][0];
    assert_eq!(rule["action"], "FailJob");
    assert_eq!(rule["onExitCodes"]["operator"], "In");
    assert_eq!(serde_json::from_value::<Vec<u64>>(rule["onExitCodes"]["values"].clone()).unwrap(), in_vain);
    let named = |container: &Value| container["name"] == rule["onExitCodes"]["containerName"];
    assert!(containers(job).into_iter().any(named), "the policy is about another container");
    assert_eq!(job["spec"]["template"]["spec"]["restartPolicy"], "Never", "a policy needs it");
}

#[test]
fn a_pod_has_longer_to_end_than_coderdb_takes() {
    let job = &manifests()["job"];
    let pod = &job["spec"]["template"]["spec"];
    for container in containers(job) {
        let variables = container["env"].as_array().expect("variables");
        let grace = variables.iter().find(|variable| variable["name"] == "CODERDB_GRACE").expect("a grace period");
        let seconds = grace["value"].as_str().and_then(|text| text.strip_suffix('s')?.parse().ok());
        assert!(seconds < pod["terminationGracePeriodSeconds"].as_u64(), "{grace}");
        assert!(seconds.is_some(), "{grace}");
    }
}

#[test]
fn coderdb_understands_every_command_line_of_a_container() {
    let mut not_understood = BTreeSet::new();
    for (file, manifest) in manifests() {
        let containers = containers(&manifest);
        assert!(!containers.is_empty(), "{file} runs no coderdb");
        for container in containers {
            let arguments: Vec<String> = serde_json::from_value(container["args"].clone()).expect("arguments");
            // It reads all arguments before it shows the help, and refuses what it does not know.
            let outcome = run(support::coderdb().args(&arguments).arg("--help"));
            if outcome.code != 0 {
                not_understood.insert(arguments.join(" "));
            }
        }
    }
    assert!(not_understood.is_empty(), "{not_understood:?}");
}

#[test]
fn containers_run_as_the_user_of_the_image_and_can_do_nothing_else() {
    let image = files("docs/deploy").into_iter().find(|(name, _)| name == "Dockerfile").expect("the image").1;
    for (file, manifest) in manifests() {
        let pod = &manifest["spec"]["template"]["spec"]["securityContext"];
        assert!(image.contains(&format!("\nUSER {}:{}\n", pod["runAsUser"], pod["runAsGroup"])), "{file}");
        assert_eq!(pod["runAsNonRoot"], true, "{file}");
        for container in containers(&manifest) {
            let confined = serde_json::json!({
                "readOnlyRootFilesystem": true, "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] },
            });
            assert_eq!(container["securityContext"], confined, "{file}");
        }
    }
}
