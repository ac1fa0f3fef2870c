//! The ids in the input of a job: a listing joins, and a job shows, what the server's own cast would accept.

use coderdb::{
    model::{JobFilter, OrganizationId, PageRequest, Transition},
    store,
};

use crate::support::{
    self,
    rows::{Rows, id},
};

const PLAIN: &str = "0123456789abcdefABCDEF0123456789";
const DASHED: &str = "01234567-89ab-cdef-ABCD-EF0123456789";

/// Spellings of one id, and what is nearly one.
fn texts() -> Vec<String> {
    let fixed = [PLAIN, DASHED, "", "{}", "-", "null", "not an id", "0123-4567-89ab-cdef-ABCD-EF01-2345-6789"];
    let mut texts: Vec<String> = fixed.iter().map(|text| (*text).to_owned()).collect();
    texts.extend([DASHED.to_lowercase(), PLAIN.repeat(2)]);
    texts.extend([DASHED.replace('-', "\u{2010}"), PLAIN.replace('0', "\u{0660}")]);
    for id in [PLAIN, DASHED] {
        for (before, after) in
            [("{", "}"), ("{", ""), ("", "}"), ("{{", "}}"), (" ", ""), ("", " "), ("", "\n"), ("\t", "")]
        {
            texts.push(format!("{before}{id}{after}"));
        }
        for at in 0..=id.len() {
            for inserted in ["-", "--", "0", "g", " ", "{", "}"] {
                texts.push(format!("{}{inserted}{}", &id[..at], &id[at..]));
                texts.push(format!("{{{}{inserted}{}}}", &id[..at], &id[at..]));
            }
            if at < id.len() {
                texts.push(format!("{}{}", &id[..at], &id[at + 1..]));
                texts.push(format!("{}-{}", &id[..at], &id[at + 1..]));
            }
        }
    }
    texts
}

#[tokio::test]
async fn list_reads_ids_of_inputs_as_the_server_casts_them() {
    const OTHERS: [&str; 12] = [
        "null",
        "[]",
        "3",
        r#""workspace_build_id""#,
        r#"["workspace_build_id"]"#,
        "{}",
        r#"{"workspace_build_id": null}"#,
        r#"{"workspace_build_id": true}"#,
        r#"{"workspace_build_id": 1.5e300}"#,
        r#"{"workspace_build_id": ["01234567-89ab-cdef-abcd-ef0123456789"]}"#,
        // `->>` makes a text of a number too, and the cast takes it.
        r#"{"workspace_build_id": 12345678901234567890123456789012}"#,
        // Numbers and depths that the decoder of other columns does not take.
        r#"{"n": 1e400, "deep": [[[[]]]], "workspace_build_id": "01234567-89ab-cdef-abcd-ef0123456789"}"#,
    ];
    let mut rows = Rows::new().await;
    rows.run(
        "CREATE FUNCTION cast_uuid(text) RETURNS uuid LANGUAGE plpgsql AS $$
         BEGIN RETURN $1::uuid; EXCEPTION WHEN invalid_text_representation THEN RETURN NULL; END $$;
         UPDATE workspace_builds SET id = '01234567-89ab-cdef-abcd-ef0123456789', transition = 'stop'",
    )
    .await;
    let named = texts().into_iter().map(|text| serde_json::json!({ "workspace_build_id": text }).to_string());
    let inputs: Vec<String> = named.chain(OTHERS.map(str::to_owned)).collect();
    sqlx::query(
        "INSERT INTO provisioner_jobs (
            id, created_at, updated_at, organization_id, initiator_id, provisioner, storage_method, type, input, file_id
         )
         SELECT gen_random_uuid(), at_second(1), at_second(1), u(1), u(1), 'echo', 'file', 'workspace_build', text::jsonb, u(0)
         FROM unnest($1::text[]) AS text",
    )
    .bind(&inputs)
    .execute(&mut rows.conn)
    .await
    .expect("the jobs");
    let mut expected = rows
        .all("SELECT concat_ws(' ', id, cast_uuid(input ->> 'workspace_build_id')) FROM provisioner_jobs WHERE id <> u(1)")
        .await;
    let permit = support::read_jobs(OrganizationId(id(1)));
    let page = store::jobs::list(&mut rows.conn, &permit, &JobFilter::default(), PageRequest::default()).await;
    let page: Vec<_> = page.expect("a page").rows.into_iter().filter(|row| row.job.id.0 != id(1)).collect();
    let mut actual: Vec<String> = page
        .iter()
        .map(|row| match row.job.input.workspace_build_id {
            Some(build) => format!("{} {build}", row.job.id),
            None => row.job.id.to_string(),
        })
        .collect();
    expected.sort();
    actual.sort();
    assert_eq!(actual, expected);
    // Otherwise the agreement would say little.
    let casts = expected.iter().filter(|row| row.contains(' ')).count();
    assert!(casts > 30 && expected.len() - casts > 1000, "{casts} of {}", expected.len());
    for row in page {
        let build = row.job.input.workspace_build_id.filter(|build| build.to_string() == DASHED.to_lowercase());
        assert_eq!(row.workspace_build_transition, build.map(|_| Transition::Stop.into()), "{:?}", row.job.input);
    }
}
