//! Which jobs pass a filter: one condition on one job, shared by the listing, by `ids`, by the counts and by what
//! cancels many. The condition of a filter is written here alone; docs/adding-a-query.md names the other places of a filter.

use sea_query::{Condition, Expr, ExprTrait, PgFunc};
use serde_json::Value;
use uuid::Uuid;

use crate::{
    model::{Exclude, JobFilter, JobStatus, Tags},
    store::{Result, input},
};

/// That the filter has nothing that the database cannot hold.
pub(super) fn check(filter: &JobFilter) -> Result<()> {
    filter.tags.as_ref().map_or(Ok(()), |tags| input::tags("tags", tags))?;
    filter.has_tags.iter().try_for_each(|tag| input::tags("has_tags", &Tags::from_iter([tag.clone()])))?;
    filter.exclude.tags.iter().try_for_each(|tag| input::tags("exclude.tags", &Tags::from_iter([tag.clone()])))?;
    for (field, codes) in [("error_codes", &filter.error_codes), ("exclude.error_codes", &filter.exclude.error_codes)] {
        codes.iter().try_for_each(|code| input::text(field, code.as_str()))?;
    }
    filter.created_after.map(|at| input::time("created_after", at)).transpose()?;
    filter.created_before.map(|at| input::time("created_before", at)).transpose()?;
    Ok(())
}

/// What the job `j` must be like; nothing where the filter sets nothing. Only filters that are set leave a trace in the
/// text, so that each combination gets a plan of its own.
///
/// Times are not in it: they are a range of the index that the listing reads.
pub(super) fn condition(filter: &JobFilter) -> Condition {
    let job = |column: &'static str| Expr::col(("j", column));
    let mut conditions = Vec::new();
    let mut and = |condition: Expr| conditions.push(condition);
    if !filter.ids.is_empty() {
        and(job("id").eq(any(filter.ids.iter().map(|id| id.0))));
    }
    if !filter.status.is_empty() {
        let (applies, any) = status_is_any(&filter.status);
        and(Expr::cust_with_expr(applies, any));
    }
    if let Some(tags) = &filter.tags {
        // The exact untagged set means exactly untagged jobs; all others mean jobs with at least these (domain: tags).
        let operator = if *tags == Tags::untagged() { "=" } else { "@>" };
        and(Expr::cust_with_expr(format!("j.tags {operator} $1"), jsonb(tags)));
    }
    if !filter.has_tags.is_empty() {
        // Each by itself: several together must not become the untagged set.
        and(Expr::cust_with_expr("j.tags @> ALL ($1)", pairs(&filter.has_tags)));
    }
    if filter.untagged {
        and(Expr::cust_with_expr("j.tags = $1", jsonb(&Tags::untagged())));
    }
    if let Some(initiator) = filter.initiator.filter(|id| !id.0.is_nil()) {
        and(job("initiator_id").eq(initiator.0));
    }
    if !filter.types.is_empty() {
        and(job("type").eq(PgFunc::any(texts(&filter.types, "provisioner_job_type[]"))));
    }
    if !filter.error_codes.is_empty() {
        and(job("error_code").eq(PgFunc::any(texts(&filter.error_codes, "text[]"))));
    }
    if let Some(workspace) = filter.workspace {
        and(Expr::cust_with_expr(workspace_is_any(), Expr::val(vec![workspace.0])));
    }
    if let Some(transition) = filter.transition {
        and(Expr::cust_with_expr(transition_is_any(), texts(&[transition], "workspace_transition[]")));
    }
    if let Some(template) = filter.template {
        and(Expr::cust_with_expr(template_is_any(), Expr::val(vec![template.0])));
    }
    exclude(&filter.exclude, and);
    conditions.into_iter().fold(Condition::all(), Condition::add)
}

/// What must not apply. A null is not excluded: there is nothing that could apply.
fn exclude(exclude: &Exclude, mut and: impl FnMut(Expr)) {
    let mut none_of = |is_empty: bool, applies: String, any: Expr| {
        if !is_empty {
            and(Expr::cust_with_expr(format!("({applies}) IS NOT TRUE"), any));
        }
    };
    let is_any = |column: &str| format!("j.{column} = ANY ($1)");
    let uuids = |ids: Vec<Uuid>| Expr::val(ids);
    let Exclude { status, ids, tags, untagged, initiators, transitions, templates, workspaces, types, error_codes } =
        exclude;
    let (is_of_status, any_status) = status_is_any(status);
    none_of(status.is_empty(), is_of_status, any_status);
    none_of(types.is_empty(), is_any("type"), texts(types, "provisioner_job_type[]"));
    none_of(error_codes.is_empty(), is_any("error_code"), texts(error_codes, "text[]"));
    none_of(ids.is_empty(), is_any("id"), uuids(ids.iter().map(|id| id.0).collect()));
    none_of(initiators.is_empty(), is_any("initiator_id"), uuids(initiators.iter().map(|id| id.0).collect()));
    none_of(transitions.is_empty(), transition_is_any(), texts(transitions, "workspace_transition[]"));
    none_of(workspaces.is_empty(), workspace_is_any(), uuids(workspaces.iter().map(|id| id.0).collect()));
    none_of(templates.is_empty(), template_is_any(), uuids(templates.iter().map(|id| id.0).collect()));
    none_of(tags.is_empty(), "j.tags @> ANY ($1)".to_owned(), pairs(tags));
    none_of(!untagged, "j.tags = $1".to_owned(), jsonb(&Tags::untagged()));
}

/// What is read as `unknown` is found as that: also a status that this version does not know.
fn status_is_any(status: &[JobStatus]) -> (String, Expr) {
    if !status.contains(&JobStatus::Unknown) {
        return ("j.job_status = ANY ($1)".to_owned(), texts(status, "provisioner_job_status[]"));
    }
    let known: Vec<_> = JobStatus::ALL.iter().map(|status| status.as_str()).collect();
    let read = format!(
        "CASE WHEN j.job_status::text = ANY ('{{{}}}') THEN j.job_status::text ELSE 'unknown' END",
        known.join(",")
    );
    (format!("({read}) = ANY ($1)"), texts(status, "text[]"))
}

/// The build that the input of the job `j` names, as `queries/jobs/list.sql` reads it.
pub(super) fn build_of_job() -> String {
    uuid_in_input("workspace_build_id")
}

/// Of this workspace of the organization is a job that carries out a build of it: the build has the job, and the job's
/// input names the build.
fn workspace_is_any() -> String {
    format!(
        "(SELECT w.id = ANY ($1) FROM workspace_builds AS b INNER JOIN workspaces AS w ON w.id = b.workspace_id \
         WHERE b.job_id = j.id AND b.id = {} AND w.organization_id = j.organization_id)",
        build_of_job()
    )
}

fn transition_is_any() -> String {
    format!("(SELECT b.transition = ANY ($1) FROM workspace_builds AS b WHERE b.id = {})", build_of_job())
}

fn template_is_any() -> String {
    format!(
        "(SELECT t.id = ANY ($1) FROM template_versions AS v INNER JOIN templates AS t ON t.id = v.template_id \
         WHERE v.id = CASE WHEN jsonb_exists(j.input::jsonb, 'template_version_id') THEN {} \
         ELSE (SELECT b.template_version_id FROM workspace_builds AS b WHERE b.id = {}) END \
         AND v.organization_id = j.organization_id AND t.organization_id = j.organization_id)",
        uuid_in_input("template_version_id"),
        build_of_job()
    )
}

/// What the server's own cast would accept, and null for the rest. The first pattern is the usual form, and five times
/// as fast as the second.
fn uuid_in_input(key: &str) -> String {
    let text = format!("(j.input ->> '{key}')");
    format!(
        "CASE WHEN {text} LIKE '________-____-____-____-____________' \
         AND {text} ~ '^[0-9a-f]*-[0-9a-f]*-[0-9a-f]*-[0-9a-f]*-[0-9a-f]*$' \
         OR {text} ~ '^(([0-9a-fA-F]{{4}}-?){{7}}[0-9a-fA-F]{{4}}|[{{]([0-9a-fA-F]{{4}}-?){{7}}[0-9a-fA-F]{{4}}[}}])$' \
         THEN {text}::uuid END"
    )
}

/// `ANY` of these ids.
pub(super) fn any(ids: impl Iterator<Item = Uuid>) -> sea_query::FunctionCall {
    PgFunc::any(Expr::val(ids.collect::<Vec<_>>()))
}

fn jsonb(tags: &Tags) -> Expr {
    Expr::val(Value::from_iter(tags.0.clone())).cast_as("jsonb")
}

/// An array with an object for each pair.
fn pairs(tags: &[(String, String)]) -> Expr {
    let tags: Vec<Value> = tags.iter().map(|(key, value)| Value::from_iter([(key.clone(), value.clone())])).collect();
    texts(&tags, "jsonb[]")
}

/// An array of the type, given as texts.
fn texts(values: &[impl ToString], array: &'static str) -> Expr {
    let texts: Vec<String> = values.iter().map(ToString::to_string).collect();
    Expr::val(texts).cast_as(array)
}
