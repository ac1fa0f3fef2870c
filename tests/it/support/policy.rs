//! Who may do what, by hand: a line per operation, and everybody who asks. It shares nothing with `src/authz`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use coderdb::{
    authz::{Actor, LoadActors, System},
    model::UserId,
    sqlx::{self, AssertSqlSafe, PgConnection},
    store,
};
use time::{OffsetDateTime, macros::datetime};
use uuid::Uuid;

/// One line per operation: its scopes, then who may: roles of the site, roles in the organization, `@jobs` for a
/// custom one there that reads jobs, `member` for every member of it, `self` for the user (in quota, as a member), and parts of the product.
///
/// The scopes are: `site`, nothing to choose; `anywhere`, the same, and a role in any organization does; `list`, what an organization has; `thing`, one thing of an organization,
/// asked for with a permit for any; `found`, the same, but what is not there is left out; `owned`, the same as `thing`
/// or `found`, but `member` reaches one's own only; `user`, one user; `quota`, one user in an organization;
/// `organization`, one organization; `anything`, a thing, with a permit for no organization in particular; `own`, a thing that only its owner has.
///
/// Where the reconciler reaches only what the prebuilds user owns, it is left out: nothing is that user's here.
const POLICY: &str = "
actors::load                     user         : authenticator chats operator
agents::append_logs              own          : agent
agents::in_latest_build          owned-found  : owner template-admin auditor @admin @template-admin @auditor member daemon reaper chats reconciler operator
agents::lifecycle                owned        : owner template-admin auditor @admin @template-admin @auditor member daemon reaper chats reconciler operator
agents::logs_after               owned        : owner template-admin auditor @admin @template-admin @auditor member daemon reaper chats reconciler operator
agents::update_logs_overflowed   own          : agent
api_keys::create                 site         : owner operator
api_keys::list                   site         : owner operator
api_keys::revoke                 site         : owner operator
api_keys::session                site         : authenticator
api_keys::touch                  site         : authenticator
builds::by_job                   owned        : owner template-admin auditor @admin @template-admin @auditor member daemon reaper chats reconciler operator
builds::by_number                owned        : owner template-admin auditor @admin @template-admin @auditor member daemon reaper chats reconciler operator
builds::create                   owned        : owner @admin member
builds::get                      owned        : owner template-admin auditor @admin @template-admin @auditor member daemon reaper chats reconciler operator
builds::latest                   owned-found  : owner template-admin auditor @admin @template-admin @auditor member daemon reaper chats reconciler operator
builds::options                  owned        : owner @admin member
builds::state                    thing        : owner template-admin @admin @template-admin
builds::state_of_job             thing        : daemon
builds::update_deadline          owned        : owner @admin member
builds::update_state             thing        : owner template-admin @admin @template-admin
changes::active                  site         : watcher
changes::announce                site         : watcher
changes::of_jobs                 site         : watcher
chats::bind                      own          : self chats
chats::bind_build_agent          own          : self chats
chats::get                       own          : self chats
chats::get_with_lock             own          : self chats
daemons::delete_old              site         : reaper operator
daemons::eligible                found        : owner @admin @template-admin @jobs reconciler operator
daemons::heartbeat               thing        : daemon
daemons::list                    list         : owner @admin @template-admin @jobs reconciler operator
daemons::upsert                  thing        : daemon
files::get                       own          : owner template-admin self operator
files::insert                    anywhere     : owner template-admin @admin @template-admin
files::of_job                    thing        : daemon
job_logs::after                  owned        : owner @admin @template-admin @jobs member operator
job_logs::append                 thing        : daemon
job_logs::prune                  found        : owner operator
job_timings::insert              thing        : daemon
job_timings::list                owned        : owner @admin @template-admin @jobs member operator
jobs::acquire                    list         : daemon
jobs::acquire_batch              list         : daemon
jobs::by_ids                     found        : owner @admin @template-admin @jobs daemon reaper reconciler operator
jobs::by_ids_with_queue_position found        : owner @admin @template-admin @jobs daemon reaper reconciler operator
jobs::cancel                     owned        : owner @admin member operator
jobs::cancel_batch               owned        : owner @admin member operator
jobs::complete                   thing        : daemon
jobs::count_by_tags              list         : owner @admin @template-admin @jobs daemon reaper reconciler operator
jobs::created_after              list         : owner @admin @template-admin @jobs daemon reaper reconciler operator
jobs::fail                       thing        : daemon
jobs::fail_insufficient_quota    thing        : daemon
jobs::find_of_build              anything     : owner template-admin user-admin auditor member authenticator daemon reaper chats reconciler operator
jobs::find_of_dry_run            anything     : owner template-admin user-admin auditor member authenticator daemon reaper chats reconciler operator
jobs::find_of_version            anything     : owner template-admin user-admin auditor member authenticator daemon reaper chats reconciler operator
jobs::get                        thing        : owner @admin @template-admin @jobs daemon reaper reconciler operator
jobs::get_for_update_skip_locked found        : owner @admin daemon reaper reconciler operator
jobs::get_with_lock              thing        : owner @admin daemon reaper reconciler operator
jobs::heartbeat                  thing        : daemon
jobs::ids                        list         : owner @admin @template-admin @jobs daemon reaper reconciler operator
jobs::insert                     thing        : owner member
jobs::list                       list         : owner @admin @template-admin @jobs daemon reaper reconciler operator
jobs::prune                      list         : owner operator
jobs::prune_candidates           list         : owner operator
jobs::dead_rows                  site         : owner operator
jobs::reap                       site         : reaper
jobs::reap_candidates            site         : reaper
jobs::would_cancel_batch         owned        : owner @admin member operator
licenses::delete                 site         : owner operator
licenses::get                    site         : owner entitlements operator
licenses::insert                 site         : owner operator
licenses::list                   site         : owner entitlements operator
licenses::refresh                site         : owner operator
licenses::unexpired              site         : owner entitlements operator
organizations::by_name           organization : owner template-admin user-admin auditor member authenticator daemon reaper chats reconciler operator
organizations::default           default      : owner template-admin user-admin auditor member authenticator daemon reaper chats reconciler operator
organizations::get               organization : owner template-admin user-admin auditor member authenticator daemon reaper chats reconciler operator
organizations::list              organization : owner template-admin user-admin auditor member authenticator daemon reaper chats reconciler operator
organizations::resolve           organization : owner template-admin user-admin auditor member authenticator daemon reaper chats reconciler operator
prebuilds::at_failure_limit      list         : reconciler operator
prebuilds::backoff               list         : reconciler operator
prebuilds::cancel_stale_pending  list         : reconciler operator
prebuilds::count_in_progress     list         : reconciler operator
prebuilds::count_stale_pending   list         : reconciler operator
prebuilds::ensure_organization   organization : reconciler operator
prebuilds::metrics               list         : reconciler operator
prebuilds::organizations         site         : reconciler operator
prebuilds::presets               list         : reconciler operator
prebuilds::running               list         : reconciler operator
prebuilds::set_status            thing        : reconciler operator
prebuilds::status                list         : reconciler operator
queue::history                   list         : owner @admin @template-admin @jobs daemon reaper reconciler operator
queue::shares                    list         : owner @admin @template-admin @jobs daemon reaper reconciler operator
queue::snapshot                  site         : watcher reconciler operator
quota::by_group                  list         : owner user-admin auditor @admin @user-admin @auditor operator
quota::by_template               list         : owner user-admin auditor @admin @user-admin @auditor operator
quota::check                     thing        : owner user-admin auditor @admin @user-admin @auditor operator
quota::commit                    thing        : daemon
quota::explain                   quota        : owner user-admin auditor @admin @user-admin @auditor self operator
quota::list                      list         : owner user-admin auditor @admin @user-admin @auditor operator
quota::usage                     quota        : owner user-admin auditor @admin @user-admin @auditor self operator
settings::chat_workspace_ttl     site         : owner auditor chats operator
settings::deployment_id          site         : owner entitlements operator
settings::prebuilds              site         : owner auditor reconciler operator
settings::set_prebuilds          site         : owner operator
templates::by_name               thing        : owner template-admin auditor member daemon chats reconciler operator
templates::find                  organization : owner template-admin auditor member daemon chats reconciler operator
templates::get                   thing        : owner template-admin auditor member daemon chats reconciler operator
templates::resolve               thing        : owner template-admin auditor member daemon chats reconciler operator
templates::version               thing        : owner template-admin auditor member daemon chats reconciler operator
users::by_username               user         : owner template-admin user-admin auditor @admin @user-admin @auditor self authenticator daemon chats operator
users::get                       user         : owner template-admin user-admin auditor @admin @user-admin @auditor self authenticator daemon chats operator
users::resolve                   user         : owner template-admin user-admin auditor @admin @user-admin @auditor self authenticator daemon chats operator
workspaces::by_name              owned-found  : owner template-admin auditor @admin @template-admin @auditor member daemon reaper chats reconciler operator
workspaces::create               quota        : owner @admin self
workspaces::get                  owned        : owner template-admin auditor @admin @template-admin @auditor member daemon reaper chats reconciler operator
workspaces::get_with_lock        owned        : owner @admin member
";

/// What has happened to every job before some operations can do anything: its daemon took it, it builds a prebuilt
/// workspace of an old version, of the active one, or has built one.
const BEFORE: &[(&str, &[&str])] = &[
    (
        "SELECT take()",
        &[
            "files::of_job",
            "builds::state_of_job",
            "job_logs::append",
            "job_timings::insert",
            "jobs::complete",
            "jobs::fail",
            "jobs::fail_insufficient_quota",
            "jobs::heartbeat",
            "quota::commit",
        ],
    ),
    ("SELECT take(), complete()", &["queue::history", "job_logs::prune"]),
    ("SELECT take(), complete(), let_go()", &["jobs::prune", "jobs::prune_candidates"]),
    ("SELECT import()", &["jobs::find_of_version"]),
    ("SELECT dry_run()", &["jobs::find_of_dry_run"]),
    ("SELECT prebuild()", &["prebuilds::cancel_stale_pending", "prebuilds::count_stale_pending", "prebuilds::metrics"]),
    ("SELECT prebuild(), activate()", &["prebuilds::count_in_progress", "prebuilds::status"]),
    ("SELECT prebuild(), activate(), take(), complete()", &["prebuilds::running"]),
    (
        "SELECT prebuild(), activate(), take(), complete(), fail()",
        &["prebuilds::at_failure_limit", "prebuilds::backoff"],
    ),
];

/// The steps in [`BEFORE`], and what belongs to the things of the fixture: a preset, a state, a log line, a timing.
pub const STEPS: &str = "
CREATE FUNCTION take() RETURNS void LANGUAGE sql AS $$
    UPDATE provisioner_jobs AS j SET started_at = moment(), worker_id = d.id
    FROM provisioner_daemons AS d WHERE d.organization_id = j.organization_id
$$;
CREATE FUNCTION complete() RETURNS void LANGUAGE sql AS $$ UPDATE provisioner_jobs SET completed_at = moment() $$;
CREATE FUNCTION fail() RETURNS void LANGUAGE sql AS $$ UPDATE provisioner_jobs SET error = 'failed' $$;
CREATE FUNCTION let_go() RETURNS void LANGUAGE sql AS $$
    DELETE FROM workspace_builds;
    UPDATE template_versions SET job_id = id;
$$;
CREATE FUNCTION import() RETURNS void LANGUAGE sql AS $$
    UPDATE provisioner_jobs SET type = 'template_version_import'
$$;
CREATE FUNCTION dry_run() RETURNS void LANGUAGE sql AS $$
    UPDATE provisioner_jobs AS j
    SET type = 'template_version_dry_run', input = jsonb_build_object('template_version_id', v.id)
    FROM template_versions AS v WHERE v.job_id = j.id
$$;
CREATE FUNCTION prebuild() RETURNS void LANGUAGE sql AS $$
    UPDATE workspaces SET owner_id = 'c42fdf75-3097-471c-8c33-fb52454d81c0';
    UPDATE workspace_builds AS b
    SET initiator_id = 'c42fdf75-3097-471c-8c33-fb52454d81c0', template_version_preset_id = p.id
    FROM template_version_presets AS p WHERE p.template_version_id = b.template_version_id
$$;
CREATE FUNCTION activate() RETURNS void LANGUAGE sql AS $$
    UPDATE templates AS t SET active_version_id = v.id FROM template_versions AS v WHERE v.template_id = t.id
$$;
INSERT INTO template_version_presets (id, template_version_id, name, desired_instances)
SELECT u(n * 100 + 11), u(n * 100 + 7), 'preset', 1 FROM generate_series(1, 3) AS n;
UPDATE workspace_builds SET provisioner_state = 'state';
INSERT INTO files (id, hash, created_at, created_by, mimetype, data)
SELECT u(n * 100 + 12), n, moment(), u(n), 'application/x-tar', 'source' FROM generate_series(1, 3) AS n;
UPDATE provisioner_jobs AS j SET file_id = f.id FROM files AS f WHERE f.created_by = j.initiator_id;
INSERT INTO provisioner_job_logs (job_id, created_at, source, level, stage, output)
SELECT id, created_at, 'provisioner', 'info', '', '' FROM provisioner_jobs;
INSERT INTO workspace_agent_logs (agent_id, created_at, output) SELECT id, created_at, '' FROM workspace_agents;
INSERT INTO provisioner_job_timings (job_id, started_at, ended_at, stage, source, action, resource)
SELECT id, created_at, created_at, 'plan', '', '', '' FROM provisioner_jobs;
INSERT INTO api_keys (
    id, hashed_secret, user_id, last_used, expires_at, created_at, updated_at, login_type, token_name, scopes, allow_list
) VALUES (
    'abcdefghij', sha256('0123456789012345678901'), u(1), moment() - interval '2 hours', moment() + interval '1 hour',
    moment(), moment(), 'token', 'token', '{coder:all}', '{*:*}'
);
INSERT INTO custom_roles (name, display_name, organization_id, org_permissions) VALUES
    ('job-reader', '', u(1), '[{\"negate\": false, \"resource_type\": \"provisioner_jobs\", \"action\": \"read\"}]'),
    ('no-jobs', '', u(1), '[{\"negate\": true, \"resource_type\": \"provisioner_jobs\", \"action\": \"*\"}]');
";

/// Number, stored roles of the site, stored roles in organizations; and what these come to, there and there.
pub type User = (u32, &'static [&'static str], &'static [(u32, &'static [&'static str])], &'static str, &'static str);

/// Users 1, 2 and 3 are plain members of organizations 1, 2 and 3, of which 3 is deleted, and own what is in them. For
/// the others: the stored roles, and what they come to. `1:a,b` are roles in organization 1.
pub const USERS: &[User] = &[
    (1, &[], &[(1, &[])], "", "1:"),
    (2, &[], &[(2, &[])], "", "2:"),
    (3, &[], &[(3, &[])], "", ""),
    (10, &[], &[], "", ""),
    (11, &[], &[(1, &[]), (2, &[])], "", "1: 2:"),
    (12, &[], &[(1, &["organization-admin"])], "", "1:admin"),
    (13, &[], &[(1, &["organization-template-admin"])], "", "1:template-admin"),
    (14, &[], &[(1, &["organization-user-admin"])], "", "1:user-admin"),
    (15, &[], &[(1, &["organization-auditor"])], "", "1:auditor"),
    (16, &[], &[(2, &["organization-admin"])], "", "2:admin"),
    (17, &[], &[(2, &["organization-template-admin"])], "", "2:template-admin"),
    (18, &[], &[(2, &["organization-user-admin"])], "", "2:user-admin"),
    (19, &[], &[(2, &["organization-auditor"])], "", "2:auditor"),
    (20, &[], &[(1, &["organization-auditor"]), (2, &["organization-user-admin"])], "", "1:auditor 2:user-admin"),
    // Roles of a deleted organization are gone with it.
    (21, &[], &[(3, &["organization-admin"]), (1, &[])], "", "1:"),
    // The long form, of this organization and of another one.
    (22, &[], &[(1, &["organization-admin:00000000-0000-0000-0000-000000000001"])], "", "1:admin"),
    (23, &[], &[(1, &["organization-admin:00000000-0000-0000-0000-000000000002"])], "", "1:"),
    (24, &[], &[(1, &["organization-auditor:", "organization-admin:x"])], "", "1:"),
    // Roles that are not built in, or not spelled so, or not of this kind.
    (25, &[], &[(1, &["superuser", "Organization-Admin", "organization-admin ", "", "owner", "auditor"])], "", "1:"),
    // Custom roles; a negation wins, but not over a role of the site. A role of another organization gives nothing.
    (26, &[], &[(1, &["job-reader"])], "", "1:jobs"),
    (27, &[], &[(1, &["job-reader:00000000-0000-0000-0000-000000000001"])], "", "1:jobs"),
    (28, &[], &[(1, &["job-reader:00000000-0000-0000-0000-000000000002"]), (2, &["job-reader"])], "", "1: 2:"),
    (29, &[], &[(1, &["job-reader", "no-jobs"])], "", "1:"),
    (39, &["owner"], &[(1, &["no-jobs"])], "owner", "1:"),
    (30, &["owner"], &[], "owner", ""),
    (31, &["template-admin"], &[], "template-admin", ""),
    (32, &["user-admin"], &[], "user-admin", ""),
    (33, &["auditor"], &[], "auditor", ""),
    (34, &["template-admin", "user-admin"], &[], "template-admin user-admin", ""),
    (35, &["user-admin"], &[(1, &["organization-template-admin"])], "user-admin", "1:template-admin"),
    (36, &["superuser", "Owner", " owner", "", "organization-admin"], &[], "", ""),
    (37, &["owner:00000000-0000-0000-0000-000000000001", "auditor:"], &[(1, &[])], "", "1:"),
    // Dormant, and may do what the roles say.
    (38, &["owner"], &[], "owner", ""),
];

pub const SYSTEM: &[(System, &str)] = &[
    (System::Authenticator, "authenticator"),
    (System::ProvisionerDaemon, "daemon"),
    (System::WorkspaceAgent, "agent"),
    (System::Reaper, "reaper"),
    (System::ChatDaemon, "chats"),
    (System::PrebuildReconciler, "reconciler"),
    (System::Entitlements, "entitlements"),
    (System::Watcher, "watcher"),
    (System::Operator, "operator"),
];

/// Neither an organization nor a user has this number, and nothing is in it.
pub const MISSING: u32 = 9;

pub const NOW: OffsetDateTime = datetime!(2026-05-07 12:00 UTC);

pub fn u(n: u32) -> Uuid {
    format!("{n:032}").parse().expect("an id")
}

/// An actor, and by hand what it is.
pub struct Somebody {
    pub name: String,
    pub actor: Actor,
    pub user: Option<u32>,
    pub site: BTreeSet<String>,
    pub organizations: BTreeMap<u32, BTreeSet<String>>,
    pub system: Option<&'static str>,
}

/// What is asked for: with a permit for an organization, something that is in `home`, or of a user.
#[derive(Debug, Clone, Copy)]
pub struct At {
    pub organization: u32,
    pub home: u32,
    pub user: u32,
}

/// So many rows, or "not found", whether denied or not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    Rows(usize),
    NotFound,
}

pub struct Line {
    pub operation: &'static str,
    pub scopes: &'static str,
    pub may: BTreeSet<&'static str>,
}

pub fn policy() -> Vec<Line> {
    lines(POLICY)
}

/// A table of the same form.
pub fn lines(table: &'static str) -> Vec<Line> {
    let line = |line: &'static str| {
        let (left, may) = line.split_once(':').and_then(|_| line.split_once(" : ")).expect("a line");
        let mut left = left.split_whitespace();
        let (operation, scopes) = (left.next().expect("an operation"), left.next().expect("scopes"));
        Line { operation, scopes, may: may.split_whitespace().collect() }
    };
    table.lines().filter(|line| !line.is_empty()).map(line).collect()
}

impl Line {
    /// What has to have happened.
    pub fn before(&self) -> &'static str {
        BEFORE.iter().find(|(_, operations)| operations.contains(&self.operation)).map_or("", |(before, _)| before)
    }

    /// Everything that the operation is asked for, as this actor.
    pub fn cells(&self, who: &Somebody) -> Vec<At> {
        let organizations = [1, 2, 3, MISSING];
        let users: BTreeSet<u32> = [1, 2, 50, 51, MISSING].into_iter().chain(who.user).collect();
        let at = |organization, home, user| At { organization, home, user };
        let squared = |second: &[u32]| -> Vec<(u32, u32)> {
            organizations.iter().flat_map(|one| second.iter().map(move |two| (*one, *two))).collect()
        };
        match self.scopes {
            "site" | "anywhere" => vec![at(MISSING, MISSING, MISSING)],
            "default" => vec![at(1, 1, MISSING)],
            "list" | "organization" => organizations.iter().map(|o| at(*o, *o, MISSING)).collect(),
            "own" | "anything" => organizations.iter().map(|home| at(*home, *home, *home)).collect(),
            "thing" | "found" | "owned" | "owned-found" => {
                squared(&organizations).into_iter().map(|(o, home)| at(o, home, home)).collect()
            }
            "user" => users.into_iter().map(|user| at(MISSING, MISSING, user)).collect(),
            "quota" => squared(&users.into_iter().collect::<Vec<_>>()).into_iter().map(|(o, u)| at(o, o, u)).collect(),
            other => panic!("{other} is not a kind of scope"),
        }
    }

    /// Whether the actor holds one of the roles that reach all that is in the organization.
    pub fn reaches_all(&self, who: &Somebody, at: At) -> bool {
        let site = who.site.iter().any(|role| self.may.contains(role.as_str()));
        let system = who.system.is_some_and(|system| self.may.contains(system));
        let here = |organization: &u32| matches!(self.scopes, "anywhere" | "user") || *organization == at.organization;
        let roles =
            who.organizations.iter().filter(|(organization, _)| here(organization)).flat_map(|(_, roles)| roles);
        site || system || roles.into_iter().any(|role| self.may.contains(format!("@{role}").as_str()))
    }

    /// Whether the actor may ask at all, as far as it can know without looking.
    pub fn may_ask(&self, who: &Somebody, at: At) -> bool {
        let member = who.organizations.contains_key(&at.organization);
        let own = self.may.contains("self") && who.user == Some(at.user);
        self.reaches_all(who, at)
            || (member && self.may.contains("member"))
            || match self.scopes {
                "quota" => own && member,
                _ => own,
            }
    }

    pub fn expected(&self, who: &Somebody, at: At) -> Answer {
        let there = match self.scopes {
            // Quota that is granted does not look whether the user or the organization is there.
            "site" | "anywhere" | "default" | "quota" => true,
            "organization" => matches!(at.organization, 1 | 2),
            "user" => at.user != MISSING && !(at.user == 51 && self.operation == "users::by_username"),
            _ => at.organization == at.home && at.home != MISSING,
        };
        let there = match self.operation {
            // Deleted and suspended users may do nothing.
            "actors::load" => there && !matches!(at.user, 50 | 51),
            // A daemon that is not there is made, where there is an organization; another one's is not taken over.
            "daemons::upsert" => at.organization != MISSING && (at.home == at.organization || at.home == MISSING),
            // Nobody is a member of a deleted organization any more; the chat daemon is of none.
            "chats::bind" | "chats::bind_build_agent" | "chats::get" | "chats::get_with_lock" => {
                there && (at.organization != 3 || who.user.is_none())
            }
            // Nothing new in a deleted organization.
            "jobs::insert" => there && at.organization != 3,
            // The owner is a member.
            "workspaces::create" => {
                let own = who.user == Some(at.user) && who.organizations.contains_key(&at.organization);
                matches!(at.organization, 1 | 2) && (own || at.user == at.organization)
            }
            _ => there,
        };
        let only_own = self.scopes.starts_with("owned") && !self.reaches_all(who, at);
        let reached = self.may_ask(who, at) && (!only_own || who.user == Some(at.home));
        let left_out = matches!(self.scopes, "list" | "found" | "owned-found") && self.may_ask(who, at);
        match there && reached {
            true => Answer::Rows(1),
            false if left_out => Answer::Rows(0),
            false => Answer::NotFound,
        }
    }
}

pub async fn fixture(conn: &mut PgConnection) -> Vec<Somebody> {
    let list =
        |roles: &[&str]| format!("'{{{}}}'", roles.iter().map(|r| format!("\"{r}\"")).collect::<Vec<_>>().join(","));
    let mut sql = include_str!("../golden/two_organizations.sql").to_owned();
    for (n, site, organizations, ..) in USERS.iter().filter(|user| user.0 > 3) {
        let status = if *n == 38 { "dormant" } else { "active" };
        let _ = write!(sql, "SELECT add_user({n}, {}, '{status}');", list(site));
        for (organization, roles) in *organizations {
            let _ = write!(sql, "SELECT add_member({organization}, {n}, {});", list(roles));
        }
    }
    sql += "SELECT add_user(50, '{owner}', 'suspended'); SELECT add_user(51, '{owner}', gone => true);";
    sql += STEPS;
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut *conn).await.expect("the fixture");

    let mut actors = Vec::new();
    let permit = LoadActors::check(&Actor::system(System::Authenticator)).expect("an authenticator loads actors");
    for (n, _, _, site, organizations) in USERS {
        let words = |text: &str, at: char| -> BTreeSet<String> {
            text.split(at).filter(|word| !word.is_empty()).map(str::to_owned).collect()
        };
        let roles = |entry: String| {
            let (organization, roles) = entry.split_once(':').expect("organization:roles");
            (organization.parse().expect("a number"), words(roles, ','))
        };
        actors.push(Somebody {
            name: format!("user {n}"),
            actor: store::actors::load(conn, &permit, UserId(u(*n))).await.expect("the actor"),
            user: Some(*n),
            site: words(site, ' '),
            organizations: words(organizations, ' ').into_iter().map(roles).collect(),
            system: None,
        });
    }
    actors.extend(SYSTEM.iter().map(|(system, name)| Somebody {
        name: (*name).to_owned(),
        actor: Actor::system(*system),
        user: None,
        site: BTreeSet::new(),
        organizations: BTreeMap::new(),
        system: Some(name),
    }));
    actors
}
