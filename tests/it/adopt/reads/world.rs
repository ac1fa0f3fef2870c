//! The rows of a database, fetched plainly, and what some of them mean.

use std::collections::BTreeMap;

use coderdb::{
    model::{
        Daemon, JobId, JobStatus, Label, Organization, Tags, Template, User, UserId, Workspace, WorkspaceAgent,
        WorkspaceAgentId, WorkspaceBuild, WorkspaceBuildId,
    },
    sqlx::{self, AssertSqlSafe, PgConnection},
};
use serde_json::{Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use uuid::Uuid;

use crate::support::{
    model::{JobRow, Model},
    states::Classes,
};

const TABLES: &[&str] = &[
    "api_keys",
    "chats",
    "files",
    "group_members",
    "groups",
    "licenses",
    "organization_members",
    "organizations",
    "provisioner_daemons",
    "provisioner_job_logs",
    "provisioner_job_timings",
    "provisioner_keys",
    "site_configs",
    "template_version_presets",
    "template_versions",
    "templates",
    "user_links",
    "users",
    "workspace_agent_logs",
    "workspace_agents",
    "workspace_builds",
    "workspace_resources",
    "workspaces",
];

/// A row as JSON.
#[derive(Debug)]
pub(super) struct Row(Value);

impl Row {
    pub(super) fn get<'a>(&'a self, column: &str) -> Option<&'a Value> {
        let value = self.0.get(column).unwrap_or_else(|| panic!("no column {column} in {}", self.0));
        (!value.is_null()).then_some(value)
    }

    pub(super) fn text_or(&self, column: &str) -> Option<String> {
        self.get(column).map(|value| value.as_str().expect("a text").to_owned())
    }

    pub(super) fn text(&self, column: &str) -> String {
        self.text_or(column).expect(column)
    }

    pub(super) fn id_or(&self, column: &str) -> Option<Uuid> {
        self.text_or(column).map(|text| text.parse().expect("an id"))
    }

    pub(super) fn id(&self, column: &str) -> Uuid {
        self.id_or(column).expect(column)
    }

    pub(super) fn at_or(&self, column: &str) -> Option<OffsetDateTime> {
        self.text_or(column).map(|text| OffsetDateTime::parse(&text, &Rfc3339).expect("a time"))
    }

    pub(super) fn at(&self, column: &str) -> OffsetDateTime {
        self.at_or(column).expect(column)
    }

    pub(super) fn int(&self, column: &str) -> i64 {
        self.get(column).and_then(Value::as_i64).expect(column)
    }

    pub(super) fn small(&self, column: &str) -> i32 {
        self.int(column).try_into().expect("a small number")
    }

    pub(super) fn flag_or(&self, column: &str) -> Option<bool> {
        self.get(column).map(|value| value.as_bool().expect("a flag"))
    }

    pub(super) fn flag(&self, column: &str) -> bool {
        self.flag_or(column).expect(column)
    }

    pub(super) fn label<T: std::str::FromStr>(&self, column: &str) -> Label<T> {
        Label::of(self.text(column))
    }

    /// A deadline; the first moment of the calendar is none.
    fn deadline(&self, column: &str) -> Option<OffsetDateTime> {
        Some(self.at(column)).filter(|at| at.year() > 1)
    }
}

pub(super) struct World<'c> {
    classes: &'c Classes,
    rows: BTreeMap<&'static str, Vec<Row>>,
    pub(super) model: Model,
}

impl<'c> World<'c> {
    pub(super) async fn read(conn: &mut PgConnection, classes: &'c Classes) -> Self {
        sqlx::raw_sql("SET LOCAL timezone = 'UTC'").execute(&mut *conn).await.expect("a time zone");
        let mut rows = BTreeMap::new();
        for table in TABLES {
            let all = format!("SELECT to_jsonb(t) FROM {table} AS t");
            let all: Vec<Value> = sqlx::query_scalar(AssertSqlSafe(all))
                .fetch_all(&mut *conn)
                .await
                .unwrap_or_else(|e| panic!("{table}: {e}"));
            rows.insert(*table, all.into_iter().map(Row).collect());
        }
        Self { classes, rows, model: Model::read(conn).await }
    }

    /// Counts what a comparison is worth something by.
    pub(super) fn note(&self, sentence: &'static str, when: bool) {
        self.classes.note(sentence, when);
    }

    pub(super) fn all(&self, table: &str) -> impl Iterator<Item = &Row> + Clone {
        self.rows[table].iter()
    }

    pub(super) fn find(&self, table: &str, id: Uuid) -> Option<&Row> {
        self.all(table).find(|row| row.id("id") == id)
    }

    pub(super) fn ids(&self, table: &str) -> Vec<Uuid> {
        self.all(table).map(|row| row.id("id")).collect()
    }

    pub(super) fn jobs(&self) -> &[JobRow] {
        &self.model.provisioner_jobs
    }

    pub(super) fn job(&self, id: Uuid) -> Option<&JobRow> {
        self.jobs().iter().find(|job| job.id == id)
    }

    pub(super) fn status(&self, job: Uuid) -> &'static str {
        self.job(job).expect("the job of a build").status()
    }

    pub(super) fn is_member(&self, user: UserId, organization: Uuid) -> bool {
        self.all("organization_members")
            .any(|row| row.id("user_id") == user.0 && row.id("organization_id") == organization)
    }

    pub(super) fn is_organization(&self, id: Uuid) -> bool {
        self.find("organizations", id).is_some_and(|row| !row.flag("deleted"))
    }

    /// The workspace, where it is in the organization and of the only owner.
    pub(super) fn workspace(&self, id: Uuid, organization: Uuid, owner: Option<UserId>) -> Option<&Row> {
        self.find("workspaces", id).filter(|row| {
            row.id("organization_id") == organization && owner.is_none_or(|owner| owner.0 == row.id("owner_id"))
        })
    }

    /// The builds of a workspace, the newest first.
    pub(super) fn builds_of(&self, workspace: Uuid) -> Vec<&Row> {
        let mut builds: Vec<_> =
            self.all("workspace_builds").filter(|row| row.id("workspace_id") == workspace).collect();
        builds.sort_by_key(|row| std::cmp::Reverse(row.int("build_number")));
        builds
    }

    /// The agents of what a job has made, deleted ones, too.
    pub(super) fn agents_of(&self, job: Uuid) -> impl Iterator<Item = &Row> {
        self.all("workspace_agents").filter(move |agent| {
            self.find("workspace_resources", agent.id("resource_id")).expect("its resource").id("job_id") == job
        })
    }

    /// Whether the lists of the template let the user do this (domain: templates).
    pub(super) fn lists_let(&self, template: &Row, user: UserId, right: &str) -> bool {
        let organization = template.id("organization_id");
        let groups = self.all("group_members").filter(|row| row.id("user_id") == user.0).map(|row| row.id("group_id"));
        let lists = |acl: &str, id: Uuid| template.get(acl).and_then(|acl| acl.get(id.to_string())).cloned();
        let mut lists =
            groups.chain([organization]).filter_map(|group| lists("group_acl", group)).chain(lists("user_acl", user.0));
        let lets = |actions: Value| {
            actions.as_array().expect("actions").iter().any(|action| *action == json!(right) || *action == json!("*"))
        };
        self.is_member(user, organization) && lists.any(lets)
    }

    pub(super) fn build(&self, row: &Row) -> WorkspaceBuild {
        let job = self.job(row.id("job_id")).expect("the job of a build");
        let said = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        WorkspaceBuild {
            id: WorkspaceBuildId(row.id("id")),
            created_at: row.at("created_at"),
            updated_at: row.at("updated_at"),
            workspace_id: row.id("workspace_id").into(),
            template_version_id: row.id("template_version_id").into(),
            build_number: row.small("build_number"),
            transition: row.label("transition"),
            initiator_id: row.id("initiator_id").into(),
            job_id: JobId(job.id),
            job_status: job.status().parse().expect("a status"),
            job_error: said(&job.error),
            job_error_code: said(&job.error_code).map(Into::into),
            deadline: row.deadline("deadline"),
            max_deadline: row.deadline("max_deadline"),
            reason: row.label("reason"),
            daily_cost: row.small("daily_cost"),
            preset_id: row.id_or("template_version_preset_id").map(Into::into),
            has_external_agent: row.flag_or("has_external_agent"),
        }
    }

    pub(super) fn as_workspace(&self, row: &Row) -> Workspace {
        let owner = self.find("users", row.id("owner_id")).expect("its owner");
        Workspace {
            id: row.id("id").into(),
            name: row.text("name"),
            organization_id: row.id("organization_id").into(),
            owner_id: row.id("owner_id").into(),
            owner_name: owner.text("username"),
            template_id: row.id("template_id").into(),
            deleted: row.flag("deleted"),
            owner_deleted: owner.flag("deleted"),
        }
    }
}

pub(super) fn status(text: &str) -> JobStatus {
    text.parse().expect("a status")
}

pub(super) fn agent(row: &Row) -> WorkspaceAgent {
    WorkspaceAgent {
        id: WorkspaceAgentId(row.id("id")),
        parent_id: row.id_or("parent_id").map(WorkspaceAgentId),
        name: row.text("name"),
        created_at: row.at("created_at"),
        first_connected_at: row.at_or("first_connected_at"),
        last_connected_at: row.at_or("last_connected_at"),
        disconnected_at: row.at_or("disconnected_at"),
        connection_timeout_seconds: row.small("connection_timeout_seconds"),
        lifecycle_state: row.label("lifecycle_state"),
        started_at: row.at_or("started_at"),
        ready_at: row.at_or("ready_at"),
        operating_system: row.text("operating_system"),
        architecture: row.text("architecture"),
        expanded_directory: row.text("expanded_directory"),
        display_order: row.small("display_order"),
        logs_length: row.small("logs_length"),
        logs_overflowed: row.flag("logs_overflowed"),
    }
}

/// Whoever wrote tags that are no object has written none.
pub(super) fn tags(value: Option<&Value>) -> Tags {
    let pairs = value.and_then(Value::as_object).into_iter().flatten();
    pairs
        .map(|(key, value)| (key.clone(), value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned)))
        .collect()
}

pub(super) fn daemon(row: &Row) -> Daemon {
    let provisioners = row.get("provisioners").and_then(Value::as_array).expect("a list");
    Daemon {
        id: row.id("id").into(),
        created_at: row.at("created_at"),
        name: row.text("name"),
        provisioners: provisioners.iter().map(|one| Label::of(one.as_str().expect("a text").to_owned())).collect(),
        replica_id: row.id_or("replica_id"),
        tags: tags(row.get("tags")),
        last_seen_at: row.at_or("last_seen_at"),
        version: row.text("version"),
        api_version: row.text("api_version"),
        organization_id: row.id("organization_id").into(),
        key_id: row.id("key_id").into(),
    }
}

pub(super) fn organization(row: &Row) -> Organization {
    Organization {
        id: row.id("id").into(),
        name: row.text("name"),
        display_name: row.text("display_name"),
        is_default: row.flag("is_default"),
    }
}

pub(super) fn template(row: &Row) -> Template {
    Template {
        id: row.id("id").into(),
        name: row.text("name"),
        display_name: row.text("display_name"),
        organization_id: row.id("organization_id").into(),
    }
}

pub(super) fn user(row: &Row) -> User {
    User {
        id: row.id("id").into(),
        username: row.text("username"),
        name: row.text("name"),
        email: row.text("email"),
        status: row.label("status"),
        deleted: row.flag("deleted"),
        is_system: row.flag("is_system"),
    }
}
