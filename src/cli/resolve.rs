//! What people name on the command line, as ids.

use std::env;

use clap::Args;

use super::error::{CliError, FAILED};
use crate::{
    authz::{Actor, ReadOrganizations, ReadTemplates, ReadUsers, ReadWorkspaces, System},
    model::{NameOrId, Organization, OrganizationId, TemplateId, User, UserRef, WorkspaceId},
    store::{self, PgConnection, organizations, templates, users, workspaces},
};

/// Whoever runs the command line has the password of the database.
pub(super) const OPERATOR: Actor = Actor::system(System::Operator);

#[derive(Debug, Args)]
pub(super) struct OrganizationArg {
    /// The organization, by name or id; the default organization if absent
    #[arg(short = 'O', long = "org", value_name = "ORGANIZATION", env = "CODER_ORGANIZATION")]
    org: Option<NameOrId<OrganizationId>>,
}

impl OrganizationArg {
    pub(super) async fn resolve(&self, conn: &mut PgConnection) -> Result<Organization, CliError> {
        match &self.org {
            Some(NameOrId::Name(name)) if name.is_empty() => self.default(conn).await,
            Some(organization) => {
                Ok(organizations::resolve(conn, &ReadOrganizations::of(&OPERATOR), organization).await?)
            }
            None => self.default(conn).await,
        }
    }

    #[allow(clippy::unused_self)] // reads as one of the two ways above
    async fn default(&self, conn: &mut PgConnection) -> Result<Organization, CliError> {
        match organizations::default(conn, &ReadOrganizations::of(&OPERATOR)).await {
            Err(store::Error::NotFound { .. }) => Err(CliError::new(FAILED, "there is no default organization")
                .next("name one with --org, or run `coderdb demo` for something to look at")),
            found => Ok(found?),
        }
    }
}

/// The user that the text means: an id, a username, or `me`, which `CODERDB_USER` defines.
pub(super) async fn user(conn: &mut PgConnection, what: &str, text: &UserRef) -> Result<User, CliError> {
    let me = env::var_os("CODERDB_USER").filter(|me| *text == UserRef::Me && !me.is_empty());
    let me: Option<UserRef> = me.and_then(|me| me.to_string_lossy().parse().ok());
    let text = me.as_ref().unwrap_or(text);
    match users::resolve(conn, &ReadUsers::check(&OPERATOR)?, text, None).await {
        Err(store::Error::NotFound { .. }) => {
            let (key, next) = match text {
                UserRef::Id(id) => (id.to_string(), None),
                UserRef::Username(name) => (name.clone(), None),
                UserRef::Me => ("me".to_owned(), Some("set CODERDB_USER to the username or id that `me` stands for")),
            };
            let error = CliError::new(FAILED, format!("{what} not found: {key}"));
            Err(match next {
                Some(next) => error.next(next),
                None => error,
            })
        }
        found => Ok(found?),
    }
}

pub(super) async fn template(
    conn: &mut PgConnection,
    organization: OrganizationId,
    text: &NameOrId<TemplateId>,
) -> Result<TemplateId, CliError> {
    let permit = ReadTemplates::check(&OPERATOR, organization)?;
    Ok(templates::resolve(conn, &permit, text).await?.id)
}

/// The workspace that the text means: an id, `owner/name`, or a name that only one owner uses.
pub(super) async fn workspace(
    conn: &mut PgConnection,
    organization: OrganizationId,
    text: &NameOrId<WorkspaceId>,
) -> Result<WorkspaceId, CliError> {
    let permit = ReadWorkspaces::check(&OPERATOR, organization)?;
    let text = match text {
        NameOrId::Id(id) => return Ok(workspaces::get(conn, &permit, *id).await?.id),
        NameOrId::Name(text) => text,
    };
    let (owner, name) = text.split_once('/').map_or((None, text.as_str()), |(owner, name)| (Some(owner), name));
    let mut found = workspaces::by_name(conn, &permit, name).await?;
    if let Some(owner) = owner {
        found.retain(|workspace| workspace.owner_name.eq_ignore_ascii_case(owner));
    }
    match found.as_slice() {
        [] => Err(CliError::new(FAILED, format!("workspace not found: {text}"))
            .next("name a workspace that was deleted by its id")),
        [workspace] => Ok(workspace.id),
        several => {
            let names: Vec<_> = several.iter().map(|w| format!("{}/{}", w.owner_name, w.name)).collect();
            Err(CliError::new(FAILED, format!("several workspaces are called {text}"))
                .next(format!("name one of them: {}", names.join(", "))))
        }
    }
}
