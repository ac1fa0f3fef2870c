//! Working on a database that Coder's own server made and goes on writing to.
//!
//! The versions whose objects that server made are recorded as adopted, with what was compared; then the indexes of the later
//! ones are built like everywhere. Everything else of this layer is in the schema `coderdb`, and [`unadopt`] takes it away again.

mod check;
mod examination;
mod indexes;
mod needs;
mod owner;
mod record;
mod take_over;
mod unadopt;

pub use examination::{Adoption, Examination, examine};
pub(super) use indexes::own_objects;
pub use indexes::{IndexState, OwnIndex};
pub(super) use needs::all_differences;
pub use needs::{Difference, differences};
pub use owner::{grants, owner_sql};
pub use take_over::{Adopted, adopt};
pub use unadopt::unadopt;
