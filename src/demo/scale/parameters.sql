CREATE TEMPORARY TABLE demo_scale (
    anchor timestamp with time zone NOT NULL,
    -- A year before, in hours: a year in days would follow the session's daylight saving time.
    origin timestamp with time zone NOT NULL,
    history interval NOT NULL,
    builds bigint NOT NULL,
    imports bigint NOT NULL,
    dry_runs bigint NOT NULL,
    past_imports bigint NOT NULL,
    past_dry_runs bigint NOT NULL,
    waiting_builds bigint NOT NULL,
    waiting_prebuilds bigint NOT NULL,
    busy_of_ten bigint NOT NULL,
    templates bigint NOT NULL,
    workspaces bigint NOT NULL,
    heavy bigint NOT NULL,
    big_share bigint NOT NULL,
    -- When every template has its first version, as a part of the history.
    first_import double precision NOT NULL
) ON COMMIT DROP;
