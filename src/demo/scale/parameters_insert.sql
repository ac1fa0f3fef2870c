INSERT INTO demo_scale (
    anchor, origin, history, builds, imports, dry_runs, past_imports, past_dry_runs, waiting_builds, waiting_prebuilds,
    busy_of_ten, templates, workspaces, heavy, big_share, first_import
)
VALUES (
    $1::timestamptz, $1::timestamptz - interval '8760 hours', interval '8759 hours', $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13,
    $10::bigint::double precision / $5::bigint
)
