//! A permit does not come from outside.

use coderdb::authz::{ReadJobs, WriteLicenses};
use serde::Deserialize;

fn main() {
    let _ = ReadJobs::deserialize(serde_json::Value::Null);
    let _ = WriteLicenses::deserialize(serde_json::Value::Null);
}
