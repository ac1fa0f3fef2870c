//! What the tools publish about themselves.

use coderdb::tools::Tool;
use serde_json::{Value, json};

#[test]
fn names_descriptions_and_schemas_are_the_published_ones() {
    let tools: Vec<Value> = Tool::ALL
        .iter()
        .map(|tool| {
            json!({
                "name": tool.name(),
                "description": tool.description(),
                "arguments": tool.arguments_schema(),
                "reply": tool.reply_schema(),
            })
        })
        .collect();
    let golden: Vec<Value> = serde_json::from_str(include_str!("../golden/tools.json")).expect("JSON");
    let found = serde_json::to_string_pretty(&tools).expect("JSON");
    assert!(tools == golden, "tests/it/golden/tools.json should be:\n{found}");
}

#[test]
fn schemas_are_of_objects_and_refer_to_nothing_else() {
    for tool in Tool::ALL {
        for schema in [tool.arguments_schema(), tool.reply_schema()] {
            assert_eq!(schema["type"], "object");
            let text = Value::Object(schema.clone()).to_string();
            assert!(!text.contains("$ref"), "{text}");
            jsonschema::validator_for(&Value::Object(schema)).expect("a schema");
        }
    }
}

#[test]
fn the_schema_of_replies_is_strict() {
    let id = "00000000-0000-0000-0000-000000000001";
    let valid = |tool: Tool, reply: &Value| jsonschema::is_valid(&Value::Object(tool.reply_schema()), reply);
    let started = json!({ "started": true, "workspace_name": "dev", "build_id": id });
    assert!(valid(Tool::StartWorkspace, &started));
    assert!(!valid(Tool::CreateWorkspace, &started));
    for bad in [
        json!({}),
        json!({ "started": false, "workspace_name": "dev" }),
        json!({ "started": true }),
        json!({ "started": true, "workspace_name": "dev", "no_build": false }),
        json!({ "started": true, "workspace_name": "dev", "agent_status": "fine" }),
        json!({ "started": true, "workspace_name": "dev", "next_steps": "none" }),
        json!({ "started": true, "workspace_name": "dev", "build_id": null }),
        json!({ "error_code": "OTHER", "error": "", "title": "", "message": "" }),
        json!({ "error": "failed", "quota": { "credits_consumed": 1, "budget": 1 } }),
        json!("started"),
    ] {
        assert!(!valid(Tool::StartWorkspace, &bad), "{bad}");
    }
}

#[test]
fn the_schema_of_arguments_says_what_is_required() {
    let valid =
        |tool: Tool, arguments: &Value| jsonschema::is_valid(&Value::Object(tool.arguments_schema()), arguments);
    assert!(valid(Tool::CreateWorkspace, &json!({ "template_id": "x" })));
    assert!(valid(Tool::StartWorkspace, &json!({})));
    assert!(valid(Tool::StartWorkspace, &json!({ "parameters": { "a": "b" } })));
    assert!(!valid(Tool::CreateWorkspace, &json!({})));
    assert!(!valid(Tool::CreateWorkspace, &json!({ "template_id": null })));
    assert!(!valid(Tool::StartWorkspace, &json!({ "parameters": { "a": 1 } })));
    assert!(!valid(Tool::StartWorkspace, &json!({ "name": "x" })));
}

/// Some providers of models refuse a schema with `["string", "null"]`: what is optional is left out.
#[test]
fn no_schema_has_a_union_of_types_and_what_is_optional_is_not_required() {
    fn look(place: &str, schema: &Value) {
        match schema {
            Value::Object(keys) => {
                assert!(!keys.get("type").is_some_and(Value::is_array), "{place} has several types");
                assert!(keys.get("type").is_none_or(|kind| kind != "null"), "{place} may be null");
                for (key, value) in keys {
                    look(&format!("{place}.{key}"), value);
                }
            }
            Value::Array(values) => values.iter().for_each(|value| look(place, value)),
            Value::Null => panic!("{place} is null"),
            _ => {}
        }
    }
    for tool in Tool::ALL {
        let arguments = Value::Object(tool.arguments_schema());
        look(&format!("{}, arguments", tool.name()), &arguments);
        look(&format!("{}, reply", tool.name()), &Value::Object(tool.reply_schema()));
        let required = match tool {
            Tool::CreateWorkspace => json!(["template_id"]),
            Tool::StartWorkspace => json!(null),
        };
        assert_eq!(arguments["required"], required, "{}", tool.name());
    }
}
