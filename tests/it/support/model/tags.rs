//! Tags (domain: tags).

use serde_json::Value;

/// `provisioner_tagset_contains(provisioner_tags, job_tags)` of two values that are not NULL.
pub fn tagset_contains(provisioner_tags: &Value, job_tags: &Value) -> bool {
    let untagged = serde_json::json!({"scope": "organization", "owner": ""});
    if *job_tags == untagged {
        // A daemon with more tags does not take it.
        *provisioner_tags == untagged
    } else {
        jsonb_contains(provisioner_tags, job_tags)
    }
}

/// `outer @> inner`. At the top level only, an array also contains a scalar that is one of its elements.
pub fn jsonb_contains(outer: &Value, inner: &Value) -> bool {
    match (outer, inner) {
        (Value::Array(elements), scalar) if !scalar.is_array() && !scalar.is_object() => {
            elements.iter().any(|element| jsonb_equal(element, scalar))
        }
        _ => nested_contains(outer, inner),
    }
}

pub fn nested_contains(outer: &Value, inner: &Value) -> bool {
    match (outer, inner) {
        (Value::Object(outer), Value::Object(inner)) => {
            inner.iter().all(|(key, value)| outer.get(key).is_some_and(|mine| nested_contains(mine, value)))
        }
        (Value::Array(outer), Value::Array(inner)) => {
            inner.iter().all(|element| outer.iter().any(|mine| nested_contains(mine, element)))
        }
        (outer, inner) => jsonb_equal(outer, inner),
    }
}

/// jsonb equality: numbers by value, so that 1 equals 1.0.
pub fn jsonb_equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) if a.is_f64() || b.is_f64() => a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| jsonb_equal(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| jsonb_equal(a, b)))
        }
        _ => a == b,
    }
}
