//! Users, organizations, and what else is named by people.

use std::{convert::Infallible, str::FromStr};

use serde::Serialize;
use uuid::Uuid;

use time::OffsetDateTime;

use super::{GroupId, JobStatus, Label, OrganizationId, TemplateId, Transition, UserId, UserStatus, WorkspaceId};

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
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Quota {
    /// The sum of what the newest build of each of the user's workspaces costs.
    pub credits_consumed: i64,
    /// The sum of the allowances of the user's groups in the organization.
    pub budget: i64,
}

/// What the numbers of a [`Quota`] are made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct QuotaExplanation {
    /// The sums of what follows.
    #[serde(flatten)]
    pub quota: Quota,
    /// The groups of the user there, Everyone included, those with the largest allowance first.
    pub groups: Vec<QuotaGroup>,
    /// The workspaces of the user there, the most expensive first.
    pub workspaces: Vec<QuotaWorkspace>,
}

/// A group, and what it adds to the budget of each of its members.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct QuotaGroup {
    /// The group; that of Everyone has the id of the organization.
    pub id: GroupId,
    /// Its name.
    pub name: String,
    /// In credits; may be negative.
    pub allowance: i32,
}

/// A workspace, and what it consumes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct QuotaWorkspace {
    /// The workspace.
    pub id: WorkspaceId,
    /// Its name.
    pub name: String,
    /// What its newest build has committed, in credits.
    pub credits: i32,
    /// What the build before that one has committed; `None` if it is the first.
    pub credits_before: Option<i32>,
    /// The number of that build.
    pub build_number: i32,
    /// What that build does.
    pub transition: Label<Transition>,
    /// How it stands; `None` where its job is gone.
    pub job_status: Option<JobStatus>,
    /// When it was asked for.
    #[serde(with = "time::serde::rfc3339")]
    pub built_at: OffsetDateTime,
}

impl QuotaWorkspace {
    /// Why it consumes what it does, in words for people.
    #[must_use]
    pub fn why(&self) -> &'static str {
        match (self.transition.known(), self.job_status) {
            _ if self.credits == 0 => "nothing is committed for its newest build",
            (_, Some(JobStatus::Pending | JobStatus::Running | JobStatus::Canceling)) => {
                "its newest build is under way"
            }
            (Some(Transition::Start), Some(JobStatus::Succeeded)) => "it runs",
            (Some(Transition::Stop), Some(JobStatus::Succeeded)) => "it is stopped, and what it keeps costs",
            (Some(Transition::Delete), Some(JobStatus::Succeeded)) => "it is about to be gone",
            (_, Some(JobStatus::Failed)) => "its newest build failed after it had committed",
            (_, Some(JobStatus::Canceled)) => "its newest build was canceled after it had committed",
            _ => "its newest build has committed it",
        }
    }
}

/// What a user consumes and may consume in an organization, in credits: a member, or a former member or deleted user
/// who consumes all the same.
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

/// How a person names a user: `me`, an id, or a username, parsed in this order. A name does not find deleted users; an
/// id also means a deleted user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UserRef {
    /// The caller.
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

/// Only the usual form is an id: 32 hexadecimal digits in a row may be a user's name.
fn hyphenated(text: &str) -> Option<Uuid> {
    (text.len() == 36).then(|| text.parse().ok()).flatten()
}
