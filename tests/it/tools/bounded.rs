//! What somebody else wrote is repeated to an agent only in part, where it is long.

use super::*;

/// So long no text of a reply is.
const MOST: usize = 10 * 1024;

/// Five megabytes of characters of two bytes, and what went wrong.
fn long() -> &'static str {
    Box::leak(format!("x{} THE END", "é".repeat(2_500_000)).into_boxed_str())
}

/// The reply is short, and says how much is left out: of a build error what comes before its end.
fn assert_bounded(what: &str, reply: &Reply, said: &[&str]) -> String {
    let text = reply.text();
    assert!(text.len() < MOST, "{what}: {} bytes: {:.300}", text.len(), text);
    for said in said {
        assert!(text.contains(said), "{what}: {text:.300}");
    }
    text
}

const END: &[&str] = &["THE END", " bytes before this are left out; `coderdb provisioner jobs get "];
const BEGINNING: &[&str] = &["éé … and ", " bytes more"];

#[tokio::test]
async fn a_build_error_is_repeated_by_its_end_and_the_reply_says_where_the_rest_is() {
    let fails = Ending::Fails(long());
    let under_way = "SELECT has(5, 'start', 'pending')";
    for (what, before, tool) in [
        ("create", "SELECT 1", Tool::CreateWorkspace),
        ("create, under way", under_way, Tool::CreateWorkspace),
        ("start", "SELECT has(5, 'stop', 'succeeded')", Tool::StartWorkspace),
        ("start, under way", under_way, Tool::StartWorkspace),
    ] {
        let mut world = World::after(before).await;
        let arguments = if tool == Tool::CreateWorkspace { template(1) } else { json!({}) };
        let reply = if before == under_way {
            world.under_way(&world.toolbox(), tool, arguments, fails).await
        } else {
            world.built(&world.toolbox(), tool, arguments, fails).await.0
        };
        let text = assert_bounded(what, &reply, END);
        let job = world.one("SELECT id FROM provisioner_jobs WHERE error LIKE '%THE END'").await;
        assert!(
            text.contains(&format!("`coderdb provisioner jobs get {job} -o json` has the whole error")),
            "{text:.300}"
        );
        assert!(text.contains("(4991817 bytes before this are left out"), "{text:.300}");
        // What is said there is so.
        let mut get = world.rows.database.coderdb();
        let whole = crate::support::run(get.env("CODER_ORGANIZATION", "org1").args([
            "provisioner",
            "jobs",
            "get",
            &job,
            "-o",
            "json",
        ]));
        assert!(whole.stdout.contains(long()), "{:.300}", whole.stdout);
    }
}

#[tokio::test]
async fn a_build_error_that_is_short_is_repeated_as_it_is() {
    let world = World::new().await;
    let error: &'static str = Box::leak("e".repeat(8 * 1024).into_boxed_str());
    let (reply, _) = world.built(&world.toolbox(), Tool::CreateWorkspace, template(1), Ending::Fails(error)).await;
    assert_eq!(keys(&reply)["error"], format!("workspace build failed: {error}"));
}

/// The error of a build over quota, the reason why a template is deprecated, the names of agents, and whatever a service
/// or a connector says.
#[tokio::test]
async fn no_text_of_somebody_else_is_repeated_whole_where_it_is_long() {
    let mut world = World::after("SELECT has(5, 'start', 'pending')").await;
    let fail =
        "UPDATE provisioner_jobs SET started_at = now(), completed_at = now(), error_code = 'INSUFFICIENT_QUOTA',
                    error = repeat('é', 2500000) || ' THE END.'
                WHERE id = u(5)";
    let over_quota = async {
        let toolbox = world.toolbox();
        let waits = start(&toolbox);
        tokio::pin!(waits);
        let ends = async {
            world.until_told().await;
            let mut conn = world.rows.database.connect().await;
            sqlx::raw_sql(fail).execute(&mut conn).await.expect("the end");
            world.watcher.announce(Change { job: id(5).into(), organization: id(1).into() });
        };
        tokio::join!(waits, ends).0
    };
    let reply = over_quota.await;
    assert_eq!(keys(&reply)["error_code"], "INSUFFICIENT_QUOTA");
    assert_bounded("over quota", &reply, END);

    world.rows.run("UPDATE chats SET workspace_id = NULL, build_id = NULL; DELETE FROM workspaces").await;
    world.rows.run("UPDATE templates SET deprecated = repeat('é', 2500000) || ' THE END'").await;
    assert_bounded("deprecated", &create(&world.toolbox()).await, BEGINNING);
    world.rows.run("UPDATE templates SET deprecated = ''").await;

    let refused = ApiError { message: long().to_owned(), ..refusal(400, None) };
    assert_bounded("a message", &create(&world.recorded(Answer::Refuse(refused)).0).await, BEGINNING);
    let validations = vec![Validation { field: "name".to_owned(), detail: long().to_owned() }];
    let refused = ApiError { validations, ..refusal(400, None) };
    assert_bounded("a validation", &create(&world.recorded(Answer::Refuse(refused)).0).await, BEGINNING);

    let names = (0..300).map(|n| &*format!("{}{n}-coderd-chat", "a".repeat(40)).leak()).collect::<Vec<&'static str>>();
    let (reply, _) =
        world.built(&world.toolbox(), Tool::CreateWorkspace, template(1), Ending::Succeeds(names.leak())).await;
    assert_bounded("names of agents", &reply, &["agents match the chat suffix", " … and ", " bytes more"]);
    world.rows.run("UPDATE workspace_agents SET name = 'main' || id").await;
    let reply = start(&world.toolbox().connector(Arc::new(Talkative))).await;
    assert_bounded("a connector", &reply, BEGINNING);
}

/// A connector that says much, and connects to nothing.
struct Talkative;

impl Connector for Talkative {
    fn connect(&self, _: WorkspaceAgentId) -> BoxFuture<'_, Result<Box<dyn Send>, ForeignError>> {
        async { Err(long().into()) }.boxed()
    }
}
