//! The JSON of a job as the domain says it, and as the library writes it.

use serde_json::{Map, Value, json};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::support::model::{JobRow, ListedJob, QueuedJob};

/// What stands for every text that begins with `decode input`.
pub const DECODE_INPUT: &str = "decode input";

/// The JSON of a row of a listing.
pub fn of_listed(row: &ListedJob<'_>) -> Value {
    let mut json = of_job(row.job, row.queue_position, row.queue_size);
    put_text(&mut json, "worker_name", &row.worker_name);
    if !row.available_workers.is_empty() {
        let workers = row.available_workers.iter().map(|id| json!(id.to_string()));
        json.insert("available_workers".to_owned(), workers.collect());
    }
    // These are always there; without a template its id is the zero UUID.
    let mut metadata = Map::new();
    for (key, text) in [
        ("template_version_name", &row.template_version_name),
        ("template_name", &row.template_name),
        ("template_display_name", &row.template_display_name),
        ("template_icon", &row.template_icon),
    ] {
        metadata.insert(key.to_owned(), json!(text));
    }
    metadata.insert("template_id".to_owned(), json!(row.template_id.unwrap_or_default().to_string()));
    // These are left out if there is no build.
    put_text(&mut metadata, "workspace_id", &row.workspace_id.map(|id| id.to_string()).unwrap_or_default());
    put_text(&mut metadata, "workspace_name", &row.workspace_name);
    put_text(
        &mut metadata,
        "workspace_build_transition",
        row.workspace_build_transition.as_deref().unwrap_or_default(),
    );
    json.insert("metadata".to_owned(), Value::Object(metadata));
    Value::Object(json)
}

/// The JSON of a job that was asked for by its id: no worker name, no available workers, empty metadata.
pub fn of_queued(row: &QueuedJob<'_>) -> Value {
    let mut json = of_job(row.job, row.queue_position, row.queue_size);
    let metadata = json!({
        "template_version_name": "", "template_id": "00000000-0000-0000-0000-000000000000", "template_name": "",
        "template_display_name": "", "template_icon": "",
    });
    json.insert("metadata".to_owned(), metadata);
    Value::Object(json)
}

pub fn of_job(job: &JobRow, queue_position: i64, queue_size: i64) -> Map<String, Value> {
    let mut json = Map::new();
    let mut always = |key: &str, value: Value| json.insert(key.to_owned(), value);
    always("id", json!(job.id.to_string()));
    always("created_at", json!(rfc3339(job.created_at)));
    always("status", json!(job.status()));
    always("file_id", json!(job.file_id.to_string()));
    always("tags", object_of_strings(&job.tags));
    always("queue_position", json!(queue_position));
    always("queue_size", json!(queue_size));
    always("organization_id", json!(job.organization_id.to_string()));
    always("initiator_id", json!(job.initiator_id.to_string()));
    always("type", json!(job.job_type));
    always("logs_overflowed", json!(job.logs_overflowed));
    let decoded = job.decoded_input();
    let mut input = Map::new();
    put_text(&mut input, "template_version_id", &text(decoded.template_version_id));
    put_text(&mut input, "workspace_build_id", &text(decoded.workspace_build_id));
    put_text(&mut input, "error", if decoded.broken { DECODE_INPUT } else { "" });
    always("input", Value::Object(input));
    // Left out when they are null.
    for (key, time) in
        [("started_at", job.started_at), ("completed_at", job.completed_at), ("canceled_at", job.canceled_at)]
    {
        put_text(&mut json, key, &time.map(rfc3339).unwrap_or_default());
    }
    put_text(&mut json, "worker_id", &text(job.worker_id));
    // Left out when they are empty.
    put_text(&mut json, "error", job.error.as_deref().unwrap_or_default());
    put_text(&mut json, "error_code", job.error_code.as_deref().unwrap_or_default());
    json
}

pub fn put_text(json: &mut Map<String, Value>, key: &str, text: &str) {
    if !text.is_empty() {
        json.insert(key.to_owned(), json!(text));
    }
}

pub fn text(id: Option<Uuid>) -> String {
    id.map(|id| id.to_string()).unwrap_or_default()
}

/// Tags: a value that is no string as its JSON text, anything else as no tags.
pub fn object_of_strings(tags: &Value) -> Value {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned);
    let pairs = tags.as_object().into_iter().flatten().map(|(key, value)| (key.clone(), json!(text(value))));
    Value::Object(pairs.collect())
}

/// RFC 3339 in UTC, with as many digits of a second as are needed.
pub fn rfc3339(at: OffsetDateTime) -> String {
    let (year, month, day) = at.to_offset(time::UtcOffset::UTC).to_calendar_date();
    let (hour, minute, second, nanosecond) = at.to_offset(time::UtcOffset::UTC).to_hms_nano();
    let seconds = format!("{second:02}.{nanosecond:09}");
    let seconds = seconds.trim_end_matches('0').trim_end_matches('.');
    // A whole second keeps its own zeros.
    let seconds = if nanosecond == 0 { format!("{second:02}") } else { seconds.to_owned() };
    format!("{year:04}-{:02}-{day:02}T{hour:02}:{minute:02}:{seconds}Z", u8::from(month))
}

/// What the library wrote, with the text of a decoding error cut to what the domain says of it.
pub fn actual(row: &impl serde::Serialize) -> Value {
    let mut json = serde_json::to_value(row).unwrap();
    if let Some(error) = json.pointer_mut("/input/error")
        && error.as_str().is_some_and(|text| text.starts_with(DECODE_INPUT))
    {
        *error = json!(DECODE_INPUT);
    }
    json
}
