//! Plain data: typed ids, closed sets, rows, filters and pages. Nothing here talks to a database.

mod enums;
mod filter;
mod identity;
mod ids;
mod job;
mod job_json;
mod tags;
mod workspace;

pub use enums::*;
pub use filter::*;
pub use identity::*;
pub use ids::*;
pub use job::*;
pub use tags::*;
pub use workspace::*;
