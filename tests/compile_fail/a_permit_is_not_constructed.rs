//! Only `check` makes a permit: its fields are private, and one without a scope has a private field, too.

use coderdb::{
    authz::{ReadJobs, ReadOrganizations, WriteLicenses},
    model::OrganizationId,
};

fn main() {
    let organization = OrganizationId::from(uuid::Uuid::nil());
    let _ = ReadJobs { organization, _checked: () };
    let _ = WriteLicenses { _checked: () };
    let _ = ReadOrganizations { only: None };
}
