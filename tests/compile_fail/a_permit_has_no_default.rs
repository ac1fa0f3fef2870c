//! A permit that nobody checked would open something to everybody.

use coderdb::authz::{ReadJobs, WriteLicenses};

fn main() {
    let _ = <ReadJobs as Default>::default();
    let _ = <WriteLicenses as Default>::default();
}
