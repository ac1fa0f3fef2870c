//! A copy with another scope is not a permit.

use coderdb::{authz::ReadJobs, model::OrganizationId};

fn elsewhere(permit: ReadJobs, organization: OrganizationId) -> ReadJobs {
    ReadJobs { organization, ..permit }
}

fn main() {}
