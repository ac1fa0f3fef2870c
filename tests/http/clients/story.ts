// The operator's story with a client that openapi-typescript has generated: scripts/judge compiles and runs it.
import assert from "node:assert/strict";
import createClient from "openapi-fetch";
import type { paths } from "./schema.js";

const client = createClient<paths>({
  baseUrl: process.env.CODERDB_URL!,
  headers: { "Coder-Session-Token": process.env.CODERDB_TOKEN! },
});
const path = { organization: "coder" };

const listed = await client.GET("/api/v2/organizations/{organization}/provisionerjobs", {
  params: { path, query: { search: "initiator:prebuilds status:pending", limit: 100 } },
});
assert(listed.data && listed.data.length > 0, "prebuilds wait");
const waiting: string[] = listed.data.map((job) => job.id);

const body = { search: "initiator:prebuilds status:pending" };
const previewed = await client.POST("/api/v2/organizations/{organization}/provisionerjobs/cancel", {
  params: { path },
  body: { ...body, dry_run: true },
});
assert.equal(previewed.data?.outcomes.would_be_canceled, waiting.length);

const paused = await client.PUT("/api/v2/prebuilds/settings", { body: { reconciliation_paused: true } });
assert.equal(paused.response.status, 200);
const again = await client.PUT("/api/v2/prebuilds/settings", { body: { reconciliation_paused: true } });
assert.equal(again.response.status, 304);

const canceled = await client.POST("/api/v2/organizations/{organization}/provisionerjobs/cancel", {
  params: { path },
  body,
});
assert.equal(canceled.data?.outcomes.canceled, waiting.length);

const quota = await client.GET("/api/v2/organizations/{organization}/members/{user}/workspace-quota", {
  params: { path: { ...path, user: "dave" } },
});
assert(quota.data && quota.data.budget > 0 && quota.data.credits_consumed > 0);

const failed = await client.GET("/api/v2/organizations/{organization}/provisionerjobs", {
  params: { path, query: { search: "error_code:INSUFFICIENT_QUOTA" } },
});
assert(failed.data?.every((job) => job.error_code === "INSUFFICIENT_QUOTA") && failed.data.length > 0);

const unknown = await client.GET("/api/v2/organizations/{organization}/provisionerjobs/{job}", {
  params: { path: { ...path, job: "00000000-0000-0000-0000-000000000009" } },
});
assert.equal(unknown.error?.message, "Resource not found or you do not have access to this resource");

const resumed = await client.PUT("/api/v2/prebuilds/settings", { body: { reconciliation_paused: false } });
assert.equal(resumed.data?.reconciliation_paused, false);
console.log(`${waiting.length} jobs canceled`);
