//! Who and what there is: people, organizations, templates, workspaces with their builds and agents, chats, files, and the site.

use coderdb::{
    authz::{
        Actor, BuildWorkspaces, FindTemplates, LoadActors, ProvisionerStates, ReadChatSettings, ReadFiles,
        ReadLicenses, ReadOrganizations, ReadPrebuildsSettings, ReadTemplates, ReadUsers, ReadWorkspaces, System,
        TemplateRight, UseChats,
    },
    model::{
        AgentLifecycleState, AgentLog, AgentLogLine, Chat, ChatBinding, ChatId, File, FileId, License, LicenseId,
        LogSourceId, NameOrId, OrganizationId, PrebuildsSettings, TemplateId, TemplateRules, TemplateVersion,
        TemplateVersionId, UserId, UserRef, WorkspaceAgentId, WorkspaceBuildId, WorkspaceId,
    },
    sqlx::PgConnection,
    store::{self, Error},
};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::world::{Row, World, agent, organization, status, tags, template, user};
use crate::support::{self, random_database::NOW};

/// What is there; `None` for what is not found.
pub(super) fn found<T>(result: store::Result<T>) -> Option<T> {
    match result {
        Ok(found) => Some(found),
        Err(Error::NotFound { .. }) => None,
        Err(error) => panic!("{error}: {error:?}"),
    }
}

/// An id that nothing has.
const NOTHING: Uuid = Uuid::from_u128(1);

fn with_nothing(mut ids: Vec<Uuid>) -> Vec<Uuid> {
    ids.push(NOTHING);
    ids
}

/// Those who may sign in, as themselves.
pub(super) async fn people(conn: &mut PgConnection, world: &World<'_>) -> Vec<Actor> {
    let permit = LoadActors::check(&Actor::system(System::Authenticator)).expect("an authenticator");
    let mut people = Vec::new();
    for row in world.all("users") {
        let id = UserId(row.id("id"));
        let actor = found(store::actors::load(conn, &permit, id).await);
        assert_eq!(actor.is_some(), !row.flag("deleted") && row.text("status") != "suspended", "{row:?}");
        assert!(actor.as_ref().is_none_or(|actor| actor.user_id() == Some(id)));
        world.note("a user may not sign in", actor.is_none());
        people.extend(actor);
    }
    people
}

pub(super) async fn compare(conn: &mut PgConnection, world: &World<'_>, people: &[Actor]) {
    let operator = support::operator();
    identities(conn, world, people).await;
    site(conn, world).await;
    for who in people.iter().chain([&operator]) {
        files_and_chats(conn, world, who).await;
        for id in with_nothing(world.ids("organizations")) {
            templates(conn, world, who, id).await;
            if let Ok(permit) = ReadWorkspaces::check(who, OrganizationId(id)) {
                workspaces(conn, world, &permit).await;
            }
            to_be_built(conn, world, who, id).await;
        }
    }
}

async fn identities(conn: &mut PgConnection, world: &World<'_>, people: &[Actor]) {
    let operator = support::operator();
    let permit = ReadUsers::check(&operator).expect("a permit");
    for id in with_nothing(world.ids("users")) {
        let expected = world.find("users", id).map(user);
        assert_eq!(found(store::users::get(conn, &permit, UserId(id)).await), expected);
        let by_id = UserRef::Id(UserId(id));
        assert_eq!(found(store::users::resolve(conn, &permit, &UserRef::Me, Some(&by_id)).await), expected);
        let name = expected.as_ref().map_or_else(|| "nobody".to_owned(), |user| user.username.to_uppercase());
        let named = world
            .all("users")
            .find(|row| row.text("username").to_lowercase() == name.to_lowercase() && !row.flag("deleted"));
        assert_eq!(found(store::users::by_username(conn, &permit, &name).await), named.map(user), "{name}");
        assert_eq!(found(store::users::resolve(conn, &permit, &UserRef::Username(name), None).await), named.map(user));
    }
    for who in people {
        let permit = ReadUsers::check(who).expect("everybody reads oneself");
        for row in world.all("users") {
            let id = row.id("id");
            let is_seen = who.user_id().is_some_and(|user| user.0 == id || is_owner(world, user));
            assert_eq!(found(store::users::get(conn, &permit, UserId(id)).await), is_seen.then(|| user(row)));
        }
    }
    for who in people.iter().chain([&operator]) {
        let permit = ReadOrganizations::check(who);
        let reaches = |row: &&Row| {
            !row.flag("deleted")
                && who.user_id().is_none_or(|user| world.is_member(user, row.id("id")) || is_owner(world, user))
        };
        let mut all: Vec<_> = world.all("organizations").filter(reaches).collect();
        all.sort_by_key(|row| row.text("name").to_lowercase());
        let all: Vec<_> = all.into_iter().map(organization).collect();
        assert_eq!(store::organizations::list(conn, &permit).await.expect("a list"), all);
        let default = all.iter().find(|organization| organization.is_default).cloned();
        assert_eq!(found(store::organizations::default(conn, &permit).await), default);
        for id in with_nothing(world.ids("organizations")) {
            let expected = all.iter().find(|organization| organization.id.0 == id).cloned();
            assert_eq!(found(store::organizations::get(conn, &permit, OrganizationId(id)).await), expected);
            let by_id = NameOrId::Id(OrganizationId(id));
            assert_eq!(found(store::organizations::resolve(conn, &permit, &by_id).await), expected);
            let name =
                world.find("organizations", id).map_or_else(|| "no".to_owned(), |row| row.text("name").to_uppercase());
            let named = all.iter().find(|organization| organization.name.to_uppercase() == name).cloned();
            assert_eq!(found(store::organizations::by_name(conn, &permit, &name).await), named, "{name}");
            assert_eq!(found(store::organizations::resolve(conn, &permit, &NameOrId::Name(name)).await), named);
        }
    }
}

/// The owner of the site may do everything.
fn is_owner(world: &World<'_>, user: UserId) -> bool {
    let row = world.find("users", user.0).expect("a user");
    row.get("rbac_roles").and_then(Value::as_array).expect("roles").contains(&json!("owner"))
}

async fn site(conn: &mut PgConnection, world: &World<'_>) {
    let operator = support::operator();
    let permit = ReadLicenses::check(&operator).expect("a permit");
    let license = |row: &Row| License {
        id: LicenseId(row.small("id")),
        uploaded_at: row.at("uploaded_at"),
        jwt: row.text("jwt").into(),
        expires_at: row.at("exp"),
        uuid: row.id("uuid"),
    };
    let mut all: Vec<_> = world.all("licenses").map(license).collect();
    all.sort_by_key(|license| license.id);
    assert_eq!(store::licenses::list(conn, &permit).await.expect("a list"), all);
    for license in &all {
        assert_eq!(found(store::licenses::get(conn, &permit, license.id).await).as_ref(), Some(license));
    }
    assert_eq!(found(store::licenses::get(conn, &permit, LicenseId(-1)).await), None);
    world.note("a license expires now", all.iter().any(|license| license.expires_at == NOW));
    all.retain(|license| license.expires_at > NOW);
    assert_eq!(store::licenses::unexpired(conn, &permit, NOW).await.expect("a list"), all);

    let stored = |key: &str| world.all("site_configs").find(|row| row.text("key") == key).map(|row| row.text("value"));
    let deployment = stored("deployment_id").filter(|id| !id.is_empty());
    assert_eq!(store::settings::deployment_id(conn, &permit).await.expect("an id"), deployment);
    let settings: Value =
        stored("prebuilds_settings").map_or(json!({}), |text| serde_json::from_str(&text).expect("JSON"));
    let expected = PrebuildsSettings { reconciliation_paused: settings["reconciliation_paused"] == json!(true) };
    world.note("the reconciler is paused", expected.reconciliation_paused);
    let permit = ReadPrebuildsSettings::check(&operator).expect("a permit");
    assert_eq!(store::settings::prebuilds(conn, &permit).await.expect("settings"), expected);
    let permit = ReadChatSettings::check(&operator).expect("a permit");
    let expected = stored("agents_workspace_ttl").unwrap_or_default();
    assert_eq!(store::settings::chat_workspace_ttl(conn, &permit).await.expect("a time"), expected);
}

pub(super) fn file(row: &Row) -> File {
    let data = row.text("data");
    let digits = data.strip_prefix("\\x").expect("bytes");
    File {
        id: FileId(row.id("id")),
        hash: row.text("hash"),
        created_at: row.at("created_at"),
        created_by: row.id("created_by").into(),
        mimetype: row.text("mimetype"),
        data: bytes(digits),
    }
}

fn bytes(digits: &str) -> Vec<u8> {
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).expect("a byte")).collect()
}

pub(super) fn state(row: &Row) -> Option<Vec<u8>> {
    row.text_or("provisioner_state").map(|text| bytes(text.strip_prefix("\\x").expect("bytes")))
}

async fn files_and_chats(conn: &mut PgConnection, world: &World<'_>, who: &Actor) {
    if let Ok(permit) = ReadFiles::check(who) {
        for id in with_nothing(world.ids("files")) {
            let row = world
                .find("files", id)
                .filter(|row| permit.owner().is_none_or(|owner| owner.0 == row.id("created_by")));
            world.note("a file is somebody's own", row.is_some() && permit.owner().is_some());
            assert_eq!(found(store::files::get(conn, &permit, FileId(id)).await), row.map(file));
        }
    }
    let chats = Actor::system(System::ChatDaemon);
    for permit in [who, &chats].into_iter().filter_map(|who| UseChats::check(who).ok()) {
        for id in with_nothing(world.ids("chats")) {
            let row = world.find("chats", id).filter(|row| {
                let organization = row.id("organization_id");
                permit.owner().is_none_or(|owner| {
                    owner.0 == row.id("owner_id")
                        && world.is_member(owner, organization)
                        && world.is_organization(organization)
                })
            });
            let expected = row.map(|row| Chat {
                id: ChatId(id),
                owner_id: row.id("owner_id").into(),
                organization_id: row.id("organization_id").into(),
                binding: ChatBinding {
                    workspace_id: row.id_or("workspace_id").map(WorkspaceId),
                    build_id: row.id_or("build_id").map(WorkspaceBuildId),
                    agent_id: row.id_or("agent_id").map(WorkspaceAgentId),
                },
                updated_at: row.at("updated_at"),
            });
            world.note("a chat is somebody's own", expected.is_some() && permit.owner().is_some());
            world.note("a chat is nobody else's", expected.is_none() && world.find("chats", id).is_some());
            assert_eq!(found(store::chats::get(conn, &permit, ChatId(id)).await), expected);
            assert_eq!(found(store::chats::get_with_lock(conn, &permit, ChatId(id)).await), expected);
        }
    }
}

fn row_is_there(world: &World<'_>, id: Uuid) -> bool {
    world.find("templates", id).is_some_and(|row| world.is_organization(row.id("organization_id")))
}

async fn templates(conn: &mut PgConnection, world: &World<'_>, who: &Actor, home: Uuid) {
    for (right, word) in [(TemplateRight::Read, "read"), (TemplateRight::Use, "use")] {
        let find = FindTemplates::check(who, right);
        for id in with_nothing(world.ids("templates")) {
            let all = who.user_id().is_none_or(|user| is_owner(world, user));
            let row = world.find("templates", id).filter(|row| {
                world.is_organization(row.id("organization_id"))
                    && (all && (right == TemplateRight::Read || who.user_id().is_some())
                        || who.user_id().is_some_and(|user| world.lists_let(row, user, word)))
            });
            let expected = row.map(|row| TemplateRules {
                template: template(row),
                deleted: row.flag("deleted"),
                deprecated: Some(row.text("deprecated")).filter(|why| !why.is_empty()),
                active_version_id: row.id("active_version_id").into(),
                default_ttl: u64::try_from(row.int("default_ttl"))
                    .ok()
                    .filter(|ttl| *ttl > 0)
                    .map(std::time::Duration::from_nanos),
                allow_user_autostop: row.flag("allow_user_autostop"),
                require_active_version: row.flag("require_active_version"),
            });
            world.note("a list lets somebody use a template", word == "use" && expected.is_some() && !all);
            world.note(
                "no list lets somebody read a template",
                word == "read" && expected.is_none() && !all && row_is_there(world, id),
            );
            assert_eq!(found(store::templates::find(conn, &find, TemplateId(id)).await), expected, "{who:?}");
        }
        let Ok(permit) = ReadTemplates::check(who, OrganizationId(home), right) else { continue };
        let lets = |row: &Row| permit.user().is_none_or(|user| world.lists_let(row, user, word));
        let reaches = |row: &&Row| row.id("organization_id") == home && lets(row);
        for id in with_nothing(world.ids("templates")) {
            let expected = world.find("templates", id).filter(reaches).map(template);
            assert_eq!(found(store::templates::get(conn, &permit, TemplateId(id)).await), expected, "{permit:?}");
            let by_id = NameOrId::Id(TemplateId(id));
            assert_eq!(found(store::templates::resolve(conn, &permit, &by_id).await), expected);
            let name =
                world.find("templates", id).map_or_else(|| "no".to_owned(), |row| row.text("name").to_uppercase());
            let named = world
                .all("templates")
                .find(|row| row.text("name").to_uppercase() == name && !row.flag("deleted") && reaches(row))
                .map(template);
            assert_eq!(found(store::templates::by_name(conn, &permit, &name).await), named);
            for version in with_nothing(world.ids("template_versions")) {
                let row = world.find("template_versions", version).filter(|row| {
                    row.id_or("template_id") == Some(id)
                        && row.id("organization_id") == home
                        && world.find("templates", id).is_some_and(lets)
                });
                let expected = row.and_then(|row| {
                    let job = world.job(row.id("job_id"))?;
                    Some(TemplateVersion {
                        id: TemplateVersionId(version),
                        name: row.text("name"),
                        archived: row.flag("archived"),
                        job_status: status(job.status()),
                        tags: tags(Some(&job.tags)),
                        has_external_agent: row.flag_or("has_external_agent"),
                    })
                });
                world.note("a list lets somebody read a version", permit.user().is_some() && expected.is_some());
                let actual = store::templates::version(conn, &permit, TemplateId(id), TemplateVersionId(version)).await;
                assert_eq!(found(actual), expected, "{permit:?}");
            }
        }
    }
}

async fn workspaces(conn: &mut PgConnection, world: &World<'_>, permit: &ReadWorkspaces) {
    let (home, owner) = (permit.organization().0, permit.owner());
    for id in with_nothing(world.ids("workspaces")) {
        let row = world.workspace(id, home, owner);
        let actual = found(store::workspaces::get(conn, permit, WorkspaceId(id)).await);
        world.note("a workspace is somebody's own", row.is_some() && owner.is_some());
        assert_eq!(actual, row.map(|row| world.as_workspace(row)));
        let name = world.find("workspaces", id).map_or_else(|| "no".to_owned(), |row| row.text("name").to_uppercase());
        let named = world.all("workspaces").filter(|row| {
            row.text("name").to_uppercase() == name
                && !row.flag("deleted")
                && world.workspace(row.id("id"), home, owner).is_some()
        });
        let mut named: Vec<_> = named.map(|row| world.as_workspace(row)).collect();
        named.sort_by(|a, b| (&a.owner_name, a.id).cmp(&(&b.owner_name, b.id)));
        assert_eq!(store::workspaces::by_name(conn, permit, &name).await.expect("workspaces"), named);

        let builds = row.map_or_else(Vec::new, |_| world.builds_of(id));
        world.note("a workspace has several builds", builds.len() > 1);
        let latest = builds.first().map(|row| world.build(row));
        assert_eq!(store::builds::latest(conn, permit, WorkspaceId(id)).await.expect("a build"), latest);
        for number in builds.iter().map(|row| row.small("build_number")).chain([i32::MIN]) {
            let expected = builds.iter().find(|row| row.small("build_number") == number).map(|row| world.build(row));
            assert_eq!(found(store::builds::by_number(conn, permit, WorkspaceId(id), number).await), expected);
        }
        let mut agents: Vec<_> = builds
            .first()
            .into_iter()
            .flat_map(|row| world.agents_of(row.id("job_id")))
            .filter(|row| !row.flag("deleted"))
            .map(agent)
            .collect();
        agents.sort_by_key(|agent| (agent.display_order, agent.name.to_lowercase(), agent.id));
        world.note("a newest build has several agents", agents.len() > 1);
        let mut actual = store::agents::in_latest_build(conn, permit, WorkspaceId(id)).await.expect("agents");
        assert!(actual.is_sorted_by_key(|agent| agent.display_order));
        // The order of the texts is that of the database.
        actual.sort_by_key(|agent| (agent.display_order, agent.name.to_lowercase(), agent.id));
        assert_eq!(actual, agents);
    }
    for row in world.all("workspace_builds") {
        let is_there = world.workspace(row.id("workspace_id"), home, owner).is_some();
        let expected = is_there.then(|| world.build(row));
        assert_eq!(found(store::builds::get(conn, permit, WorkspaceBuildId(row.id("id"))).await), expected);
        assert_eq!(found(store::builds::by_job(conn, permit, row.id("job_id").into()).await), expected);
    }
    for row in world.all("workspace_agents") {
        let id = row.id("id");
        let job = world.find("workspace_resources", row.id("resource_id")).expect("its resource").id("job_id");
        let build = world.all("workspace_builds").find(|build| build.id("job_id") == job);
        let is_there = build.is_some_and(|build| world.workspace(build.id("workspace_id"), home, owner).is_some());
        let state = AgentLifecycleState {
            state: row.label("lifecycle_state"),
            started_at: row.at_or("started_at"),
            ready_at: row.at_or("ready_at"),
        };
        assert_eq!(
            found(store::agents::lifecycle(conn, permit, WorkspaceAgentId(id)).await),
            is_there.then_some(state)
        );
        let lines = world.all("workspace_agent_logs").filter(|line| line.id("agent_id") == id);
        let mut lines: Vec<_> = lines
            .map(|line| AgentLog {
                id: line.int("id"),
                created_at: line.at("created_at"),
                line: AgentLogLine { level: line.label("level"), output: line.text("output") },
                source: LogSourceId(line.id("log_source_id")),
            })
            .collect();
        lines.sort_by_key(|line| line.id);
        for after in lines.iter().map(|line| line.id).chain([0]).collect::<Vec<_>>() {
            let later: Vec<_> = lines.iter().filter(|line| line.id > after).cloned().collect();
            let actual = found(store::agents::logs_after(conn, permit, WorkspaceAgentId(id), after).await);
            world.note("an agent has lines behind another one", after > 0 && is_there && !later.is_empty());
            assert_eq!(actual, is_there.then_some(later));
        }
    }
}

/// What only those read who build, or who may know what Terraform knows.
async fn to_be_built(conn: &mut PgConnection, world: &World<'_>, who: &Actor, home: Uuid) {
    if let Ok(permit) = BuildWorkspaces::check(who, OrganizationId(home)) {
        for id in with_nothing(world.ids("workspaces")) {
            let expected = world.workspace(id, home, permit.owner()).map(|row| world.as_workspace(row));
            assert_eq!(found(store::workspaces::get_with_lock(conn, &permit, WorkspaceId(id)).await), expected);
        }
        for row in world.all("workspace_builds") {
            let is_there = world.workspace(row.id("workspace_id"), home, permit.owner()).is_some();
            let input = &world.job(row.id("job_id")).expect("its job").input;
            let mut options = input.as_object().cloned().unwrap_or_else(Map::new);
            options.retain(|key, _| key != "workspace_build_id" && key != "template_version_id");
            let actual = found(store::builds::options(conn, &permit, WorkspaceBuildId(row.id("id"))).await);
            world.note("a build was given something", is_there && !options.is_empty());
            assert_eq!(actual, is_there.then_some(options));
        }
    }
    if let Ok(permit) = ProvisionerStates::check(who, OrganizationId(home)) {
        for row in world.all("workspace_builds") {
            let is_there = world.workspace(row.id("workspace_id"), home, None).is_some();
            let actual = found(store::builds::state(conn, &permit, WorkspaceBuildId(row.id("id"))).await);
            world.note("a build has left a state", is_there && state(row).is_some());
            assert_eq!(actual, is_there.then(|| state(row)));
        }
    }
}
