//! The scope of a permit is read, never written.

use coderdb::{authz::ReadJobs, model::OrganizationId};

fn elsewhere(mut permit: ReadJobs, organization: OrganizationId) -> ReadJobs {
    permit.organization = organization;
    permit
}

fn main() {}
