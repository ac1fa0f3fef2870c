//! Users, organizations, and what else is named by people.

use std::{convert::Infallible, str::FromStr};

use serde::Serialize;
use uuid::Uuid;

use super::{Label, OrganizationId, TemplateId, UserId, UserStatus, WorkspaceId};

/// A user (domain: users).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct User {
    /// The primary key.
    pub id: UserId,
    /// The name to sign in with, unique among users that are not deleted, in any case.
    pub username: String,
    /// The name for people; may be empty.
    pub name: String,
    /// Empty exactly for service accounts.
    pub email: String,
    /// Whether the user may sign in.
    pub status: Label<UserStatus>,
    /// Whether the user is gone; jobs keep naming a deleted user.
    pub deleted: bool,
    /// Whether the user is part of the product, such as `prebuilds`.
    pub is_system: bool,
}

impl User {
    /// Why the user may do nothing, in a word; `None` for one who may.
    #[must_use]
    pub const fn inactive(&self) -> Option<&'static str> {
        match &self.status {
            _ if self.deleted => Some("deleted"),
            Label::Known(UserStatus::Suspended) => Some("suspended"),
            _ => None,
        }
    }
}

/// An organization (domain: organizations).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Organization {
    /// The primary key.
    pub id: OrganizationId,
    /// Unique among organizations that are not deleted, in any case.
    pub name: String,
    /// The name for people.
    pub display_name: String,
    /// Whether it is meant where none is named.
    pub is_default: bool,
}

/// A template, as far as listings name it (domain: templates).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Template {
    /// The primary key.
    pub id: TemplateId,
    /// Unique in its organization among templates that are not deleted, in any case.
    pub name: String,
    /// The name for people; may be empty.
    pub display_name: String,
    /// Whose it is.
    pub organization_id: OrganizationId,
}

/// A workspace, as far as listings name it (domain: workspaces).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Workspace {
    /// The primary key.
    pub id: WorkspaceId,
    /// Unique among the owner's workspaces that are not deleted, in any case.
    pub name: String,
    /// Where it lives.
    pub organization_id: OrganizationId,
    /// Whose quota it uses.
    pub owner_id: UserId,
    /// The owner's username.
    pub owner_name: String,
    /// What it is made from.
    pub template_id: TemplateId,
    /// Whether it is gone; old jobs and chats keep naming a deleted workspace.
    #[serde(skip)]
    pub deleted: bool,
    /// Whether the owner is gone: then `owner/name` does not name it.
    #[serde(skip)]
    pub owner_deleted: bool,
}

/// What a user consumes and may consume in an organization, in credits (domain: quota).
#[cfg_attr(feature = "http", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Quota {
    /// The sum of what the newest build of each of the user's workspaces costs.
    pub credits_consumed: i64,
    /// The sum of the allowances of the user's groups in the organization.
    pub budget: i64,
}

/// What a user consumes and may consume in an organization, in credits: a member, or whoever has left or was deleted and
/// consumes all the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UserQuota {
    /// The user.
    pub id: UserId,
    /// The name to sign in with. Deleted users may share it with each other and with one who is not.
    pub username: String,
    /// Whether the user is gone.
    pub deleted: bool,
    /// Whether the user is a member of the organization.
    pub is_member: bool,
    /// As in [`Quota`].
    pub credits_consumed: i64,
    /// As in [`Quota`].
    pub budget: i64,
}

/// A place in a listing of quota.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuotaCursor {
    /// The name of the last user of the page before.
    pub username: String,
    /// The user's id, because deleted users may share a name.
    pub id: UserId,
}

/// How a person names a user: `me`, an id, or a username, parsed in this order. A name means nobody who was deleted; an id
/// also means a deleted user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UserRef {
    /// Whoever asks.
    Me,
    /// By id.
    Id(UserId),
    /// By name.
    Username(String),
}

impl FromStr for UserRef {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(match hyphenated(text) {
            _ if text == "me" => Self::Me,
            Some(id) => Self::Id(UserId(id)),
            None => Self::Username(text.to_owned()),
        })
    }
}

/// How a person names something that has an id and a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NameOrId<Id> {
    /// By id.
    Id(Id),
    /// By name.
    Name(String),
}

impl<Id: From<Uuid>> FromStr for NameOrId<Id> {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(hyphenated(text).map_or_else(|| Self::Name(text.to_owned()), |id| Self::Id(id.into())))
    }
}

/// Only the usual form is an id: 32 hexadecimal digits in a row may be somebody's name.
fn hyphenated(text: &str) -> Option<Uuid> {
    (text.len() == 36).then(|| text.parse().ok()).flatten()
}
