//! Plain data: typed ids, closed sets, rows, filters and pages. Nothing here talks to a database.

mod api_key;
mod chat;
mod daemon;
mod enums;
mod file;
mod filter;
mod identity;
mod ids;
mod job;
pub(crate) mod job_json;
mod job_lifecycle;
mod job_logs;
mod license;
mod queue;
mod settings;
mod tags;
mod template;
mod workspace;

pub use api_key::*;
pub use chat::*;
pub use daemon::*;
pub use enums::*;
pub use file::*;
pub use filter::*;
pub use identity::*;
pub use ids::*;
pub use job::*;
pub use job_lifecycle::*;
pub use job_logs::*;
pub use license::*;
pub use queue::*;
pub use settings::*;
pub use tags::*;
pub use template::*;
pub use workspace::*;
