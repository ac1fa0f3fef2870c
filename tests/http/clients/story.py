"""The operator's story with a client that openapi-python-client has generated: scripts/judge runs it."""

import os

from coder_api_client import AuthenticatedClient
from coder_api_client.api.enterprise import get_workspace_quota_by_user
from coder_api_client.api.organizations import cancel_provisioner_jobs, get_provisioner_job, get_provisioner_jobs
from coder_api_client.api.prebuilds import get_prebuilds_settings, update_prebuilds_settings
from coder_api_client.api.provisioning import get_provisioner_daemons
from coder_api_client.models import (
    CancelProvisionerJobsRequest,
    ErrorCode,
    JobStatus,
    Message,
    PrebuildsSettings,
)

client = AuthenticatedClient(base_url=os.environ["CODERDB_URL"], token=os.environ["CODERDB_TOKEN"])

jobs = get_provisioner_jobs.sync("coder", client=client, status=[JobStatus.RUNNING])
assert jobs and all(job.status == JobStatus.RUNNING for job in jobs)
job = get_provisioner_job.sync("coder", jobs[0].id, client=client)
assert job.id == jobs[0].id and job.worker_name

request = CancelProvisionerJobsRequest(search=f"id:{job.id}", dry_run=True)
previewed = cancel_provisioner_jobs.sync("coder", client=client, body=request)
assert previewed.outcomes.additional_properties == {"would_be_canceled": 1}, previewed
request.dry_run = False
canceled = cancel_provisioner_jobs.sync("coder", client=client, body=request)
assert canceled.outcomes.additional_properties == {"canceling": 1}, canceled

failed = get_provisioner_jobs.sync("coder", client=client, search="error_code:INSUFFICIENT_QUOTA")
assert failed and all(job.error_code == ErrorCode.INSUFFICIENT_QUOTA for job in failed)

quota = get_workspace_quota_by_user.sync("coder", "dave", client=client)
assert quota.budget > 0

assert update_prebuilds_settings.sync_detailed(client=client, body=PrebuildsSettings(True)).status_code == 200
assert get_prebuilds_settings.sync(client=client).reconciliation_paused
assert update_prebuilds_settings.sync_detailed(client=client, body=PrebuildsSettings(False)).status_code == 200
assert get_provisioner_daemons.sync("coder", client=client, offline=True)

missing = get_provisioner_job.sync("coder", "00000000-0000-0000-0000-000000000009", client=client)
assert isinstance(missing, Message) and missing.message.startswith("Resource not found")
print(f"{job.id} is being canceled")
