//! The layer's reads in other states of the same data: a table whose every page was just rewritten, so that no index can
//! be read alone; and a queue with many tag sets.

use coderdb::{
    demo::{self, Scale},
    model::{JobFilter, JobId, OrganizationId},
    sqlx::{self, PgConnection},
};

use super::{
    reads::{self, Caller, Read, Work},
    report::{Ratios, Table, label},
    server::{Schema, Server, run},
};

pub const SIDES: [&str; 3] = ["vacuumed", "just rewritten", "5,000 more tag sets"];

pub const PAGES: [&str; 3] = ["page one", "in the middle", "the last"];

/// 5,000 people wait for daemons of their own, and 50 of them have one.
pub async fn crowd(conn: &mut PgConnection, organization: OrganizationId) {
    let owner = "lpad(to_hex(x'bec00000'::bigint + n), 32, '0')::uuid";
    let tags = format!("jsonb_build_object('scope', 'user', 'owner', {owner})");
    let anchor = demo::ANCHOR;
    let sql = format!(
        "INSERT INTO provisioner_jobs (id, created_at, updated_at, organization_id, initiator_id, provisioner, storage_method,
             type, input, file_id, tags)
         SELECT {owner}, '{anchor}', '{anchor}', '{organization}', {owner}, 'terraform', 'file', 'template_version_dry_run',
             '{{}}', {owner}, {tags}
         FROM generate_series(1, 5000) AS n;
         INSERT INTO provisioner_daemons (id, created_at, name, provisioners, tags, last_seen_at, version, api_version,
             organization_id, key_id)
         SELECT {owner}, d.created_at, 'own-' || n, d.provisioners, {tags}, '{anchor}', d.version, d.api_version,
             d.organization_id, d.key_id
         FROM generate_series(1, 50) AS n
         CROSS JOIN (SELECT * FROM provisioner_daemons WHERE organization_id = '{organization}' ORDER BY id LIMIT 1) AS d"
    );
    run(conn, &sql).await;
    run(conn, "VACUUM (ANALYZE) provisioner_jobs").await;
}

pub async fn pages(server: &Server, scale: Scale) -> Table {
    let layer = server.database(Schema::Whole, scale).await;
    let mut pages = vec![Caller::layer(server, &layer, PAGES[0]).await];
    for (name, skipped) in PAGES[1..].iter().zip(["count(*) / 2", "count(*) - 51"]) {
        pages.push(Caller::page(server, &layer, name, skipped).await);
    }
    let work = Work::new("50 jobs", vec![Read::List(JobFilter::default())]);
    let rows = vec![reads::time(&mut pages, &work).await];
    Table::new(format!("Pages of a walk, {}", label(scale)), Ratios::TimesTheFirst, rows)
}

pub async fn measure(server: &Server, scale: Scale) -> Table {
    let layer = server.database(Schema::Whole, scale).await;
    let rewritten = server.copy(&layer, "rewritten").await;
    let crowded = server.copy(&layer, "crowded").await;
    let mut conn = server.connect(&rewritten).await;
    // As an update of each row would, it leaves no page that is known to be visible to all; but no dead rows either.
    run(&mut conn, "VACUUM (FULL, ANALYZE) provisioner_jobs").await;
    let known: i32 = sqlx::query_scalar("SELECT relallvisible FROM pg_class WHERE oid = 'provisioner_jobs'::regclass")
        .fetch_one(&mut conn)
        .await
        .expect("a count");
    assert_eq!(known, 0, "pages that are visible to all");
    let mut conn = server.connect(&crowded).await;
    let organization = reads::organization(&mut conn).await;
    crowd(&mut conn, organization).await;

    let mut sides = Vec::new();
    for (database, name) in [&layer, &rewritten, &crowded].into_iter().zip(SIDES) {
        sides.push(Caller::layer(server, database, name).await);
    }
    let mut rows = Vec::new();
    for work in reads::works(&mut sides[0], scale).await {
        if ["list", "list, pending", "get, pending", "by ids, 1 pending", "by ids, 50 pending"].contains(&work.name) {
            rows.push(reads::time(&mut sides, &work).await);
        }
    }
    let own = |n: u32| (0..n).map(|n| JobId(uuid::Uuid::from_u128(0xbec0_0001 + u128::from(n)))).collect();
    for (name, ids) in [("by ids, 1 with tags of its own", own(1)), ("by ids, 50 with tags of their own", own(50))] {
        let work = Work::new(name, vec![Read::ByIds(ids)]);
        let mut row = reads::time(&mut sides[2..], &work).await;
        row.sides.splice(0..0, SIDES[..2].iter().map(|side| (*side, Vec::new())));
        rows.push(row);
    }
    drop((sides, conn));
    server.drop(&rewritten).await;
    server.drop(&crowded).await;
    let mut table = Table::new(format!("After changes, {}", label(scale)), Ratios::TimesTheFirst, rows);
    "Just rewritten: by `VACUUM FULL`, after which no page is known to be visible to all. 5,000 more tag sets: as many \
     jobs wait, each with tags of its own, and 50 daemons can take one each."
        .clone_into(&mut table.below);
    table
}
