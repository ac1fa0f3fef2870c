//! Rows that hold what they should not.

use coderdb::model::JobFilter;
use serde_json::json;
use uuid::Uuid;

use super::{WORKSPACE, World, n};

#[tokio::test]
async fn a_broken_input_fails_its_row_only() {
    let mut world = World::new().await;
    world.build(1, WORKSPACE, 1, json!({})).await;
    let deep = format!(r#"{{"workspace_build_id": {}1{}}}"#, "[".repeat(500), "]".repeat(500));
    let broken = [
        r#"{"workspace_build_id": "not-a-uuid"}"#,
        r#"{"workspace_build_id": 7}"#,
        r#"{"workspace_build_id": ["00000000-0000-0000-0000-000000000001"]}"#,
        r#"{"template_version_id": ""}"#,
        r#"["workspace_build_id"]"#,
        r#""workspace_build_id""#,
        "7",
        // JSON that the database keeps, and that not every decoder reads.
        r#"{"workspace_build_id": 1e400}"#,
        r#"{"workspace_build_id": "not-a-uuid", "n": 1e400}"#,
        &deep,
    ];
    for (id, input) in (2..).zip(broken) {
        world.job(id, json!({})).await;
        sqlx::query("UPDATE provisioner_jobs SET input = $1::text::jsonb WHERE id = $2")
            .bind(input)
            .bind(n(id))
            .execute(&mut world.conn)
            .await
            .unwrap();
        let rows = world.list(&JobFilter::default()).await;
        assert_eq!(rows.len(), usize::try_from(id).unwrap(), "{input}");
        for row in rows {
            let error = row.job.input.error.as_deref().unwrap_or_default();
            assert_eq!(error.starts_with("decode input"), row.job.id != n(1).into(), "{input}: {error:?}");
            let workspace = if row.job.id == n(1).into() { "workspace" } else { "" };
            assert_eq!(row.workspace_name, workspace, "{input}");
        }
        world.queued(&[1, id]).await;
    }
}

#[tokio::test]
async fn what_a_listing_joins_is_what_the_input_shows_however_the_id_is_spelled() {
    let mut world = World::new().await;
    let build = Uuid::from_u128(0xabcd_ef01_2345_6789_abcd_ef01_2345_6789);
    world.build(build.as_u128(), WORKSPACE, 1, json!({})).await;
    let simple = build.simple().to_string();
    for (id, (text, known)) in (1..).zip([
        (build.to_string(), true),
        (build.to_string().to_uppercase(), true),
        (build.braced().to_string(), true),
        (format!("{{{simple}}}"), true),
        (format!("{}-{}", &simple[..4], &simple[4..]), true),
        (simple.clone(), true),
        (build.urn().to_string(), false),
        (format!("{build}-"), false),
        (format!("{build}\n"), false),
        (format!("{{{build}"), false),
        (format!("{build}}}"), false),
        (format!("{}-{}", &simple[..2], &simple[2..]), false),
    ]) {
        world.job(id, json!({"input": {"workspace_build_id": text}})).await;
        let row = world.get(id).await;
        assert_eq!(row.workspace_name, if known { "workspace" } else { "" }, "{text:?}");
        assert_eq!(row.job.input.workspace_build_id, known.then_some(build.into()), "{text:?}");
        assert_eq!(row.job.input.error.is_some(), !known, "{text:?}");
    }
}

#[tokio::test]
async fn odd_tags_and_traces_fail_no_row_at_all() {
    let mut world = World::new().await;
    world.job(1, json!({})).await;
    let deep = format!(r#"{{"a": {}1{}}}"#, "[".repeat(500), "]".repeat(500));
    for odd in ["7", "null", "[]", r#""x""#, r#"{"n": 1, "o": {}}"#, r#"{"n": 1e400}"#, &deep] {
        sqlx::query("UPDATE provisioner_jobs SET tags = $1::text::jsonb, trace_metadata = $1::text::jsonb")
            .bind(odd)
            .execute(&mut world.conn)
            .await
            .unwrap();
        let row = world.get(1).await;
        assert_eq!(row.job.id, n(1).into(), "{odd}");
        world.queued(&[1]).await;
    }
}
