//! Who may do what. The proof that an actor may run a query *is* the scope of that query.
//!
//! An [`Actor`] is a user with the roles that the database holds, or a part of the product. A permit, such as
//! [`ReadJobs`], comes only out of its `check`, and a query reads the organization or the owner from it: leaving the
//! scope out does not compile, and asking for what belongs to others finds nothing. [`Denied`] looks like *not found*,
//! because an actor who may not see an object may not learn that it exists.
//!
//! ```
//! use coderdb::{authz::{Actor, ReadJobs, System}, model::OrganizationId};
//!
//! let organization = OrganizationId::from(uuid::Uuid::nil());
//! assert!(ReadJobs::check(&Actor::system(System::Operator), organization).is_ok());
//! assert!(ReadJobs::check(&Actor::system(System::ChatDaemon), organization).is_err());
//! ```
//!
//! Nothing else makes one:
//!
//! ```compile_fail
//! let forged = coderdb::authz::ReadJobs { organization: uuid::Uuid::nil().into(), _checked: () };
//! ```

mod actor;
mod agents;
mod api_keys;
mod builds;
mod chats;
mod daemons;
mod files;
mod identity;
mod jobs;
mod licenses;
mod permit;
mod queue;
mod quota;
mod settings;
mod templates;
mod workspaces;

pub(crate) use actor::CustomPermission;
pub use actor::{Actor, OrganizationRole, SiteRole, System};
pub use agents::*;
pub use api_keys::*;
pub use builds::*;
pub use chats::*;
pub use daemons::*;
pub use files::*;
pub use identity::*;
pub use jobs::*;
pub use licenses::*;
pub use permit::ReplicaSafe;
pub use queue::*;
pub use quota::*;
pub use settings::*;
pub use templates::*;
pub use workspaces::*;

use crate::model::Entity;

/// The actor may not do this, or the thing is not there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{entity} not found: {key}")]
pub struct Denied {
    /// What was asked for.
    pub entity: Entity,
    /// Its id or name.
    pub key: String,
}
