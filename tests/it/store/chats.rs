//! Chats: what they work with, and for whom.

use coderdb::{
    authz::{Actor, LoadActors, System, UseChats},
    model::{Chat, ChatBinding, ChatId, OrganizationId, UserId, WorkspaceAgentId, WorkspaceBuildId, WorkspaceId},
    sqlx::{self, AssertSqlSafe, Connection, PgConnection},
    store,
};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::support::{self, Database};

/// Two organizations with a chat each (106 of user 1, and 206 of user 2), and a deleted third one.
async fn fixture() -> (Database, PgConnection) {
    let database = support::database().await;
    let mut conn = database.connect().await;
    sql(&mut conn, include_str!("../golden/two_organizations.sql")).await;
    (database, conn)
}

async fn sql(conn: &mut PgConnection, text: &str) {
    sqlx::raw_sql(AssertSqlSafe(text)).execute(conn).await.unwrap_or_else(|error| panic!("{text}\n{error}"));
}

fn u(n: u32) -> Uuid {
    format!("{n:032}").parse().expect("an id")
}

const CHAT: ChatId = ChatId(Uuid::from_u128(0x106));

fn chat_daemon() -> UseChats {
    UseChats::check(&Actor::system(System::ChatDaemon)).expect("the chat daemon may")
}

async fn owner(conn: &mut PgConnection, user: u32) -> UseChats {
    let permit = LoadActors::check(&Actor::system(System::ChatDaemon)).expect("the chat daemon acts as owners");
    let actor = store::actors::load(conn, &permit, UserId(u(user))).await.expect("the actor");
    UseChats::check(&actor).expect("a user may")
}

fn binding(workspace: Option<u32>, build: Option<u32>, agent: Option<u32>) -> ChatBinding {
    ChatBinding {
        workspace_id: workspace.map(|n| WorkspaceId(u(n))),
        build_id: build.map(|n| WorkspaceBuildId(u(n))),
        agent_id: agent.map(|n| WorkspaceAgentId(u(n))),
    }
}

async fn get(conn: &mut PgConnection) -> Chat {
    store::chats::get(conn, &chat_daemon(), CHAT).await.expect("the chat")
}

#[tokio::test]
async fn a_chat_is_found_by_its_owner_and_by_the_chat_daemon() {
    let (_database, mut conn) = fixture().await;
    let chat = get(&mut conn).await;
    assert_eq!((chat.id, chat.owner_id, chat.organization_id), (CHAT, UserId(u(1)), OrganizationId(u(1))));
    assert_eq!(chat.binding, ChatBinding::default());
    let permit = owner(&mut conn, 1).await;
    assert_eq!(store::chats::get(&mut conn, &permit, CHAT).await.expect("the chat"), chat);
}

#[tokio::test]
async fn binding_overwrites_all_three_and_none_clears() {
    let (_database, mut conn) = fixture().await;
    let permit = owner(&mut conn, 1).await;
    for bound in [
        binding(Some(103), Some(108), Some(110)),
        binding(Some(103), None, None),
        binding(None, Some(108), Some(110)),
        binding(None, None, None),
    ] {
        let chat = store::chats::bind(&mut conn, &permit, CHAT, bound).await.expect("the chat");
        assert_eq!(chat.binding, bound);
        assert_eq!(get(&mut conn).await, chat);
    }
}

#[tokio::test]
async fn binding_build_and_agent_leaves_the_workspace() {
    let (_database, mut conn) = fixture().await;
    let _ =
        store::chats::bind(&mut conn, &chat_daemon(), CHAT, binding(Some(103), None, None)).await.expect("the chat");
    for (build, agent) in [(Some(108), Some(110)), (Some(108), None), (None, Some(110)), (None, None)] {
        let bound = binding(Some(103), build, agent);
        let chat =
            store::chats::bind_build_agent(&mut conn, &chat_daemon(), CHAT, bound.build_id, bound.agent_id).await;
        assert_eq!(chat.expect("the chat").binding, bound);
        assert_eq!(get(&mut conn).await.binding, bound);
    }
}

#[tokio::test]
async fn the_time_of_a_binding_is_the_time_of_the_database() {
    let (_database, mut conn) = fixture().await;
    sql(&mut conn, "UPDATE chats SET updated_at = moment()").await;
    let mut tx = conn.begin().await.expect("a transaction");
    let now: OffsetDateTime = sqlx::query_scalar("SELECT now()").fetch_one(&mut *tx).await.expect("a time");
    let chat = store::chats::bind(&mut tx, &chat_daemon(), CHAT, ChatBinding::default()).await.expect("the chat");
    assert_eq!(chat.updated_at, now);
    let chat = store::chats::bind_build_agent(&mut tx, &chat_daemon(), CHAT, None, None).await.expect("the chat");
    assert_eq!(chat.updated_at, now);
}

#[tokio::test]
async fn nobody_reads_or_binds_the_chat_of_another() {
    let (_database, mut conn) = fixture().await;
    let before = get(&mut conn).await;
    sql(&mut conn, "UPDATE users SET rbac_roles = '{owner}' WHERE id = u(2)").await;
    let permit = owner(&mut conn, 2).await;
    let missing = ChatId(u(9));
    for (id, shown) in [(CHAT, CHAT), (missing, missing)] {
        let error = store::chats::get(&mut conn, &permit, id).await.expect_err("not there");
        assert_eq!(error.to_string(), format!("chat not found: {shown}"));
        let expected = format!("chat, or what it should work with, not found: {shown}");
        let error = store::chats::bind(&mut conn, &permit, id, binding(None, None, None)).await.expect_err("not there");
        assert_eq!(error.to_string(), expected);
        let error = store::chats::bind_build_agent(&mut conn, &permit, id, None, None).await.expect_err("not there");
        assert_eq!(error.to_string(), expected);
    }
    assert_eq!(get(&mut conn).await, before);
}

#[tokio::test]
async fn what_is_missing_and_what_another_organization_has_cannot_be_bound_and_look_the_same() {
    let (_database, mut conn) = fixture().await;
    let bound = binding(Some(103), Some(108), Some(110));
    let before = store::chats::bind(&mut conn, &chat_daemon(), CHAT, bound).await.expect("the chat");
    let expected = format!("chat, or what it should work with, not found: {CHAT}");
    for kind in [0, 1, 2] {
        for of_another in [true, false] {
            let pick = |this: u32, id: u32| if this == kind { Some(if of_another { id } else { 9 }) } else { None };
            let bad = binding(pick(0, 203), pick(1, 208), pick(2, 210));
            let error = store::chats::bind(&mut conn, &chat_daemon(), CHAT, bad).await.expect_err("not there");
            assert_eq!(error.to_string(), expected, "{bad:?}");
            if kind > 0 {
                let (build, agent) = (bad.build_id, bad.agent_id);
                let error = store::chats::bind_build_agent(&mut conn, &chat_daemon(), CHAT, build, agent).await;
                assert_eq!(error.expect_err("not there").to_string(), expected, "{bad:?}");
            }
        }
    }
    assert_eq!(get(&mut conn).await, before);
}

#[tokio::test]
async fn what_is_destroyed_is_no_longer_bound() {
    let (_database, mut conn) = fixture().await;
    let bound = binding(Some(103), Some(108), Some(110));
    let _ = store::chats::bind(&mut conn, &chat_daemon(), CHAT, bound).await.expect("the chat");
    sql(&mut conn, "DELETE FROM workspace_agents WHERE id = u(110)").await;
    assert_eq!(get(&mut conn).await.binding, binding(Some(103), Some(108), None));
    sql(&mut conn, "DELETE FROM workspaces WHERE id = u(103)").await;
    assert_eq!(get(&mut conn).await.binding, ChatBinding::default());
}

#[tokio::test]
async fn a_workspace_that_goes_while_it_is_bound_is_not_there() {
    let (database, mut conn) = fixture().await;
    let mut other = database.connect().await;
    let mut tx = other.begin().await.expect("a transaction");
    sqlx::query("DELETE FROM workspaces WHERE id = u(103)").execute(&mut *tx).await.expect("deleted");
    let bind = tokio::spawn(async move {
        let result = store::chats::bind(&mut conn, &chat_daemon(), CHAT, binding(Some(103), None, None)).await;
        (result, conn)
    });
    // The check of the foreign key waits for the other transaction.
    support::settled(&bind, &mut database.connect().await, 1).await;
    tx.commit().await.expect("committed");
    let (result, mut conn) = bind.await.expect("the task");
    let error = result.expect_err("gone");
    assert_eq!(error.to_string(), format!("chat, or what it should work with, not found: {CHAT}"));
    assert_eq!(get(&mut conn).await.binding, ChatBinding::default());
}

#[tokio::test]
async fn the_owner_of_a_chat_of_a_deleted_organization_no_longer_finds_it() {
    let (_database, mut conn) = fixture().await;
    let permit = owner(&mut conn, 3).await;
    let chat = ChatId(u(306));
    let error = store::chats::get(&mut conn, &permit, chat).await.expect_err("not there");
    assert_eq!(error.to_string(), format!("chat not found: {chat}"));
    let expected = format!("chat, or what it should work with, not found: {chat}");
    let error = store::chats::bind(&mut conn, &permit, chat, binding(Some(303), None, None)).await;
    assert_eq!(error.expect_err("not there").to_string(), expected);
    let error = store::chats::bind_build_agent(&mut conn, &permit, chat, None, None).await;
    assert_eq!(error.expect_err("not there").to_string(), expected);
}
