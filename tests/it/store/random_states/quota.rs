//! What random owners consume, and random builds commit.

use std::collections::BTreeMap;

use coderdb::{
    model::{JobId, Quota},
    store::{self, Error, quota::CommitOutcome},
};
use fastrand::Rng;
use serde_json::{Value, json};
use sqlx::PgConnection;
use uuid::Uuid;

use super::{BIG, Builds, before, counts, run};
use crate::support::{
    self,
    model::{Branch, Model},
    random_database::{self as rows, at, often, one, pick, with},
    rows::{NOW, daemon, id},
    states::{Classes, SLOW_STATES, STATES, Seed, compare},
};

/// A user with groups and workspaces, and a stranger with others: rows of six tables.
struct Owner {
    user: Uuid,
    tables: BTreeMap<&'static str, Vec<Value>>,
}

impl Owner {
    fn new(rng: &mut Rng) -> Self {
        let (user, stranger) = (rows::uuid(rng), rows::uuid(rng));
        let mut tables: BTreeMap<_, Vec<Value>> = BTreeMap::new();
        let mut add = |table, row| tables.entry(table).or_default().push(row);
        for person in [user, stranger] {
            let row = rows::user(person, &person.to_string());
            add("users", with(row, json!({"deleted": often(rng, 0.1)})));
            for organization in [1, 2] {
                if often(rng, 0.7) {
                    add("organization_members", rows::member(id(organization), person));
                }
                // The Everyone group, in which a person can also be by name.
                if often(rng, 0.15) {
                    add("group_members", json!({"group_id": id(organization), "user_id": person}));
                }
            }
        }
        for _ in 0..rng.usize(..4) {
            let group = rows::uuid(rng);
            let allowance = one(rng, &[0, 1, 40, 40, -7, BIG, BIG, i32::MIN]);
            add("groups", rows::group(group, id(rng.u128(1..=2)), &group.to_string(), allowance));
            for person in [user, stranger] {
                if often(rng, 0.6) {
                    add("group_members", json!({"group_id": group, "user_id": person}));
                }
            }
        }
        for _ in 0..rng.usize(..5) {
            let workspace = rows::uuid(rng);
            let owner = if often(rng, 0.8) { user } else { stranger };
            let organization = id(if often(rng, 0.75) { 1 } else { 2 });
            let row = rows::workspace(workspace, organization, owner, id(1), &workspace.to_string());
            add("workspaces", with(row, json!({"deleted": often(rng, 0.2)})));
            let mut numbers = [1, 2, 3, 10, 100, BIG];
            rng.shuffle(&mut numbers);
            for number in &numbers[..rng.usize(..4)] {
                let (build, job) = (rows::uuid(rng), rows::uuid(rng));
                let cost = one(rng, &[0, 0, 1, 10, 40, -3, BIG]);
                add("provisioner_jobs", rows::job(job, organization, owner));
                let row = rows::build(build, workspace, id(1), job, *number);
                add("workspace_builds", with(row, json!({"daily_cost": cost})));
            }
        }
        Self { user, tables }
    }
}

/// One statement per table for all of them.
async fn store_owners(conn: &mut PgConnection, owners: &[Owner]) {
    for table in [
        "users",
        "organization_members",
        "groups",
        "group_members",
        "workspaces",
        "provisioner_jobs",
        "workspace_builds",
    ] {
        let all: Vec<Value> = owners.iter().filter_map(|owner| owner.tables.get(table)).flatten().cloned().collect();
        rows::insert(conn, table, &all).await;
    }
}

#[test]
fn what_random_owners_consume_and_may_consume_is_what_the_model_says() {
    compare(SLOW_STATES, 20, async |conn, seeds, classes| {
        let owners: Vec<Owner> = seeds.iter().map(|seed| Owner::new(&mut Rng::with_seed(*seed))).collect();
        run(conn, EVERYONE).await;
        store_owners(conn, &owners).await;
        let model = Model::read(conn).await;
        for (seed, Owner { user, .. }) in seeds.iter().zip(&owners) {
            let _seed = Seed(*seed);
            for organization in [id(1), id(2)] {
                let actual = store::quota::usage(conn, &support::read_quota(*user, organization)).await.expect("quota");
                let credits_consumed = model.quota_consumed(*user, organization);
                let budget = model.quota_allowance(*user, organization);
                assert_eq!(actual, Quota { credits_consumed, budget }, "{:#?}", owners[0].tables);
                classes.note("a budget was beyond 32 bits", budget > i64::from(BIG));
                classes.note("a budget was negative", budget < 0);
                classes.note("more was consumed than 32 bits hold", credits_consumed > i64::from(BIG));
                classes.note("nothing was consumed of some budget", credits_consumed == 0 && budget > 0);
            }
        }
        for branch in [
            Branch::LatestHidesCost,
            Branch::DeletedWorkspaceCost,
            Branch::OtherOrganizationCost,
            Branch::ExplicitMember,
            Branch::EveryoneMember,
            Branch::BothMember,
            Branch::DeletedMember,
            Branch::ForeignMember,
        ] {
            let (count, sentence) = model.reached.count(branch);
            classes.note(sentence, count > 0);
        }
    });
}

/// The Everyone groups of both organizations.
const EVERYONE: &str = "INSERT INTO groups (id, name, organization_id, quota_allowance)
    VALUES (u(1), 'Everyone', u(1), 5), (u(2), 'Everyone', u(2), 7)";

/// A build that asks to be committed, and all that decides on it (domain: quota commit).
struct Commit {
    job: Uuid,
    build: Uuid,
    cost: i32,
    /// Neither another daemon's nor in another organization.
    is_ours: bool,
    budget: i64,
    /// Of each workspace of the owner there: whether it is deleted, and its builds by number.
    workspaces: Vec<(bool, Builds)>,
    /// The workspace and the number of the build.
    place: (usize, i32),
    tables: BTreeMap<&'static str, Vec<Value>>,
}

impl Commit {
    fn new(rng: &mut Rng) -> Self {
        let owner = rows::uuid(rng);
        let mut tables: BTreeMap<_, Vec<Value>> = BTreeMap::new();
        let mut add = |table, row| tables.entry(table).or_default().push(row);
        add("users", rows::user(owner, &owner.to_string()));
        let costs = [0, 0, 1, 9, 10, 11, 40];
        let costs = if often(rng, 0.1) { &[BIG, BIG - 1, 0] as &[i32] } else { &costs };
        let mut workspaces = Vec::new();
        for _ in 0..rng.usize(1..4) {
            let first = one(rng, &[1, 1, 1, 2, 7]);
            let builds: Builds = (first..first + rng.i32(1..5))
                .map(|number| (number, (rows::uuid(rng), one(rng, costs), often(rng, 0.3))))
                .collect();
            workspaces.push((often(rng, 0.15), builds));
        }
        let at_workspace = rng.usize(..workspaces.len());
        let builds = &workspaces[at_workspace].1;
        let newest = *builds.keys().next_back().expect("a build");
        let number =
            if often(rng, 0.7) { newest } else { pick(rng, &builds.keys().copied().collect::<Vec<_>>()).expect("one") };
        let build = builds[&number].0;
        let previous = before(builds, number).map(|(_, cost, _)| *cost);
        let near = previous.unwrap_or(10).saturating_add(rng.i32(-1..=1)).max(0);
        let cost = if rng.bool() { near } else { one(rng, costs) };
        let foreign = often(rng, 0.04);
        let other_daemon = often(rng, 0.04);
        let mut job = Uuid::nil();
        for (deleted, builds) in &workspaces {
            let workspace = rows::uuid(rng);
            let row = rows::workspace(workspace, id(if foreign { 2 } else { 1 }), owner, id(1), &workspace.to_string());
            add("workspaces", with(row, json!({"deleted": deleted})));
            for (number, (this, cost, succeeded)) in builds {
                let row_job = rows::uuid(rng);
                let worker = if other_daemon { 8 } else { 7 };
                let row = rows::job(row_job, id(1), owner);
                let ended = (*succeeded && *this != build).then(|| at(NOW));
                let started = json!({"worker_id": id(worker), "started_at": at(NOW), "completed_at": ended});
                add("provisioner_jobs", with(row, started));
                add(
                    "workspace_builds",
                    with(rows::build(*this, workspace, id(1), row_job, *number), json!({"daily_cost": cost})),
                );
                if *this == build {
                    job = row_job;
                }
            }
        }
        let mut commit = Self {
            job,
            build,
            cost,
            is_ours: !foreign && !other_daemon,
            budget: 0,
            workspaces,
            place: (at_workspace, number),
            tables,
        };
        // Around what would just fit, or far away.
        let wanted = if rng.bool() { commit.by_others() + i64::from(cost) + rng.i64(-1..=1) } else { rng.i64(-5..80) };
        commit.give(rng, owner, wanted);
        commit
    }

    /// Groups whose allowances come to so much.
    fn give(&mut self, rng: &mut Rng, owner: Uuid, wanted: i64) {
        self.budget = wanted;
        let mut rest = wanted;
        loop {
            let part = i32::try_from(rest).unwrap_or(BIG);
            let part = if rng.bool() { part } else { part / 2 };
            rest -= i64::from(part);
            let group = rows::uuid(rng);
            let row = rows::group(group, id(1), &group.to_string(), part);
            self.tables.entry("groups").or_default().push(row);
            self.tables.entry("group_members").or_default().push(json!({"group_id": group, "user_id": owner}));
            if rest == 0 {
                return;
            }
        }
    }

    /// What the newest builds cost, without what this build recorded before: a commit may be repeated.
    fn by_others(&self) -> i64 {
        let newest = self.workspaces.iter().filter(|(deleted, _)| !deleted).filter_map(|(_, b)| b.values().next_back());
        newest.filter(|(build, ..)| *build != self.build).map(|(_, cost, _)| i64::from(*cost)).sum()
    }

    fn consumed(&self) -> i64 {
        let newest = self.workspaces.iter().filter(|(deleted, _)| !deleted).filter_map(|(_, b)| b.values().next_back());
        newest.map(|(_, cost, _)| i64::from(*cost)).sum()
    }

    /// Whether it is accepted, and what is consumed then (domain: quota commit).
    fn decision(&self, classes: &Classes) -> (bool, i64) {
        let (workspace, number) = self.place;
        let (deleted, builds) = &self.workspaces[workspace];
        let previous = before(builds, number);
        let (cost, previous) = (i64::from(self.cost), previous.map(|(_, cost, _)| i64::from(*cost)));
        // An equal cost passes. Where there is nothing to compare with, everything is a raise
        // (domain: commit comparison).
        let net_increase = previous.is_none_or(|previous| cost > previous);
        let new_consumed = self.by_others() + cost;
        let over = new_consumed > self.budget;
        for (sentence, when) in [
            ("it fitted exactly", new_consumed == self.budget),
            ("it was one credit too much", new_consumed == self.budget + 1 && net_increase),
            ("an equal cost was over budget, and passed", over && previous == Some(cost)),
            ("a decrease by one was over budget", over && previous == Some(cost + 1)),
            ("a first build was over budget", over && number == 1),
            (
                "no build before had committed or succeeded, and it was over budget",
                over && number > 1 && previous.is_none(),
            ),
            ("a build that succeeded at no cost was before it", over && previous == Some(0)),
            (
                "the build right before it did not count",
                over && previous.is_some() && !counts(builds.get(&(number - 1))),
            ),
            ("it had recorded a cost before", builds[&number].1 > 0),
            ("a later build hid it", builds.keys().next_back() != Some(&number)),
            ("its workspace was deleted", *deleted),
            ("more was consumed than 32 bits hold", new_consumed > i64::from(BIG)),
            ("it cost nothing", self.cost == 0),
            ("it cost as much as can be", self.cost == BIG),
        ] {
            classes.note(sentence, when && self.is_ours);
        }
        if over && net_increase { (false, self.consumed()) } else { (true, new_consumed) }
    }
}

#[test]
fn random_builds_are_let_through_by_the_quota_as_the_model_says() {
    compare(STATES, 40, async |conn, seeds, classes| {
        let permit = daemon(1, 7);
        let mut commits: Vec<Commit> = seeds.iter().map(|seed| Commit::new(&mut Rng::with_seed(*seed))).collect();
        for table in ["users", "groups", "group_members", "workspaces", "provisioner_jobs", "workspace_builds"] {
            let all: Vec<Value> = commits.iter().filter_map(|one| one.tables.get(table)).flatten().cloned().collect();
            rows::insert(conn, table, &all).await;
        }
        let mut costs = BTreeMap::new();
        for (seed, commit) in seeds.iter().zip(&mut commits) {
            let _seed = Seed(*seed);
            let (accepted, consumed) = commit.decision(classes);
            let actual = match store::quota::commit(conn, &permit, JobId(commit.job), commit.cost.into()).await {
                Ok(CommitOutcome::Accepted(quota)) => Some((true, quota.credits_consumed, quota.budget)),
                Ok(CommitOutcome::Rejected(rejected)) => Some((false, rejected.consumed(), rejected.budget())),
                Ok(CommitOutcome::JobEnded) => panic!("no job of these has ended"),
                Err(Error::NotFound { .. }) => None,
                Err(error) => panic!("{error}"),
            };
            let expected = commit.is_ours.then_some((accepted, consumed, commit.budget));
            assert_eq!(actual, expected, "{:?} {:#?}", commit.place, commit.workspaces);
            classes.note("it was another daemon's, or elsewhere", !commit.is_ours);
            if accepted && commit.is_ours {
                let (workspace, number) = commit.place;
                let cost = commit.cost;
                commit.workspaces[workspace].1.entry(number).and_modify(|(_, recorded, _)| *recorded = cost);
            }
            costs.extend(
                commit.workspaces.iter().flat_map(|(_, builds)| builds.values().map(|(id, cost, _)| (*id, *cost))),
            );
        }
        let stored: Vec<(Uuid, i32)> = sqlx::query_as("SELECT id, daily_cost FROM workspace_builds WHERE id <> u(1)")
            .fetch_all(conn)
            .await
            .expect("builds");
        let _seed = Seed(seeds[0]);
        assert_eq!(stored.into_iter().collect::<BTreeMap<_, _>>(), costs);
    });
}
