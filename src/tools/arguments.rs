//! What the tools take.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Map, Value};

use super::operations::Parameter;

/// The arguments of `create_workspace`.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateWorkspace {
    /// The id of the template to make the workspace from.
    #[schemars(required, extend("format" = "uuid"))]
    pub template_id: Option<String>,
    /// The name of the workspace: 1 to 32 letters, digits and single hyphens, starting and ending with a letter or digit,
    /// and neither new nor create. Without one, the workspace gets a name like the template's.
    pub name: Option<String>,
    /// Values for parameters of the template, by name. Those that are left out have the template's defaults.
    pub parameters: Option<BTreeMap<String, String>>,
    /// The id of a preset of the template's active version, which gives values to parameters.
    #[schemars(extend("format" = "uuid"))]
    pub preset_id: Option<String>,
}

/// The arguments of `start_workspace`.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StartWorkspace {
    /// Values for parameters of the template, by name. Those that are left out stay as they are.
    pub parameters: Option<BTreeMap<String, String>>,
}

/// As a list, in the order of the names.
pub(super) fn parameters(given: Option<&BTreeMap<String, String>>) -> Vec<Parameter> {
    let parameter = |(name, value): (&String, &String)| Parameter { name: name.clone(), value: value.clone() };
    given.into_iter().flatten().map(parameter).collect()
}

/// The arguments, or which of them is wrong and what is expected.
pub(super) fn parse<T: DeserializeOwned>(arguments: Value) -> Result<T, String> {
    // Some agents send no object when they have nothing to say.
    let arguments = match arguments {
        Value::Null => Value::Object(Map::new()),
        arguments @ Value::Object(_) => arguments,
        // The parser would take a list as the fields in their order.
        _ => return Err("invalid arguments: expected an object".to_owned()),
    };
    serde_path_to_error::deserialize(arguments).map_err(|error: serde_path_to_error::Error<serde_json::Error>| {
        format!("invalid {}: {}", error.path(), error.inner())
    })
}
