//! What else happens when a build ends, and the codes of failures.

use coderdb::{
    model::{
        BuildReason, ByWorker, End, EndedBuild, Failure, FailureCode, FailureNotice, JobErrorCode, JobId, JobStatus,
        Transition, UserId, WorkspaceBuildId, WorkspaceId,
    },
    store,
};
use sqlx::{AssertSqlSafe, Connection};

use super::OWN;
use crate::support::rows::{NOW, Rows, daemon, id};

#[tokio::test]
async fn a_text_that_mentions_quota_has_no_code() {
    let mut rows = Rows::new().await;
    rows.run("UPDATE provisioner_jobs SET worker_id = u(7), started_at = at_second(0)").await;
    let text = "terraform apply: insufficient quota in region eu-central-1";
    let failure = Failure { error: text, code: FailureCode::classify(text), ..Failure::default() };
    let end = store::jobs::fail(&mut rows.conn, &daemon(1, OWN), JobId(id(1)), NOW, failure).await.expect("a job");
    let ByWorker::Done(End::Ended(end)) = end else { panic!("{end:?}") };
    let job = end.job;
    assert_eq!((job.status, job.error.as_deref(), job.error_code), (JobStatus::Failed, Some(text), None));
}

#[tokio::test]
async fn fail_with_an_empty_error_has_none() {
    let mut rows = Rows::new().await;
    rows.run("UPDATE provisioner_jobs SET worker_id = u(7), started_at = at_second(0), canceled_at = at_second(1)")
        .await;
    let (permit, job) = (daemon(1, OWN), JobId(id(1)));
    let end = store::jobs::fail(&mut rows.conn, &permit, job, NOW, Failure::default()).await.expect("a job");
    let ByWorker::Done(End::Ended(end)) = end else { panic!("{end:?}") };
    assert_eq!((end.job.status, &end.job.error, end.notice()), (JobStatus::Canceled, &None, None));
}

/// The state and whether there is a deadline, of build 1.
const LEFT: &str = "SELECT coalesce(encode(provisioner_state, 'escape'), 'none')
                           || CASE WHEN deadline > '0001-01-01 00:00:00+00' THEN ', stops' ELSE '' END
                    FROM workspace_builds WHERE id = u(1)";

#[tokio::test]
async fn a_build_keeps_what_its_daemon_leaves_and_a_prebuild_loses_its_deadline() {
    let mut rows = Rows::new().await;
    rows.run(
        "UPDATE provisioner_jobs SET worker_id = u(7), started_at = at_second(0);
         UPDATE workspace_builds SET provisioner_state = 'before', deadline = at_second(9), max_deadline = at_second(9)",
    )
    .await;
    for (prebuild, state, expected) in [
        (false, None, "before, stops"),
        (false, Some("after"), "after, stops"),
        (false, Some(""), ", stops"),
        (true, None, "before"),
        (true, Some("after"), "after"),
    ] {
        for fails in [false, true] {
            let mut transaction = rows.conn.begin().await.expect("a transaction");
            if prebuild {
                let sql = "UPDATE workspaces SET owner_id = prebuilds()";
                sqlx::raw_sql(sql).execute(&mut *transaction).await.expect("a prebuild");
            }
            let (permit, job, provisioner_state) = (daemon(1, OWN), JobId(id(1)), state.map(str::as_bytes));
            let end = if fails {
                let failure = Failure { error: "boom", provisioner_state, ..Failure::default() };
                store::jobs::fail(&mut transaction, &permit, job, NOW, failure).await
            } else {
                store::jobs::complete(&mut transaction, &permit, job, NOW, provisioner_state).await
            };
            assert!(matches!(end, Ok(ByWorker::Done(End::Ended(_)))), "{end:?}");
            let left: String = sqlx::query_scalar(LEFT).fetch_one(&mut *transaction).await.expect("the build");
            assert_eq!(left, expected);
            // A late state is kept, because nothing else knows what was built.
            let late = store::jobs::complete(&mut transaction, &permit, job, NOW, Some(b"late")).await;
            assert!(matches!(late, Ok(ByWorker::Done(End::AlreadyCompleted { state_kept: true }))), "{late:?}");
            let left: String = sqlx::query_scalar(LEFT).fetch_one(&mut *transaction).await.expect("the build");
            assert!(left.starts_with("late"), "{left}");
            transaction.rollback().await.expect("the rollback");
        }
    }
    let before = rows.everything().await;
    let end = store::jobs::complete(&mut rows.conn, &daemon(1, 8), JobId(id(1)), NOW, Some(b"foreign")).await;
    assert!(matches!(end, Ok(ByWorker::OtherOwner)), "{end:?}");
    assert_eq!(rows.everything().await, before);
}

#[tokio::test]
async fn a_delete_that_succeeds_deletes_its_workspace() {
    let mut rows = Rows::new().await;
    for (transition, error, canceled, deleted) in [
        ("delete", "", false, true),
        ("delete", "boom", false, false),
        ("delete", "", true, false),
        ("stop", "", false, false),
        ("start", "", false, false),
    ] {
        let mut transaction = rows.conn.begin().await.expect("a transaction");
        let sql = format!(
            "UPDATE provisioner_jobs SET worker_id = u(7), started_at = at_second(0),
                 canceled_at = CASE WHEN {canceled} THEN at_second(1) END;
             UPDATE workspace_builds SET transition = '{transition}'"
        );
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut *transaction).await.expect("the build");
        let failure = Failure { error, ..Failure::default() };
        let end = store::jobs::fail(&mut transaction, &daemon(1, OWN), JobId(id(1)), NOW, failure).await;
        assert!(matches!(end, Ok(ByWorker::Done(End::Ended(_)))), "{end:?}");
        let gone: bool =
            sqlx::query_scalar("SELECT deleted FROM workspaces").fetch_one(&mut *transaction).await.expect("one");
        assert_eq!(gone, deleted, "{transition} {error:?} {canceled}");
        transaction.rollback().await.expect("the rollback");
    }
}

#[tokio::test]
async fn a_failed_build_is_news_for_template_admins_or_for_the_owner() {
    let mut rows = Rows::new().await;
    rows.run("SELECT add_job(2); UPDATE provisioner_jobs SET worker_id = u(7), started_at = at_second(0)").await;
    let failure = Failure { error: "boom", ..Failure::default() };
    let owner = UserId(id(1));
    for reason in BuildReason::ALL {
        let mut transaction = rows.conn.begin().await.expect("a transaction");
        let sql = format!("UPDATE workspace_builds SET reason = '{reason}'");
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut *transaction).await.expect("the reason");
        let end = store::jobs::fail(&mut transaction, &daemon(1, OWN), JobId(id(1)), NOW, failure).await;
        let Ok(ByWorker::Done(End::Ended(end))) = end else { panic!("{end:?}") };
        let (build, workspace_id) = (WorkspaceBuildId(id(1)), WorkspaceId(id(1)));
        assert_eq!(
            end.build,
            Some(EndedBuild {
                id: build,
                workspace_id,
                owner_id: owner,
                reason: (*reason).into(),
                transition: Transition::Start.into()
            })
        );
        let expected = match reason {
            BuildReason::Initiator => FailureNotice::ToTemplateAdmins,
            _ => FailureNotice::ToOwner(owner),
        };
        assert_eq!(end.notice(), Some(expected));
        transaction.rollback().await.expect("the rollback");
    }
    let end = store::jobs::fail(&mut rows.conn, &daemon(1, OWN), JobId(id(2)), NOW, failure).await;
    let Ok(ByWorker::Done(End::Ended(end))) = end else { panic!("{end:?}") };
    assert_eq!((&end.build, end.notice()), (&None, None), "no build, no news");
    let end = store::jobs::complete(&mut rows.conn, &daemon(1, OWN), JobId(id(1)), NOW, None).await;
    let Ok(ByWorker::Done(End::Ended(end))) = end else { panic!("{end:?}") };
    assert_eq!((end.build.is_some(), end.notice()), (true, None), "a success is no news");
}

#[test]
fn each_code_has_a_predicate_and_unknown_codes_have_none() {
    let answers = |code: &str| {
        let code = JobErrorCode::from(code.to_owned());
        [code.is_missing_template_parameter(), code.is_required_template_variables(), code.is_insufficient_quota()]
    };
    assert_eq!(answers("MISSING_TEMPLATE_PARAMETER"), [true, false, false]);
    assert_eq!(answers("REQUIRED_TEMPLATE_VARIABLES"), [false, true, false]);
    assert_eq!(answers("INSUFFICIENT_QUOTA"), [false, false, true]);
    assert_eq!(answers("insufficient_quota"), [false; 3]);
    assert_eq!(answers("SOMETHING_NEWER"), [false; 3]);
}

#[test]
fn the_classifier_knows_the_two_older_codes_and_their_case() {
    let cases = [
        ("missing parameter: region", Some(FailureCode::MissingTemplateParameter)),
        ("x: required template variables are missing: a", Some(FailureCode::RequiredTemplateVariables)),
        ("Missing parameter", None),
        ("required template variable", None),
        ("insufficient quota", None),
        ("INSUFFICIENT_QUOTA", None),
        ("", None),
    ];
    for (text, code) in cases {
        assert_eq!(FailureCode::classify(text), code, "{text}");
    }
}
