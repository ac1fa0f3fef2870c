//! The names in a query as ids.

use time::OffsetDateTime;

use super::{Condition, Query, ResolveError};
use crate::{
    authz::{Actor, ReadOrganizations, ReadTemplates, ReadUsers, ReadWorkspaces, TemplateRight},
    model::{
        Entity, JobFilter, NameOrId, Organization, OrganizationId, TemplateId, UserId, UserRef, Workspace, WorkspaceId,
    },
    store::{self, PgConnection, organizations, templates, users, workspaces},
};

impl Query {
    /// The organization that is meant, the default one if none is named, and the filter. `me` is the caller, if given;
    /// ages count from `now`. One round trip for the organization, and one for each user, template and workspace that
    /// is named; no locks.
    ///
    /// # Errors
    /// [`store::Error::NotFound`] with the [`Entity`] for what means nothing that the actor may see; [`ResolveError::Ambiguous`] for the name of a workspace that several
    /// owners use.
    pub async fn resolve(
        &self,
        conn: &mut PgConnection,
        actor: &Actor,
        me: Option<&UserRef>,
        now: OffsetDateTime,
    ) -> Result<(Organization, JobFilter), ResolveError> {
        let named = self.terms.iter().find_map(|term| match &term.condition {
            Condition::Organization(named) => Some(named),
            _ => None,
        });
        let permit = ReadOrganizations::check(actor);
        let organization = match named {
            Some(named) => organizations::resolve(conn, &permit, named).await?,
            None => organizations::default(conn, &permit).await?,
        };
        let mut filter = JobFilter::default();
        for term in &self.terms {
            let exclude = term.negated.then_some(&mut filter.exclude);
            match &term.condition {
                Condition::Organization(_) | Condition::Created(_) => {}
                Condition::Status(values) => {
                    exclude.map_or(&mut filter.status, |exclude| &mut exclude.status).extend(values);
                }
                Condition::Type(values) => {
                    exclude.map_or(&mut filter.types, |exclude| &mut exclude.types).extend(values);
                }
                Condition::Id(values) => exclude.map_or(&mut filter.ids, |exclude| &mut exclude.ids).extend(values),
                Condition::ErrorCode(values) => {
                    let codes = exclude.map_or(&mut filter.error_codes, |exclude| &mut exclude.error_codes);
                    codes.extend(values.iter().cloned());
                }
                Condition::Tag(key, value) => match exclude {
                    Some(exclude) => exclude.tags.push((key.clone(), value.clone())),
                    None => filter.has_tags.push((key.clone(), value.clone())),
                },
                Condition::Untagged => *exclude.map_or(&mut filter.untagged, |exclude| &mut exclude.untagged) = true,
                Condition::Transition(value) => match exclude {
                    Some(exclude) => exclude.transitions.push(*value),
                    None => filter.transition = Some(*value),
                },
                Condition::Initiator(named) => {
                    let id = user(conn, actor, named, me).await?;
                    match exclude {
                        Some(exclude) => exclude.initiators.push(id),
                        None => filter.initiator = Some(id),
                    }
                }
                Condition::Template(named) => {
                    let id = template(conn, actor, organization.id, named).await?;
                    match exclude {
                        Some(exclude) => exclude.templates.push(id),
                        None => filter.template = Some(id),
                    }
                }
                Condition::Workspace(named) => {
                    let id = workspace(conn, actor, organization.id, named).await?;
                    match exclude {
                        Some(exclude) => exclude.workspaces.push(id),
                        None => filter.workspace = Some(id),
                    }
                }
            }
        }
        (filter.created_after, filter.created_before) = self.created(now);
        Ok((organization, filter))
    }

    /// The latest moment before and the earliest moment after all that match, where there are such, if ages count from
    /// `now`: [`JobFilter::created_after`] and [`JobFilter::created_before`] for a caller that filters again later.
    #[must_use]
    pub fn created(&self, now: OffsetDateTime) -> (Option<OffsetDateTime>, Option<OffsetDateTime>) {
        let bounds = self.terms.iter().filter_map(|term| match term.condition {
            Condition::Created(created) => Some(created.bounds(now)),
            _ => None,
        });
        let (after, before): (Vec<_>, Vec<_>) = bounds.unzip();
        (after.into_iter().flatten().max(), before.into_iter().flatten().min())
    }
}

async fn user(
    conn: &mut PgConnection,
    actor: &Actor,
    named: &UserRef,
    me: Option<&UserRef>,
) -> Result<UserId, ResolveError> {
    match users::resolve(conn, &ReadUsers::check(actor)?, named, me).await {
        Err(store::Error::NotFound { key, .. }) => {
            Err(store::Error::NotFound { entity: Entity::Initiator, key }.into())
        }
        found => Ok(found?.id),
    }
}

async fn template(
    conn: &mut PgConnection,
    actor: &Actor,
    organization: OrganizationId,
    named: &NameOrId<TemplateId>,
) -> Result<TemplateId, ResolveError> {
    Ok(templates::resolve(conn, &ReadTemplates::check(actor, organization, TemplateRight::Read)?, named).await?.id)
}

/// The workspace that is meant: an id, `owner/name`, or a name that only one owner uses. A deleted owner has no name:
/// that may be another user's by now.
async fn workspace(
    conn: &mut PgConnection,
    actor: &Actor,
    organization: OrganizationId,
    named: &NameOrId<WorkspaceId>,
) -> Result<WorkspaceId, ResolveError> {
    let permit = ReadWorkspaces::check(actor, organization)?;
    let text = match named {
        NameOrId::Id(id) => return Ok(workspaces::get(conn, &permit, *id).await?.id),
        NameOrId::Name(text) => text,
    };
    let (owner, name) = text.split_once('/').map_or((None, text.as_str()), |(owner, name)| (Some(owner), name));
    let mut found = workspaces::by_name(conn, &permit, name).await?;
    if let Some(owner) = owner {
        found.retain(|workspace| {
            !workspace.owner_deleted && workspace.owner_name.to_lowercase() == owner.to_lowercase()
        });
    }
    match found.as_slice() {
        [] => Err(store::Error::NotFound { entity: Entity::Workspace, key: text.clone() }.into()),
        [workspace] => Ok(workspace.id),
        several => {
            Err(ResolveError::Ambiguous { name: text.clone(), candidates: several.iter().map(candidate).collect() })
        }
    }
}

fn candidate(workspace: &Workspace) -> String {
    let Workspace { id, name, owner_name, owner_deleted, .. } = workspace;
    if *owner_deleted { id.to_string() } else { format!("{owner_name}/{name}") }
}
