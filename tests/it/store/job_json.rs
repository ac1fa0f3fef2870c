//! The JSON of a provisioner job, key by key (domain: job json).

use coderdb::model::{
    Job, JobDetails, JobErrorCode, JobInput, JobStatus, JobType, JobWithQueue, ProvisionerType, StorageMethod, Tags,
    Transition,
};
use serde_json::{Value, json};
use time::macros::datetime;
use uuid::Uuid;

use crate::support::job_json::{DECODE_INPUT, actual, rfc3339};

const ID: &str = "11111111-1111-4111-8111-111111111111";
const OTHER: &str = "22222222-2222-4222-8222-222222222222";
const NIL: &str = "00000000-0000-0000-0000-000000000000";

fn id<Id: From<Uuid>>(text: &str) -> Id {
    text.parse::<Uuid>().unwrap().into()
}

fn waiting_job() -> Job {
    Job {
        id: id(ID),
        created_at: datetime!(2026-05-07 12:00 UTC),
        updated_at: datetime!(2026-05-07 13:00 UTC),
        started_at: None,
        canceled_at: None,
        completed_at: None,
        error: None,
        error_code: None,
        organization_id: id(OTHER),
        initiator_id: id(OTHER),
        provisioner: ProvisionerType::Terraform.into(),
        storage_method: StorageMethod::File.into(),
        job_type: JobType::TemplateVersionImport.into(),
        input: JobInput::default(),
        worker_id: None,
        file_id: id(ID),
        tags: Tags::default(),
        trace_metadata: Some(json!({"traceparent": "00"})),
        status: JobStatus::Pending,
        logs_length: 7,
        logs_overflowed: false,
    }
}

fn details(job: Job) -> JobDetails {
    JobDetails {
        job,
        queue_position: 1,
        queue_size: 2,
        available_workers: Vec::new(),
        worker_name: String::new(),
        workspace_build_transition: None,
        workspace_id: None,
        workspace_name: String::new(),
        template_version_name: String::new(),
        template_id: None,
        template_name: String::new(),
        template_display_name: String::new(),
        template_icon: String::new(),
    }
}

fn json_of(row: &impl serde::Serialize) -> Value {
    serde_json::to_value(row).unwrap()
}

#[test]
fn a_waiting_import_has_the_keys_that_are_always_there_and_no_others() {
    let expected = json!({
        "id": ID, "created_at": "2026-05-07T12:00:00Z", "status": "pending", "file_id": ID, "tags": {},
        "queue_position": 1, "queue_size": 2, "organization_id": OTHER, "initiator_id": OTHER, "input": {},
        "type": "template_version_import", "logs_overflowed": false,
        "metadata": {
            "template_version_name": "", "template_id": NIL, "template_name": "", "template_display_name": "",
            "template_icon": "",
        },
    });
    assert_eq!(json_of(&details(waiting_job())), expected);
    let queued = JobWithQueue { job: waiting_job(), queue_position: 1, queue_size: 2 };
    assert_eq!(json_of(&queued), expected, "a row of the other query has the same object");
}

#[test]
fn a_failed_build_has_every_key() {
    let job = Job {
        created_at: datetime!(2026-05-07 14:30:15.25 +2),
        started_at: Some(datetime!(2026-05-07 12:00:00.000001 UTC)),
        canceled_at: Some(datetime!(0001-01-01 0:00 UTC)),
        completed_at: Some(datetime!(9999-12-31 23:59:59.999999 UTC)),
        error: Some("insufficient quota".to_owned()),
        error_code: Some(JobErrorCode::InsufficientQuota),
        job_type: JobType::WorkspaceBuild.into(),
        input: JobInput {
            template_version_id: Some(id(ID)),
            workspace_build_id: Some(id(OTHER)),
            error: Some("decode input: something".to_owned()),
        },
        worker_id: Some(id(ID)),
        tags: Tags::from_iter([("scope", "organization"), ("owner", "")]),
        status: JobStatus::Failed,
        logs_overflowed: true,
        ..waiting_job()
    };
    let row = JobDetails {
        available_workers: vec![id(OTHER), id(ID)],
        worker_name: "daemon".to_owned(),
        workspace_build_transition: Some(Transition::Start.into()),
        workspace_id: Some(id(ID)),
        workspace_name: "workspace".to_owned(),
        template_version_name: "v1".to_owned(),
        template_id: Some(id(OTHER)),
        template_name: "template".to_owned(),
        template_display_name: "A Template".to_owned(),
        template_icon: "/icon/k8s.svg".to_owned(),
        ..details(job.clone())
    };
    let mut expected = json!({
        "id": ID, "created_at": "2026-05-07T12:30:15.25Z", "started_at": "2026-05-07T12:00:00.000001Z",
        "canceled_at": "0001-01-01T00:00:00Z", "completed_at": "9999-12-31T23:59:59.999999Z",
        "error": "insufficient quota", "error_code": "INSUFFICIENT_QUOTA", "status": "failed", "worker_id": ID,
        "worker_name": "daemon", "file_id": ID, "tags": {"owner": "", "scope": "organization"}, "queue_position": 1,
        "queue_size": 2, "organization_id": OTHER, "initiator_id": OTHER,
        "input": {"template_version_id": ID, "workspace_build_id": OTHER, "error": "decode input: something"},
        "type": "workspace_build", "available_workers": [OTHER, ID],
        "metadata": {
            "template_version_name": "v1", "template_id": OTHER, "template_name": "template",
            "template_display_name": "A Template", "template_icon": "/icon/k8s.svg", "workspace_id": ID,
            "workspace_name": "workspace", "workspace_build_transition": "start",
        },
        "logs_overflowed": true,
    });
    let mut actual = json_of(&row);
    // A client reads the offset, too: only the moment is promised for a time that did not come from the database.
    actual["created_at"] = json!(rfc3339(job.created_at));
    assert_eq!(actual, expected);

    let queued = JobWithQueue { job, queue_position: 1, queue_size: 2 };
    let mut actual = json_of(&queued);
    actual["created_at"] = expected["created_at"].clone();
    let keys = expected.as_object_mut().unwrap();
    keys.remove("worker_name");
    keys.remove("available_workers");
    keys["metadata"] = json!({
        "template_version_name": "", "template_id": NIL, "template_name": "", "template_display_name": "",
        "template_icon": "",
    });
    assert_eq!(actual, expected, "the other query looks up neither names nor workers");
}

#[test]
fn an_empty_error_is_left_out() {
    let job = Job { error: Some(String::new()), ..waiting_job() };
    assert_eq!(json_of(&details(job)), json_of(&details(waiting_job())));
}

#[test]
fn every_closed_set_is_spelled_as_in_the_database() {
    for (status, text) in [
        (JobStatus::Pending, "pending"),
        (JobStatus::Running, "running"),
        (JobStatus::Succeeded, "succeeded"),
        (JobStatus::Canceling, "canceling"),
        (JobStatus::Canceled, "canceled"),
        (JobStatus::Failed, "failed"),
        (JobStatus::Unknown, "unknown"),
    ] {
        assert_eq!(json_of(&details(Job { status, ..waiting_job() }))["status"], text);
    }
    for (job_type, text) in [
        (JobType::TemplateVersionImport, "template_version_import"),
        (JobType::WorkspaceBuild, "workspace_build"),
        (JobType::TemplateVersionDryRun, "template_version_dry_run"),
    ] {
        let job = Job { job_type: job_type.into(), ..waiting_job() };
        assert_eq!(json_of(&details(job))["type"], text);
    }
    for (transition, text) in [(Transition::Start, "start"), (Transition::Stop, "stop"), (Transition::Delete, "delete")]
    {
        let row = JobDetails { workspace_build_transition: Some(transition.into()), ..details(waiting_job()) };
        assert_eq!(json_of(&row)["metadata"]["workspace_build_transition"], text);
    }
}

#[test]
fn an_error_code_that_nobody_knows_is_passed_on() {
    for code in ["MISSING_TEMPLATE_PARAMETER", "REQUIRED_TEMPLATE_VARIABLES", "INSUFFICIENT_QUOTA", "SOMETHING_NEW"] {
        let job = Job { error_code: Some(code.to_owned().into()), ..waiting_job() };
        assert_eq!(json_of(&details(job))["error_code"], code);
    }
}

#[test]
fn an_input_that_cannot_be_decoded_says_so() {
    for (stored, error) in [
        (json!(null), false),
        (json!({}), false),
        (json!({"workspace_build_id": null}), false),
        (json!({"workspace_build_id": ID}), false),
        (json!({"workspace_build_id": "x"}), true),
        (json!({"workspace_build_id": ""}), true),
        (json!({"workspace_build_id": 1}), true),
        (json!({"template_version_id": [ID]}), true),
        (json!([]), true),
        (json!("workspace_build_id"), true),
        (json!(false), true),
    ] {
        let row = details(Job { input: JobInput::of(stored.to_string().as_bytes()), ..waiting_job() });
        assert_eq!(actual(&row)["input"].get("error"), error.then_some(&json!(DECODE_INPUT)), "{stored}");
    }
}

#[test]
fn the_model_writes_times_as_rfc_3339() {
    for (time, text) in [
        (datetime!(2026-05-07 12:00:00 UTC), "2026-05-07T12:00:00Z"),
        (datetime!(2026-05-07 12:00:10 UTC), "2026-05-07T12:00:10Z"),
        (datetime!(2026-05-07 12:00:10.5 UTC), "2026-05-07T12:00:10.5Z"),
        (datetime!(2026-05-07 12:00:00.000010 UTC), "2026-05-07T12:00:00.00001Z"),
    ] {
        assert_eq!(rfc3339(time), text);
    }
}
