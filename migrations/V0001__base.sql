-- What:     the base schema: identity, templates, workspaces and their builds, provisioner jobs, quota, chats.
-- Locks:    none that anybody could wait for: every object is new.
-- Old code: there is none before the first version.
--
-- Names, columns, constraints, indexes and triggers are Coder's, because this layer also runs on databases that Coder
-- created. A table that no statement and no reference needs is left out; a test compares the rest with Coder's catalog.

-- Types ---------------------------------------------------------------------------------------------------------------

CREATE TYPE agent_key_scope_enum AS ENUM ('all', 'no_user_data');
CREATE TYPE api_key_scope AS ENUM ('coder:all', 'coder:application_connect');
CREATE TYPE app_sharing_level AS ENUM ('owner', 'authenticated', 'organization', 'public');
CREATE TYPE audit_action AS ENUM (
    'create', 'write', 'delete', 'start', 'stop', 'login', 'logout', 'register', 'request_password_reset', 'connect',
    'disconnect', 'open', 'close'
);
CREATE TYPE automatic_updates AS ENUM ('always', 'never');
CREATE TYPE build_reason AS ENUM (
    'initiator', 'autostart', 'autostop', 'dormancy', 'failedstop', 'autodelete', 'dashboard', 'cli', 'ssh_connection',
    'vscode_connection', 'jetbrains_connection', 'task_auto_pause', 'task_manual_pause', 'task_resume'
);
CREATE TYPE chat_client_type AS ENUM ('ui', 'api');
CREATE TYPE chat_mode AS ENUM ('computer_use', 'explore');
CREATE TYPE chat_plan_mode AS ENUM ('plan');
CREATE TYPE chat_status AS ENUM (
    'waiting', 'pending', 'running', 'paused', 'completed', 'error', 'requires_action'
);
CREATE TYPE cors_behavior AS ENUM ('simple', 'passthru');
CREATE TYPE display_app AS ENUM (
    'vscode', 'vscode_insiders', 'web_terminal', 'ssh_helper', 'port_forwarding_helper'
);
CREATE TYPE group_source AS ENUM ('user', 'oidc');
CREATE TYPE log_level AS ENUM ('trace', 'debug', 'info', 'warn', 'error');
CREATE TYPE log_source AS ENUM ('provisioner_daemon', 'provisioner');
CREATE TYPE login_type AS ENUM ('password', 'github', 'oidc', 'token', 'none', 'oauth2_provider_app');
CREATE TYPE notification_message_status AS ENUM (
    'pending', 'leased', 'sent', 'permanent_failure', 'temporary_failure', 'unknown', 'inhibited'
);
CREATE TYPE notification_method AS ENUM ('smtp', 'webhook', 'inbox');
CREATE TYPE notification_template_kind AS ENUM ('system', 'custom');
CREATE TYPE prebuild_status AS ENUM ('healthy', 'hard_limited', 'validation_failed');
CREATE TYPE provisioner_daemon_status AS ENUM ('offline', 'idle', 'busy');
CREATE TYPE provisioner_job_status AS ENUM (
    'pending', 'running', 'succeeded', 'canceling', 'canceled', 'failed', 'unknown'
);
CREATE TYPE provisioner_job_timing_stage AS ENUM ('init', 'plan', 'graph', 'apply');
CREATE TYPE provisioner_job_type AS ENUM ('template_version_import', 'workspace_build', 'template_version_dry_run');
CREATE TYPE provisioner_storage_method AS ENUM ('file');
CREATE TYPE provisioner_type AS ENUM ('echo', 'terraform');
CREATE TYPE resource_type AS ENUM (
    'organization', 'template', 'template_version', 'user', 'workspace', 'git_ssh_key', 'api_key', 'group',
    'workspace_build', 'license', 'workspace_proxy', 'convert_login', 'health_settings', 'oauth2_provider_app',
    'oauth2_provider_app_secret', 'custom_role', 'organization_member', 'notifications_settings',
    'notification_template', 'idp_sync_settings_organization', 'idp_sync_settings_group', 'idp_sync_settings_role',
    'workspace_agent', 'workspace_app', 'prebuilds_settings', 'task', 'ai_seat'
);
CREATE TYPE shareable_workspace_owners AS ENUM ('none', 'everyone', 'service_accounts');
CREATE TYPE user_status AS ENUM ('active', 'suspended', 'dormant');
CREATE TYPE workspace_agent_lifecycle_state AS ENUM (
    'created', 'starting', 'start_timeout', 'start_error', 'ready', 'shutting_down', 'shutdown_timeout',
    'shutdown_error', 'off'
);
CREATE TYPE workspace_agent_subsystem AS ENUM ('envbuilder', 'envbox', 'none', 'exectrace');
CREATE TYPE workspace_transition AS ENUM ('start', 'stop', 'delete');

CREATE DOMAIN tagset AS jsonb;
COMMENT ON DOMAIN tagset IS
    'A JSON object from string to string: the tags of a provisioner daemon or of a job. JSON null means no filter.';

-- Either the one or the other: an untagged job must never land on a daemon that has more tags.
CREATE FUNCTION provisioner_tagset_contains(provisioner_tags tagset, job_tags tagset) RETURNS boolean
LANGUAGE plpgsql
AS $$
DECLARE
    untagged CONSTANT jsonb := '{"scope": "organization", "owner": ""}';
BEGIN
    RETURN CASE
        WHEN job_tags::jsonb = untagged THEN provisioner_tags::jsonb = untagged
        ELSE provisioner_tags::jsonb @> job_tags::jsonb
    END;
END
$$;
COMMENT ON FUNCTION provisioner_tagset_contains(tagset, tagset) IS
    'Whether a daemon with the first tags may take a job with the second. An untagged job needs an untagged daemon.';

-- Identity ------------------------------------------------------------------------------------------------------------

CREATE TABLE users (
    id uuid NOT NULL,
    email text NOT NULL,
    username text DEFAULT '' NOT NULL,
    hashed_password bytea NOT NULL,
    created_at timestamp with time zone NOT NULL,
    updated_at timestamp with time zone NOT NULL,
    status user_status DEFAULT 'dormant' NOT NULL,
    rbac_roles text[] DEFAULT '{}' NOT NULL,
    login_type login_type DEFAULT 'password' NOT NULL,
    avatar_url text DEFAULT '' NOT NULL,
    deleted boolean DEFAULT false NOT NULL,
    last_seen_at timestamp without time zone DEFAULT '0001-01-01 00:00:00' NOT NULL,
    quiet_hours_schedule text DEFAULT '' NOT NULL,
    name text DEFAULT '' NOT NULL,
    github_com_user_id bigint,
    hashed_one_time_passcode bytea,
    one_time_passcode_expires_at timestamp with time zone,
    is_system boolean DEFAULT false NOT NULL,
    is_service_account boolean DEFAULT false NOT NULL,
    chat_spend_limit_micros bigint,
    CONSTRAINT users_pkey PRIMARY KEY (id),
    CONSTRAINT one_time_passcode_set CHECK (
        (hashed_one_time_passcode IS NULL AND one_time_passcode_expires_at IS NULL)
        OR (hashed_one_time_passcode IS NOT NULL AND one_time_passcode_expires_at IS NOT NULL)
    ),
    CONSTRAINT users_chat_spend_limit_micros_check CHECK (
        chat_spend_limit_micros IS NULL OR chat_spend_limit_micros > 0
    ),
    CONSTRAINT users_email_not_empty CHECK ((is_service_account = true) = (email = '')),
    CONSTRAINT users_service_account_login_type CHECK (is_service_account = false OR login_type = 'none'),
    CONSTRAINT users_username_min_length CHECK (length(username) >= 1)
);
COMMENT ON COLUMN users.is_system IS 'A user of the product itself, hidden from listings of people.';
-- Service accounts have no address.
CREATE UNIQUE INDEX idx_users_email ON users (email) WHERE deleted = false AND email <> '';
CREATE UNIQUE INDEX idx_users_username ON users (username) WHERE deleted = false;
CREATE UNIQUE INDEX users_email_lower_idx ON users (lower(email)) WHERE deleted = false AND email <> '';
CREATE UNIQUE INDEX users_username_lower_idx ON users (lower(username)) WHERE deleted = false;

CREATE TABLE api_keys (
    id text NOT NULL,
    hashed_secret bytea NOT NULL,
    user_id uuid NOT NULL,
    last_used timestamp with time zone NOT NULL,
    expires_at timestamp with time zone NOT NULL,
    created_at timestamp with time zone NOT NULL,
    updated_at timestamp with time zone NOT NULL,
    login_type login_type NOT NULL,
    lifetime_seconds bigint DEFAULT 86400 NOT NULL,
    ip_address inet DEFAULT '0.0.0.0' NOT NULL,
    token_name text DEFAULT '' NOT NULL,
    scopes api_key_scope[] NOT NULL,
    allow_list text[] NOT NULL,
    CONSTRAINT api_keys_pkey PRIMARY KEY (id),
    CONSTRAINT api_keys_allow_list_not_empty CHECK (array_length(allow_list, 1) > 0),
    CONSTRAINT api_keys_user_id_uuid_fkey FOREIGN KEY (user_id) REFERENCES users (id) ON DELETE CASCADE
);
CREATE INDEX api_keys_last_used_idx ON api_keys (last_used DESC);
CREATE UNIQUE INDEX idx_api_key_name ON api_keys (user_id, token_name) WHERE login_type = 'token';
CREATE INDEX idx_api_keys_user ON api_keys (user_id);

CREATE TABLE dbcrypt_keys (
    number integer NOT NULL,
    active_key_digest text,
    revoked_key_digest text,
    created_at timestamp with time zone DEFAULT CURRENT_TIMESTAMP,
    revoked_at timestamp with time zone,
    test text NOT NULL,
    CONSTRAINT dbcrypt_keys_pkey PRIMARY KEY (number),
    CONSTRAINT dbcrypt_keys_active_key_digest_key UNIQUE (active_key_digest)
);

CREATE TABLE user_links (
    user_id uuid NOT NULL,
    login_type login_type NOT NULL,
    linked_id text DEFAULT '' NOT NULL,
    oauth_access_token text DEFAULT '' NOT NULL,
    oauth_refresh_token text DEFAULT '' NOT NULL,
    oauth_expiry timestamp with time zone DEFAULT '0001-01-01 00:00:00+00' NOT NULL,
    oauth_access_token_key_id text,
    oauth_refresh_token_key_id text,
    claims jsonb DEFAULT '{}' NOT NULL,
    CONSTRAINT user_links_pkey PRIMARY KEY (user_id, login_type),
    CONSTRAINT user_links_oauth_access_token_key_id_fkey
        FOREIGN KEY (oauth_access_token_key_id) REFERENCES dbcrypt_keys (active_key_digest),
    CONSTRAINT user_links_oauth_refresh_token_key_id_fkey
        FOREIGN KEY (oauth_refresh_token_key_id) REFERENCES dbcrypt_keys (active_key_digest),
    CONSTRAINT user_links_user_id_fkey FOREIGN KEY (user_id) REFERENCES users (id) ON DELETE CASCADE
);
CREATE UNIQUE INDEX user_links_linked_id_login_type_idx ON user_links (linked_id, login_type) WHERE linked_id <> '';

CREATE TABLE user_status_changes (
    id uuid DEFAULT gen_random_uuid() NOT NULL,
    user_id uuid NOT NULL,
    new_status user_status NOT NULL,
    changed_at timestamp with time zone DEFAULT CURRENT_TIMESTAMP NOT NULL,
    CONSTRAINT user_status_changes_pkey PRIMARY KEY (id),
    CONSTRAINT user_status_changes_user_id_fkey FOREIGN KEY (user_id) REFERENCES users (id)
);
CREATE INDEX idx_user_status_changes_changed_at ON user_status_changes (changed_at);

CREATE TABLE user_deleted (
    id uuid DEFAULT gen_random_uuid() NOT NULL,
    user_id uuid NOT NULL,
    deleted_at timestamp with time zone DEFAULT CURRENT_TIMESTAMP NOT NULL,
    CONSTRAINT user_deleted_pkey PRIMARY KEY (id),
    CONSTRAINT user_deleted_user_id_fkey FOREIGN KEY (user_id) REFERENCES users (id)
);
CREATE INDEX idx_user_deleted_deleted_at ON user_deleted (deleted_at);

CREATE TABLE organizations (
    id uuid NOT NULL,
    name text NOT NULL,
    description text NOT NULL,
    created_at timestamp with time zone NOT NULL,
    updated_at timestamp with time zone NOT NULL,
    is_default boolean DEFAULT false NOT NULL,
    display_name text NOT NULL,
    icon text DEFAULT '' NOT NULL,
    deleted boolean DEFAULT false NOT NULL,
    shareable_workspace_owners shareable_workspace_owners DEFAULT 'everyone' NOT NULL,
    CONSTRAINT organizations_pkey PRIMARY KEY (id)
);
CREATE UNIQUE INDEX idx_organization_name_lower ON organizations (lower(name)) WHERE deleted = false;
CREATE UNIQUE INDEX organizations_single_default_org ON organizations (is_default) WHERE is_default = true;

CREATE TABLE organization_members (
    user_id uuid NOT NULL,
    organization_id uuid NOT NULL,
    created_at timestamp with time zone NOT NULL,
    updated_at timestamp with time zone NOT NULL,
    roles text[] DEFAULT '{}' NOT NULL,
    CONSTRAINT organization_members_pkey PRIMARY KEY (organization_id, user_id),
    CONSTRAINT organization_members_organization_id_uuid_fkey
        FOREIGN KEY (organization_id) REFERENCES organizations (id) ON DELETE CASCADE,
    CONSTRAINT organization_members_user_id_uuid_fkey FOREIGN KEY (user_id) REFERENCES users (id) ON DELETE CASCADE
);
CREATE INDEX idx_organization_member_organization_id_uuid ON organization_members (organization_id);
CREATE INDEX idx_organization_member_user_id_uuid ON organization_members (user_id);

CREATE TABLE custom_roles (
    name text NOT NULL,
    display_name text NOT NULL,
    site_permissions jsonb DEFAULT '[]' NOT NULL,
    org_permissions jsonb DEFAULT '{}' NOT NULL,
    user_permissions jsonb DEFAULT '[]' NOT NULL,
    created_at timestamp with time zone DEFAULT CURRENT_TIMESTAMP NOT NULL,
    updated_at timestamp with time zone DEFAULT CURRENT_TIMESTAMP NOT NULL,
    organization_id uuid,
    id uuid DEFAULT gen_random_uuid() NOT NULL,
    is_system boolean DEFAULT false NOT NULL,
    member_permissions jsonb DEFAULT '[]' NOT NULL,
    CONSTRAINT custom_roles_unique_key UNIQUE (name, organization_id),
    CONSTRAINT organization_id_not_zero CHECK (organization_id <> '00000000-0000-0000-0000-000000000000')
);
CREATE INDEX idx_custom_roles_id ON custom_roles (id);
CREATE UNIQUE INDEX idx_custom_roles_name_lower_organization_id ON custom_roles (
    lower(name), coalesce(organization_id, '00000000-0000-0000-0000-000000000000')
);

CREATE TABLE groups (
    id uuid NOT NULL,
    name text NOT NULL,
    organization_id uuid NOT NULL,
    avatar_url text DEFAULT '' NOT NULL,
    quota_allowance integer DEFAULT 0 NOT NULL,
    display_name text DEFAULT '' NOT NULL,
    source group_source DEFAULT 'user' NOT NULL,
    chat_spend_limit_micros bigint,
    CONSTRAINT groups_pkey PRIMARY KEY (id),
    CONSTRAINT groups_name_organization_id_key UNIQUE (name, organization_id),
    CONSTRAINT groups_chat_spend_limit_micros_check CHECK (
        chat_spend_limit_micros IS NULL OR chat_spend_limit_micros > 0
    ),
    CONSTRAINT groups_organization_id_fkey
        FOREIGN KEY (organization_id) REFERENCES organizations (id) ON DELETE CASCADE
);
COMMENT ON COLUMN groups.quota_allowance IS 'Credits that membership adds to the budget of each member.';

CREATE TABLE group_members (
    user_id uuid NOT NULL,
    group_id uuid NOT NULL,
    CONSTRAINT group_members_user_id_group_id_key UNIQUE (user_id, group_id),
    CONSTRAINT group_members_group_id_fkey FOREIGN KEY (group_id) REFERENCES groups (id) ON DELETE CASCADE,
    CONSTRAINT group_members_user_id_fkey FOREIGN KEY (user_id) REFERENCES users (id) ON DELETE CASCADE
);

CREATE TABLE files (
    hash character varying(64) NOT NULL,
    created_at timestamp with time zone NOT NULL,
    created_by uuid NOT NULL,
    mimetype character varying(64) NOT NULL,
    data bytea NOT NULL,
    id uuid DEFAULT gen_random_uuid() NOT NULL,
    CONSTRAINT files_pkey PRIMARY KEY (id),
    CONSTRAINT files_hash_created_by_key UNIQUE (hash, created_by)
);

CREATE TABLE licenses (
    id serial NOT NULL,
    uploaded_at timestamp with time zone NOT NULL,
    jwt text NOT NULL,
    exp timestamp with time zone NOT NULL,
    uuid uuid NOT NULL,
    CONSTRAINT licenses_pkey PRIMARY KEY (id),
    CONSTRAINT licenses_jwt_key UNIQUE (jwt)
);
COMMENT ON COLUMN licenses.exp IS 'When the license expires, out of its claims.';

CREATE TABLE site_configs (
    key character varying(256) NOT NULL,
    value text NOT NULL,
    CONSTRAINT site_configs_key_key UNIQUE (key)
);

-- Provisioner jobs ----------------------------------------------------------------------------------------------------

CREATE TABLE provisioner_jobs (
    id uuid NOT NULL,
    created_at timestamp with time zone NOT NULL,
    updated_at timestamp with time zone NOT NULL,
    started_at timestamp with time zone,
    canceled_at timestamp with time zone,
    completed_at timestamp with time zone,
    error text,
    organization_id uuid NOT NULL,
    initiator_id uuid NOT NULL,
    provisioner provisioner_type NOT NULL,
    storage_method provisioner_storage_method NOT NULL,
    type provisioner_job_type NOT NULL,
    input jsonb NOT NULL,
    worker_id uuid,
    file_id uuid NOT NULL,
    tags jsonb DEFAULT '{"scope": "organization"}' NOT NULL,
    error_code text,
    trace_metadata jsonb,
    -- An empty error is no error. An error outranks a cancellation; a cancellation outranks the queue.
    job_status provisioner_job_status GENERATED ALWAYS AS (
        CASE
            WHEN completed_at IS NOT NULL THEN
                CASE
                    WHEN error <> '' THEN 'failed'::provisioner_job_status
                    WHEN canceled_at IS NOT NULL THEN 'canceled'::provisioner_job_status
                    ELSE 'succeeded'::provisioner_job_status
                END
            ELSE
                CASE
                    WHEN error <> '' THEN 'failed'::provisioner_job_status
                    WHEN canceled_at IS NOT NULL THEN 'canceling'::provisioner_job_status
                    WHEN started_at IS NULL THEN 'pending'::provisioner_job_status
                    ELSE 'running'::provisioner_job_status
                END
        END
    ) STORED NOT NULL,
    CONSTRAINT provisioner_jobs_pkey PRIMARY KEY (id),
    CONSTRAINT provisioner_jobs_organization_id_fkey
        FOREIGN KEY (organization_id) REFERENCES organizations (id) ON DELETE CASCADE
);
COMMENT ON COLUMN provisioner_jobs.job_status IS 'Computed from error, completed_at, canceled_at and started_at.';
CREATE INDEX idx_provisioner_jobs_status ON provisioner_jobs (job_status);
CREATE INDEX provisioner_jobs_started_at_idx ON provisioner_jobs (started_at) WHERE started_at IS NULL;
CREATE INDEX provisioner_jobs_worker_id_organization_id_completed_at_idx
    ON provisioner_jobs (worker_id, organization_id, completed_at DESC);

CREATE TABLE provisioner_job_logs (
    job_id uuid NOT NULL,
    created_at timestamp with time zone NOT NULL,
    source log_source NOT NULL,
    level log_level NOT NULL,
    stage character varying(128) NOT NULL,
    output character varying(1024) NOT NULL,
    id bigserial NOT NULL,
    CONSTRAINT provisioner_job_logs_pkey PRIMARY KEY (id),
    CONSTRAINT provisioner_job_logs_job_id_fkey
        FOREIGN KEY (job_id) REFERENCES provisioner_jobs (id) ON DELETE CASCADE
);
CREATE INDEX provisioner_job_logs_id_job_id_idx ON provisioner_job_logs (job_id, id);

CREATE TABLE provisioner_job_timings (
    job_id uuid NOT NULL,
    started_at timestamp with time zone NOT NULL,
    ended_at timestamp with time zone NOT NULL,
    stage provisioner_job_timing_stage NOT NULL,
    source text NOT NULL,
    action text NOT NULL,
    resource text NOT NULL,
    CONSTRAINT provisioner_job_timings_job_id_fkey
        FOREIGN KEY (job_id) REFERENCES provisioner_jobs (id) ON DELETE CASCADE
);

CREATE TABLE provisioner_keys (
    id uuid NOT NULL,
    created_at timestamp with time zone NOT NULL,
    organization_id uuid NOT NULL,
    name character varying(64) NOT NULL,
    hashed_secret bytea NOT NULL,
    tags jsonb NOT NULL,
    CONSTRAINT provisioner_keys_pkey PRIMARY KEY (id),
    CONSTRAINT provisioner_keys_organization_id_fkey
        FOREIGN KEY (organization_id) REFERENCES organizations (id) ON DELETE CASCADE
);
CREATE UNIQUE INDEX provisioner_keys_organization_id_name_idx ON provisioner_keys (organization_id, lower(name));

CREATE TABLE provisioner_daemons (
    id uuid NOT NULL,
    created_at timestamp with time zone NOT NULL,
    name character varying(64) NOT NULL,
    provisioners provisioner_type[] NOT NULL,
    replica_id uuid,
    tags jsonb DEFAULT '{}' NOT NULL,
    last_seen_at timestamp with time zone,
    version text DEFAULT '' NOT NULL,
    api_version text DEFAULT '1.0' NOT NULL,
    organization_id uuid NOT NULL,
    key_id uuid NOT NULL,
    CONSTRAINT provisioner_daemons_pkey PRIMARY KEY (id),
    CONSTRAINT provisioner_daemons_key_id_fkey
        FOREIGN KEY (key_id) REFERENCES provisioner_keys (id) ON DELETE CASCADE,
    CONSTRAINT provisioner_daemons_organization_id_fkey
        FOREIGN KEY (organization_id) REFERENCES organizations (id) ON DELETE CASCADE
);
CREATE UNIQUE INDEX idx_provisioner_daemons_org_name_owner_key
    ON provisioner_daemons (organization_id, name, lower(coalesce(tags ->> 'owner', '')));

-- Templates -----------------------------------------------------------------------------------------------------------

CREATE TABLE templates (
    id uuid NOT NULL,
    created_at timestamp with time zone NOT NULL,
    updated_at timestamp with time zone NOT NULL,
    organization_id uuid NOT NULL,
    deleted boolean DEFAULT false NOT NULL,
    name character varying(64) NOT NULL,
    provisioner provisioner_type NOT NULL,
    active_version_id uuid NOT NULL,
    description character varying(128) DEFAULT '' NOT NULL,
    default_ttl bigint DEFAULT 604800000000000 NOT NULL,
    created_by uuid NOT NULL,
    icon character varying(256) DEFAULT '' NOT NULL,
    user_acl jsonb DEFAULT '{}' NOT NULL,
    group_acl jsonb DEFAULT '{}' NOT NULL,
    display_name character varying(64) DEFAULT '' NOT NULL,
    allow_user_cancel_workspace_jobs boolean DEFAULT true NOT NULL,
    allow_user_autostart boolean DEFAULT true NOT NULL,
    allow_user_autostop boolean DEFAULT true NOT NULL,
    failure_ttl bigint DEFAULT 0 NOT NULL,
    time_til_dormant bigint DEFAULT 0 NOT NULL,
    time_til_dormant_autodelete bigint DEFAULT 0 NOT NULL,
    autostop_requirement_days_of_week smallint DEFAULT 0 NOT NULL,
    autostop_requirement_weeks bigint DEFAULT 0 NOT NULL,
    autostart_block_days_of_week smallint DEFAULT 0 NOT NULL,
    require_active_version boolean DEFAULT false NOT NULL,
    deprecated text DEFAULT '' NOT NULL,
    activity_bump bigint DEFAULT 3600000000000 NOT NULL,
    max_port_sharing_level app_sharing_level DEFAULT 'owner' NOT NULL,
    use_classic_parameter_flow boolean DEFAULT false NOT NULL,
    cors_behavior cors_behavior DEFAULT 'simple' NOT NULL,
    disable_module_cache boolean DEFAULT false NOT NULL,
    CONSTRAINT templates_pkey PRIMARY KEY (id),
    CONSTRAINT templates_created_by_fkey FOREIGN KEY (created_by) REFERENCES users (id) ON DELETE RESTRICT,
    CONSTRAINT templates_organization_id_fkey
        FOREIGN KEY (organization_id) REFERENCES organizations (id) ON DELETE CASCADE
);
COMMENT ON COLUMN templates.default_ttl IS 'Nanoseconds after which a workspace stops by itself; 0 never.';
CREATE UNIQUE INDEX templates_organization_id_name_idx ON templates (organization_id, lower(name))
    WHERE deleted = false;

CREATE TABLE template_versions (
    id uuid NOT NULL,
    template_id uuid,
    organization_id uuid NOT NULL,
    created_at timestamp with time zone NOT NULL,
    updated_at timestamp with time zone NOT NULL,
    name character varying(64) NOT NULL,
    readme character varying(1048576) NOT NULL,
    job_id uuid NOT NULL,
    created_by uuid NOT NULL,
    external_auth_providers jsonb DEFAULT '[]' NOT NULL,
    message character varying(1048576) DEFAULT '' NOT NULL,
    archived boolean DEFAULT false NOT NULL,
    source_example_id text,
    has_ai_task boolean,
    has_external_agent boolean,
    CONSTRAINT template_versions_pkey PRIMARY KEY (id),
    CONSTRAINT template_versions_template_id_name_key UNIQUE (template_id, name),
    CONSTRAINT template_versions_created_by_fkey FOREIGN KEY (created_by) REFERENCES users (id) ON DELETE RESTRICT,
    CONSTRAINT template_versions_organization_id_fkey
        FOREIGN KEY (organization_id) REFERENCES organizations (id) ON DELETE CASCADE,
    CONSTRAINT template_versions_template_id_fkey
        FOREIGN KEY (template_id) REFERENCES templates (id) ON DELETE CASCADE
);
CREATE INDEX idx_template_versions_has_ai_task ON template_versions (has_ai_task);

CREATE TABLE template_version_presets (
    id uuid DEFAULT gen_random_uuid() NOT NULL,
    template_version_id uuid NOT NULL,
    name text NOT NULL,
    created_at timestamp with time zone DEFAULT CURRENT_TIMESTAMP NOT NULL,
    desired_instances integer,
    invalidate_after_secs integer DEFAULT 0,
    prebuild_status prebuild_status DEFAULT 'healthy' NOT NULL,
    scheduling_timezone text DEFAULT '' NOT NULL,
    is_default boolean DEFAULT false NOT NULL,
    description character varying(128) DEFAULT '' NOT NULL,
    icon character varying(256) DEFAULT '' NOT NULL,
    last_invalidated_at timestamp with time zone,
    CONSTRAINT template_version_presets_pkey PRIMARY KEY (id),
    CONSTRAINT template_version_presets_template_version_id_fkey
        FOREIGN KEY (template_version_id) REFERENCES template_versions (id) ON DELETE CASCADE
);
CREATE UNIQUE INDEX idx_template_version_presets_default ON template_version_presets (template_version_id)
    WHERE is_default = true;
CREATE UNIQUE INDEX idx_unique_preset_name ON template_version_presets (name, template_version_id);

-- Workspaces ----------------------------------------------------------------------------------------------------------

CREATE TABLE workspaces (
    id uuid NOT NULL,
    created_at timestamp with time zone NOT NULL,
    updated_at timestamp with time zone NOT NULL,
    owner_id uuid NOT NULL,
    organization_id uuid NOT NULL,
    template_id uuid NOT NULL,
    deleted boolean DEFAULT false NOT NULL,
    name character varying(64) NOT NULL,
    autostart_schedule text,
    ttl bigint,
    last_used_at timestamp with time zone DEFAULT '0001-01-01 00:00:00+00' NOT NULL,
    dormant_at timestamp with time zone,
    deleting_at timestamp with time zone,
    automatic_updates automatic_updates DEFAULT 'never' NOT NULL,
    favorite boolean DEFAULT false NOT NULL,
    next_start_at timestamp with time zone,
    group_acl jsonb DEFAULT '{}' NOT NULL,
    user_acl jsonb DEFAULT '{}' NOT NULL,
    CONSTRAINT workspaces_pkey PRIMARY KEY (id),
    CONSTRAINT group_acl_is_object CHECK (jsonb_typeof(group_acl) = 'object'),
    CONSTRAINT user_acl_is_object CHECK (jsonb_typeof(user_acl) = 'object'),
    CONSTRAINT workspaces_organization_id_fkey
        FOREIGN KEY (organization_id) REFERENCES organizations (id) ON DELETE RESTRICT,
    CONSTRAINT workspaces_owner_id_fkey FOREIGN KEY (owner_id) REFERENCES users (id) ON DELETE RESTRICT,
    CONSTRAINT workspaces_template_id_fkey FOREIGN KEY (template_id) REFERENCES templates (id) ON DELETE RESTRICT
);
COMMENT ON COLUMN workspaces.ttl IS 'Nanoseconds after which the workspace stops by itself; null never.';
CREATE UNIQUE INDEX workspaces_owner_id_lower_idx ON workspaces (owner_id, lower(name)) WHERE deleted = false;
CREATE INDEX workspace_next_start_at_idx ON workspaces (next_start_at) WHERE deleted = false;
CREATE INDEX workspace_template_id_idx ON workspaces (template_id) WHERE deleted = false;

CREATE TABLE tasks (
    id uuid NOT NULL,
    organization_id uuid NOT NULL,
    owner_id uuid NOT NULL,
    name text NOT NULL,
    workspace_id uuid,
    template_version_id uuid NOT NULL,
    template_parameters jsonb DEFAULT '{}' NOT NULL,
    prompt text NOT NULL,
    created_at timestamp with time zone NOT NULL,
    deleted_at timestamp with time zone,
    display_name character varying(127) DEFAULT '' NOT NULL,
    CONSTRAINT tasks_pkey PRIMARY KEY (id),
    CONSTRAINT tasks_organization_id_fkey
        FOREIGN KEY (organization_id) REFERENCES organizations (id) ON DELETE CASCADE,
    CONSTRAINT tasks_owner_id_fkey FOREIGN KEY (owner_id) REFERENCES users (id) ON DELETE CASCADE,
    CONSTRAINT tasks_template_version_id_fkey
        FOREIGN KEY (template_version_id) REFERENCES template_versions (id) ON DELETE CASCADE,
    CONSTRAINT tasks_workspace_id_fkey FOREIGN KEY (workspace_id) REFERENCES workspaces (id) ON DELETE CASCADE
);
CREATE INDEX tasks_organization_id_idx ON tasks (organization_id);
CREATE INDEX tasks_owner_id_idx ON tasks (owner_id);
CREATE UNIQUE INDEX tasks_owner_id_name_unique_idx ON tasks (owner_id, lower(name)) WHERE deleted_at IS NULL;
CREATE INDEX tasks_workspace_id_idx ON tasks (workspace_id);

CREATE TABLE workspace_builds (
    id uuid NOT NULL,
    created_at timestamp with time zone NOT NULL,
    updated_at timestamp with time zone NOT NULL,
    workspace_id uuid NOT NULL,
    template_version_id uuid NOT NULL,
    build_number integer NOT NULL,
    transition workspace_transition NOT NULL,
    initiator_id uuid NOT NULL,
    provisioner_state bytea,
    job_id uuid NOT NULL,
    deadline timestamp with time zone DEFAULT '0001-01-01 00:00:00+00' NOT NULL,
    reason build_reason DEFAULT 'initiator' NOT NULL,
    daily_cost integer DEFAULT 0 NOT NULL,
    max_deadline timestamp with time zone DEFAULT '0001-01-01 00:00:00+00' NOT NULL,
    template_version_preset_id uuid,
    has_ai_task boolean,
    has_external_agent boolean,
    CONSTRAINT workspace_builds_pkey PRIMARY KEY (id),
    CONSTRAINT workspace_builds_job_id_key UNIQUE (job_id),
    CONSTRAINT workspace_builds_workspace_id_build_number_key UNIQUE (workspace_id, build_number),
    CONSTRAINT workspace_builds_deadline_below_max_deadline CHECK (
        (deadline <> '0001-01-01 00:00:00+00' AND deadline <= max_deadline)
        OR max_deadline = '0001-01-01 00:00:00+00'
    ),
    CONSTRAINT workspace_builds_job_id_fkey
        FOREIGN KEY (job_id) REFERENCES provisioner_jobs (id) ON DELETE CASCADE,
    CONSTRAINT workspace_builds_template_version_id_fkey
        FOREIGN KEY (template_version_id) REFERENCES template_versions (id) ON DELETE CASCADE,
    CONSTRAINT workspace_builds_template_version_preset_id_fkey
        FOREIGN KEY (template_version_preset_id) REFERENCES template_version_presets (id) ON DELETE SET NULL,
    CONSTRAINT workspace_builds_workspace_id_fkey
        FOREIGN KEY (workspace_id) REFERENCES workspaces (id) ON DELETE CASCADE
);
COMMENT ON COLUMN workspace_builds.daily_cost IS 'Credits that the quota commit of this build recorded; 0 before it.';
CREATE INDEX idx_workspace_builds_initiator_id ON workspace_builds (initiator_id);

CREATE TABLE workspace_resources (
    id uuid NOT NULL,
    created_at timestamp with time zone NOT NULL,
    job_id uuid NOT NULL,
    transition workspace_transition NOT NULL,
    type character varying(192) NOT NULL,
    name character varying(64) NOT NULL,
    hide boolean DEFAULT false NOT NULL,
    icon character varying(256) DEFAULT '' NOT NULL,
    instance_type character varying(256),
    daily_cost integer DEFAULT 0 NOT NULL,
    module_path text,
    CONSTRAINT workspace_resources_pkey PRIMARY KEY (id),
    CONSTRAINT workspace_resources_job_id_fkey
        FOREIGN KEY (job_id) REFERENCES provisioner_jobs (id) ON DELETE CASCADE
);
CREATE INDEX workspace_resources_job_id_idx ON workspace_resources (job_id);

CREATE TABLE workspace_agents (
    id uuid NOT NULL,
    created_at timestamp with time zone NOT NULL,
    updated_at timestamp with time zone NOT NULL,
    name character varying(64) NOT NULL,
    first_connected_at timestamp with time zone,
    last_connected_at timestamp with time zone,
    disconnected_at timestamp with time zone,
    resource_id uuid NOT NULL,
    auth_token uuid NOT NULL,
    auth_instance_id character varying,
    architecture character varying(64) NOT NULL,
    environment_variables jsonb,
    operating_system character varying(64) NOT NULL,
    instance_metadata jsonb,
    resource_metadata jsonb,
    directory character varying(4096) DEFAULT '' NOT NULL,
    version text DEFAULT '' NOT NULL,
    last_connected_replica_id uuid,
    connection_timeout_seconds integer DEFAULT 0 NOT NULL,
    troubleshooting_url text DEFAULT '' NOT NULL,
    motd_file text DEFAULT '' NOT NULL,
    lifecycle_state workspace_agent_lifecycle_state DEFAULT 'created' NOT NULL,
    expanded_directory character varying(4096) DEFAULT '' NOT NULL,
    logs_length integer DEFAULT 0 NOT NULL,
    logs_overflowed boolean DEFAULT false NOT NULL,
    started_at timestamp with time zone,
    ready_at timestamp with time zone,
    subsystems workspace_agent_subsystem[] DEFAULT '{}',
    display_apps display_app[] DEFAULT '{vscode,vscode_insiders,web_terminal,ssh_helper,port_forwarding_helper}',
    api_version text DEFAULT '' NOT NULL,
    display_order integer DEFAULT 0 NOT NULL,
    parent_id uuid,
    api_key_scope agent_key_scope_enum DEFAULT 'all' NOT NULL,
    deleted boolean DEFAULT false NOT NULL,
    CONSTRAINT workspace_agents_pkey PRIMARY KEY (id),
    CONSTRAINT max_logs_length CHECK (logs_length <= 1048576),
    CONSTRAINT subsystems_not_none CHECK (NOT 'none' = ANY (subsystems)),
    CONSTRAINT workspace_agents_parent_id_fkey
        FOREIGN KEY (parent_id) REFERENCES workspace_agents (id) ON DELETE CASCADE,
    CONSTRAINT workspace_agents_resource_id_fkey
        FOREIGN KEY (resource_id) REFERENCES workspace_resources (id) ON DELETE CASCADE
);
COMMENT ON COLUMN workspace_agents.logs_length IS 'Bytes of log output stored for the agent; at most 1 MiB.';
CREATE INDEX workspace_agents_auth_instance_id_deleted_idx ON workspace_agents (auth_instance_id, deleted);
CREATE INDEX workspace_agents_auth_token_idx ON workspace_agents (auth_token);
CREATE INDEX workspace_agents_resource_id_idx ON workspace_agents (resource_id);

-- Unlogged: start-up output may be lost with the server, and writing it must stay cheap. The table once had a longer
-- name, and everything that belongs to it has kept that.
CREATE UNLOGGED TABLE workspace_agent_logs (
    agent_id uuid NOT NULL,
    created_at timestamp with time zone NOT NULL,
    output character varying(1024) NOT NULL,
    id bigserial NOT NULL,
    level log_level DEFAULT 'info' NOT NULL,
    log_source_id uuid DEFAULT '00000000-0000-0000-0000-000000000000' NOT NULL,
    CONSTRAINT workspace_agent_startup_logs_pkey PRIMARY KEY (id),
    CONSTRAINT workspace_agent_startup_logs_agent_id_fkey
        FOREIGN KEY (agent_id) REFERENCES workspace_agents (id) ON DELETE CASCADE
);
CREATE INDEX workspace_agent_startup_logs_id_agent_id_idx ON workspace_agent_logs (agent_id, id);
ALTER SEQUENCE workspace_agent_logs_id_seq RENAME TO workspace_agent_startup_logs_id_seq;

-- Chats ---------------------------------------------------------------------------------------------------------------

CREATE TABLE chat_providers (
    id uuid DEFAULT gen_random_uuid() NOT NULL,
    provider text NOT NULL,
    display_name text DEFAULT '' NOT NULL,
    api_key text DEFAULT '' NOT NULL,
    api_key_key_id text,
    created_by uuid,
    enabled boolean DEFAULT true NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL,
    base_url text DEFAULT '' NOT NULL,
    central_api_key_enabled boolean DEFAULT true NOT NULL,
    allow_user_api_key boolean DEFAULT false NOT NULL,
    allow_central_api_key_fallback boolean DEFAULT false NOT NULL,
    CONSTRAINT chat_providers_pkey PRIMARY KEY (id),
    CONSTRAINT chat_providers_provider_key UNIQUE (provider),
    CONSTRAINT chat_providers_provider_check CHECK (
        provider IN (
            'anthropic', 'azure', 'bedrock', 'google', 'openai', 'openai-compat', 'openrouter', 'vercel'
        )
    ),
    CONSTRAINT valid_credential_policy CHECK (
        (central_api_key_enabled OR allow_user_api_key)
        AND (NOT allow_central_api_key_fallback OR (central_api_key_enabled AND allow_user_api_key))
    ),
    CONSTRAINT chat_providers_api_key_key_id_fkey
        FOREIGN KEY (api_key_key_id) REFERENCES dbcrypt_keys (active_key_digest),
    CONSTRAINT chat_providers_created_by_fkey FOREIGN KEY (created_by) REFERENCES users (id)
);
CREATE INDEX idx_chat_providers_enabled ON chat_providers (enabled);

CREATE TABLE chat_model_configs (
    id uuid DEFAULT gen_random_uuid() NOT NULL,
    provider text NOT NULL,
    model text NOT NULL,
    display_name text DEFAULT '' NOT NULL,
    created_by uuid,
    updated_by uuid,
    enabled boolean DEFAULT true NOT NULL,
    is_default boolean DEFAULT false NOT NULL,
    deleted boolean DEFAULT false NOT NULL,
    deleted_at timestamp with time zone,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL,
    context_limit bigint NOT NULL,
    compression_threshold integer NOT NULL,
    options jsonb DEFAULT '{}' NOT NULL,
    CONSTRAINT chat_model_configs_pkey PRIMARY KEY (id),
    CONSTRAINT chat_model_configs_compression_threshold_check CHECK (
        compression_threshold >= 0 AND compression_threshold <= 100
    ),
    CONSTRAINT chat_model_configs_context_limit_check CHECK (context_limit > 0),
    CONSTRAINT chat_model_configs_created_by_fkey FOREIGN KEY (created_by) REFERENCES users (id),
    CONSTRAINT chat_model_configs_provider_fkey
        FOREIGN KEY (provider) REFERENCES chat_providers (provider) ON DELETE CASCADE,
    CONSTRAINT chat_model_configs_updated_by_fkey FOREIGN KEY (updated_by) REFERENCES users (id)
);
CREATE INDEX idx_chat_model_configs_enabled ON chat_model_configs (enabled);
CREATE INDEX idx_chat_model_configs_provider ON chat_model_configs (provider);
CREATE INDEX idx_chat_model_configs_provider_model ON chat_model_configs (provider, model);
CREATE UNIQUE INDEX idx_chat_model_configs_single_default ON chat_model_configs ((1))
    WHERE is_default = true AND deleted = false;

CREATE TABLE chats (
    id uuid DEFAULT gen_random_uuid() NOT NULL,
    owner_id uuid NOT NULL,
    workspace_id uuid,
    title text DEFAULT 'New Chat' NOT NULL,
    status chat_status DEFAULT 'waiting' NOT NULL,
    worker_id uuid,
    started_at timestamp with time zone,
    heartbeat_at timestamp with time zone,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL,
    parent_chat_id uuid,
    root_chat_id uuid,
    last_model_config_id uuid NOT NULL,
    archived boolean DEFAULT false NOT NULL,
    last_error text,
    mode chat_mode,
    mcp_server_ids uuid[] DEFAULT '{}' NOT NULL,
    labels jsonb DEFAULT '{}' NOT NULL,
    build_id uuid,
    agent_id uuid,
    pin_order integer DEFAULT 0 NOT NULL,
    last_read_message_id bigint,
    last_injected_context jsonb,
    dynamic_tools jsonb,
    organization_id uuid NOT NULL,
    plan_mode chat_plan_mode,
    client_type chat_client_type DEFAULT 'api' NOT NULL,
    CONSTRAINT chats_pkey PRIMARY KEY (id),
    CONSTRAINT chats_agent_id_fkey FOREIGN KEY (agent_id) REFERENCES workspace_agents (id) ON DELETE SET NULL,
    CONSTRAINT chats_build_id_fkey FOREIGN KEY (build_id) REFERENCES workspace_builds (id) ON DELETE SET NULL,
    CONSTRAINT chats_last_model_config_id_fkey FOREIGN KEY (last_model_config_id) REFERENCES chat_model_configs (id),
    CONSTRAINT chats_organization_id_fkey
        FOREIGN KEY (organization_id) REFERENCES organizations (id) ON DELETE CASCADE,
    CONSTRAINT chats_owner_id_fkey FOREIGN KEY (owner_id) REFERENCES users (id) ON DELETE CASCADE,
    CONSTRAINT chats_parent_chat_id_fkey FOREIGN KEY (parent_chat_id) REFERENCES chats (id) ON DELETE SET NULL,
    CONSTRAINT chats_root_chat_id_fkey FOREIGN KEY (root_chat_id) REFERENCES chats (id) ON DELETE SET NULL,
    CONSTRAINT chats_workspace_id_fkey FOREIGN KEY (workspace_id) REFERENCES workspaces (id) ON DELETE SET NULL
);
CREATE INDEX idx_chats_agent_id ON chats (agent_id) WHERE agent_id IS NOT NULL;
CREATE INDEX idx_chats_labels ON chats USING gin (labels);
CREATE INDEX idx_chats_last_model_config_id ON chats (last_model_config_id);
CREATE INDEX idx_chats_organization_id ON chats (organization_id);
CREATE INDEX idx_chats_owner ON chats (owner_id);
CREATE INDEX idx_chats_parent_chat_id ON chats (parent_chat_id);
CREATE INDEX idx_chats_pending ON chats (status) WHERE status = 'pending';
CREATE INDEX idx_chats_root_chat_id ON chats (root_chat_id);
CREATE INDEX idx_chats_workspace ON chats (workspace_id);

-- Notifications -------------------------------------------------------------------------------------------------------

CREATE TABLE notification_templates (
    id uuid NOT NULL,
    name text NOT NULL,
    title_template text NOT NULL,
    body_template text NOT NULL,
    actions jsonb,
    "group" text,
    method notification_method,
    kind notification_template_kind DEFAULT 'system' NOT NULL,
    enabled_by_default boolean DEFAULT true NOT NULL,
    CONSTRAINT notification_templates_pkey PRIMARY KEY (id),
    CONSTRAINT notification_templates_name_key UNIQUE (name)
);

CREATE TABLE notification_preferences (
    user_id uuid NOT NULL,
    notification_template_id uuid NOT NULL,
    disabled boolean DEFAULT false NOT NULL,
    created_at timestamp with time zone DEFAULT CURRENT_TIMESTAMP NOT NULL,
    updated_at timestamp with time zone DEFAULT CURRENT_TIMESTAMP NOT NULL,
    CONSTRAINT notification_preferences_pkey PRIMARY KEY (user_id, notification_template_id),
    CONSTRAINT notification_preferences_notification_template_id_fkey
        FOREIGN KEY (notification_template_id) REFERENCES notification_templates (id) ON DELETE CASCADE,
    CONSTRAINT notification_preferences_user_id_fkey FOREIGN KEY (user_id) REFERENCES users (id) ON DELETE CASCADE
);

CREATE TABLE notification_messages (
    id uuid NOT NULL,
    notification_template_id uuid NOT NULL,
    user_id uuid NOT NULL,
    method notification_method NOT NULL,
    status notification_message_status DEFAULT 'pending' NOT NULL,
    status_reason text,
    created_by text NOT NULL,
    payload jsonb NOT NULL,
    attempt_count integer DEFAULT 0,
    targets uuid[],
    created_at timestamp with time zone DEFAULT CURRENT_TIMESTAMP NOT NULL,
    updated_at timestamp with time zone,
    leased_until timestamp with time zone,
    next_retry_after timestamp with time zone,
    queued_seconds double precision,
    dedupe_hash text,
    CONSTRAINT notification_messages_pkey PRIMARY KEY (id),
    CONSTRAINT notification_messages_notification_template_id_fkey
        FOREIGN KEY (notification_template_id) REFERENCES notification_templates (id) ON DELETE CASCADE,
    CONSTRAINT notification_messages_user_id_fkey FOREIGN KEY (user_id) REFERENCES users (id) ON DELETE CASCADE
);
CREATE INDEX idx_notification_messages_status ON notification_messages (status);
CREATE UNIQUE INDEX notification_messages_dedupe_hash_idx ON notification_messages (dedupe_hash);

-- Audit ---------------------------------------------------------------------------------------------------------------

CREATE TABLE audit_logs (
    id uuid NOT NULL,
    "time" timestamp with time zone NOT NULL,
    user_id uuid NOT NULL,
    organization_id uuid NOT NULL,
    ip inet,
    user_agent character varying(256),
    resource_type resource_type NOT NULL,
    resource_id uuid NOT NULL,
    resource_target text NOT NULL,
    action audit_action NOT NULL,
    diff jsonb NOT NULL,
    status_code integer NOT NULL,
    additional_fields jsonb NOT NULL,
    request_id uuid NOT NULL,
    resource_icon text NOT NULL,
    CONSTRAINT audit_logs_pkey PRIMARY KEY (id)
);
CREATE INDEX idx_audit_log_organization_id ON audit_logs (organization_id);
CREATE INDEX idx_audit_log_resource_id ON audit_logs (resource_id);
CREATE INDEX idx_audit_log_user_id ON audit_logs (user_id);
CREATE INDEX idx_audit_logs_time_desc ON audit_logs ("time" DESC);

-- Views ---------------------------------------------------------------------------------------------------------------

CREATE VIEW visible_users AS
SELECT id, username, name, avatar_url FROM users;
COMMENT ON VIEW visible_users IS 'The fields of a user that everybody may see.';

CREATE VIEW group_members_expanded AS
WITH all_members AS (
    SELECT group_id, user_id FROM group_members
    UNION
    -- The Everyone group has the id of its organization, and its members are the organization's.
    SELECT organization_id AS group_id, user_id FROM organization_members
)
SELECT
    u.id AS user_id,
    u.email AS user_email,
    u.username AS user_username,
    u.hashed_password AS user_hashed_password,
    u.created_at AS user_created_at,
    u.updated_at AS user_updated_at,
    u.status AS user_status,
    u.rbac_roles AS user_rbac_roles,
    u.login_type AS user_login_type,
    u.avatar_url AS user_avatar_url,
    u.deleted AS user_deleted,
    u.last_seen_at AS user_last_seen_at,
    u.quiet_hours_schedule AS user_quiet_hours_schedule,
    u.name AS user_name,
    u.github_com_user_id AS user_github_com_user_id,
    u.is_system AS user_is_system,
    u.is_service_account AS user_is_service_account,
    g.organization_id,
    g.name AS group_name,
    m.group_id
FROM all_members AS m
INNER JOIN users AS u ON u.id = m.user_id
INNER JOIN groups AS g ON g.id = m.group_id
WHERE u.deleted = false;
COMMENT ON VIEW group_members_expanded IS 'Every member of every group, the implicit Everyone groups included.';

CREATE VIEW template_with_names AS
SELECT
    t.*,
    coalesce(u.avatar_url, '') AS created_by_avatar_url,
    coalesce(u.username, '') AS created_by_username,
    coalesce(u.name, '') AS created_by_name,
    coalesce(o.name, '') AS organization_name,
    coalesce(o.display_name, '') AS organization_display_name,
    coalesce(o.icon, '') AS organization_icon
FROM templates AS t
LEFT JOIN visible_users AS u ON u.id = t.created_by
LEFT JOIN organizations AS o ON o.id = t.organization_id;

CREATE VIEW template_version_with_user AS
SELECT
    v.*,
    coalesce(u.avatar_url, '') AS created_by_avatar_url,
    coalesce(u.username, '') AS created_by_username,
    coalesce(u.name, '') AS created_by_name
FROM template_versions AS v
LEFT JOIN visible_users AS u ON u.id = v.created_by;

CREATE VIEW workspaces_expanded AS
SELECT
    w.*,
    u.avatar_url AS owner_avatar_url,
    u.username AS owner_username,
    u.name AS owner_name,
    o.name AS organization_name,
    o.display_name AS organization_display_name,
    o.icon AS organization_icon,
    o.description AS organization_description,
    t.name AS template_name,
    t.display_name AS template_display_name,
    t.icon AS template_icon,
    t.description AS template_description,
    task.id AS task_id,
    coalesce(
        (
            SELECT jsonb_object_agg(acl.id, jsonb_build_object('name', g.name, 'avatar_url', g.avatar_url))
            FROM jsonb_object_keys(w.group_acl) AS acl (id)
            INNER JOIN groups AS g ON g.id::text = acl.id
        ),
        '{}'
    ) AS group_acl_display_info,
    coalesce(
        (
            SELECT jsonb_object_agg(acl.id, jsonb_build_object('name', sharer.name, 'avatar_url', sharer.avatar_url))
            FROM jsonb_object_keys(w.user_acl) AS acl (id)
            INNER JOIN visible_users AS sharer ON sharer.id::text = acl.id
        ),
        '{}'
    ) AS user_acl_display_info
FROM workspaces AS w
INNER JOIN visible_users AS u ON u.id = w.owner_id
INNER JOIN organizations AS o ON o.id = w.organization_id
INNER JOIN templates AS t ON t.id = w.template_id
LEFT JOIN tasks AS task ON task.workspace_id = w.id AND task.deleted_at IS NULL;

-- Without provisioner_state: it is megabytes, and nobody who lists builds wants it.
CREATE VIEW workspace_build_with_user AS
SELECT
    b.id,
    b.created_at,
    b.updated_at,
    b.workspace_id,
    b.template_version_id,
    b.build_number,
    b.transition,
    b.initiator_id,
    b.job_id,
    b.deadline,
    b.reason,
    b.daily_cost,
    b.max_deadline,
    b.template_version_preset_id,
    b.has_ai_task,
    b.has_external_agent,
    coalesce(u.avatar_url, '') AS initiator_by_avatar_url,
    coalesce(u.username, '') AS initiator_by_username,
    coalesce(u.name, '') AS initiator_by_name
FROM workspace_builds AS b
LEFT JOIN visible_users AS u ON u.id = b.initiator_id;

CREATE VIEW workspace_latest_builds AS
SELECT
    latest.id,
    latest.workspace_id,
    latest.template_version_id,
    latest.job_id,
    latest.template_version_preset_id,
    latest.transition,
    latest.created_at,
    latest.job_status
FROM workspaces AS w
-- A workspace without a build is a row of nulls.
LEFT JOIN LATERAL (
    SELECT
        b.id,
        b.workspace_id,
        b.template_version_id,
        b.job_id,
        b.template_version_preset_id,
        b.transition,
        b.created_at,
        j.job_status
    FROM workspace_builds AS b
    INNER JOIN provisioner_jobs AS j ON j.id = b.job_id
    WHERE b.workspace_id = w.id
    ORDER BY b.build_number DESC
    LIMIT 1
) AS latest ON true
WHERE w.deleted = false;

CREATE VIEW workspace_prebuild_builds AS
SELECT id, workspace_id, template_version_id, transition, job_id, template_version_preset_id, build_number
FROM workspace_builds
WHERE initiator_id = 'c42fdf75-3097-471c-8c33-fb52454d81c0';
COMMENT ON VIEW workspace_prebuild_builds IS 'The builds that the prebuilds user initiated.';

CREATE VIEW workspace_prebuilds AS
SELECT
    w.id,
    w.name,
    w.template_id,
    w.created_at,
    coalesce(agents.ready, false) AS ready,
    preset.current_preset_id
FROM workspaces AS w
-- A prebuilt workspace without a build, or a deleted one, is not there.
INNER JOIN workspace_latest_builds AS latest ON latest.workspace_id = w.id
LEFT JOIN LATERAL (
    SELECT bool_and(a.lifecycle_state = 'ready') AS ready
    FROM workspace_resources AS r
    INNER JOIN workspace_agents AS a ON a.resource_id = r.id
    WHERE r.job_id = latest.job_id AND a.deleted = false
) AS agents ON true
LEFT JOIN LATERAL (
    SELECT b.template_version_preset_id AS current_preset_id
    FROM workspace_builds AS b
    WHERE b.workspace_id = w.id AND b.template_version_preset_id IS NOT NULL
    ORDER BY b.build_number DESC
    LIMIT 1
) AS preset ON true
WHERE w.owner_id = 'c42fdf75-3097-471c-8c33-fb52454d81c0';
COMMENT ON VIEW workspace_prebuilds IS 'The prebuilt workspaces that nobody has claimed.';

CREATE VIEW provisioner_job_stats AS
SELECT
    j.id AS job_id,
    j.job_status,
    b.workspace_id,
    j.worker_id,
    j.error,
    j.error_code,
    j.updated_at,
    greatest(extract(EPOCH FROM (j.started_at - j.created_at)), 0)::double precision AS queued_secs,
    greatest(extract(EPOCH FROM (j.completed_at - j.started_at)), 0)::double precision AS completion_secs,
    greatest(extract(EPOCH FROM (j.canceled_at - j.started_at)), 0)::double precision AS canceled_secs,
    greatest(extract(EPOCH FROM (t.init)), 0)::double precision AS init_secs,
    greatest(extract(EPOCH FROM (t.plan)), 0)::double precision AS plan_secs,
    greatest(extract(EPOCH FROM (t.graph)), 0)::double precision AS graph_secs,
    greatest(extract(EPOCH FROM (t.apply)), 0)::double precision AS apply_secs
FROM provisioner_jobs AS j
INNER JOIN workspace_builds AS b ON b.job_id = j.id
LEFT JOIN LATERAL (
    SELECT
        max(ended_at) FILTER (WHERE stage = 'init') - min(started_at) FILTER (WHERE stage = 'init') AS init,
        max(ended_at) FILTER (WHERE stage = 'plan') - min(started_at) FILTER (WHERE stage = 'plan') AS plan,
        max(ended_at) FILTER (WHERE stage = 'graph') - min(started_at) FILTER (WHERE stage = 'graph') AS graph,
        max(ended_at) FILTER (WHERE stage = 'apply') - min(started_at) FILTER (WHERE stage = 'apply') AS apply
    FROM provisioner_job_timings
    WHERE job_id = j.id
) AS t ON true;
COMMENT ON VIEW provisioner_job_stats IS 'One row per workspace build job; durations in seconds, never negative.';

-- Triggers ------------------------------------------------------------------------------------------------------------

CREATE FUNCTION protect_deleting_organizations() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    workspace_count bigint := (SELECT count(*) FROM workspaces WHERE organization_id = OLD.id AND NOT deleted);
    template_count bigint := (SELECT count(*) FROM templates WHERE organization_id = OLD.id AND NOT deleted);
    key_count bigint := (SELECT count(*) FROM provisioner_keys WHERE organization_id = OLD.id);
    group_count bigint := (SELECT count(*) FROM groups WHERE organization_id = OLD.id);
    member_count bigint := (
        SELECT count(*)
        FROM organization_members AS m
        INNER JOIN users AS u ON u.id = m.user_id
        WHERE m.organization_id = OLD.id AND NOT u.deleted
    );
BEGIN
    -- One group and one member are left alone: Everyone, and whoever deletes the organization.
    IF workspace_count > 0 OR template_count > 0 OR key_count > 0 OR group_count > 1 OR member_count > 1 THEN
        RAISE EXCEPTION 'cannot delete organization: it has % workspaces, % templates, % provisioner keys, % groups and % members that must go first',
            workspace_count, template_count, key_count, greatest(group_count - 1, 0), greatest(member_count - 1, 0);
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER protect_deleting_organizations
    BEFORE UPDATE ON organizations FOR EACH ROW
    WHEN (NEW.deleted AND NOT OLD.deleted)
    EXECUTE FUNCTION protect_deleting_organizations();

CREATE FUNCTION insert_organization_system_roles() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO custom_roles (name, display_name, org_permissions, organization_id, is_system)
    SELECT role, '', '[]', NEW.id, true
    FROM unnest(ARRAY['organization-member', 'organization-service-account', 'agents-access']) AS role;
    RETURN NEW;
END
$$;
CREATE TRIGGER trigger_insert_organization_system_roles
    AFTER INSERT ON organizations FOR EACH ROW
    EXECUTE FUNCTION insert_organization_system_roles();

CREATE FUNCTION delete_group_members_on_org_member_delete() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM group_members AS m
    USING groups AS g
    WHERE g.id = m.group_id AND g.organization_id = OLD.organization_id AND m.user_id = OLD.user_id;
    RETURN OLD;
END
$$;
CREATE TRIGGER trigger_delete_group_members_on_org_member_delete
    BEFORE DELETE ON organization_members FOR EACH ROW
    EXECUTE FUNCTION delete_group_members_on_org_member_delete();

CREATE FUNCTION remove_organization_member_role() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE organization_members
    SET roles = array_remove(roles, OLD.name)
    WHERE organization_id = OLD.organization_id AND OLD.name = ANY (roles);
    RETURN OLD;
END
$$;
CREATE TRIGGER remove_organization_member_custom_role
    BEFORE DELETE ON custom_roles FOR EACH ROW
    EXECUTE FUNCTION remove_organization_member_role();

CREATE FUNCTION delete_deleted_user_resources() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM api_keys WHERE user_id = NEW.id;
    DELETE FROM user_links WHERE user_id = NEW.id;
    RETURN NEW;
END
$$;
CREATE TRIGGER trigger_update_users
    AFTER INSERT OR UPDATE ON users FOR EACH ROW
    WHEN (NEW.deleted)
    EXECUTE FUNCTION delete_deleted_user_resources();

CREATE FUNCTION insert_apikey_fail_if_user_deleted() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT 1 FROM users WHERE id = NEW.user_id AND deleted) THEN
        RAISE EXCEPTION 'cannot create an API key: user % is deleted', NEW.user_id;
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER trigger_insert_apikeys
    BEFORE INSERT ON api_keys FOR EACH ROW
    EXECUTE FUNCTION insert_apikey_fail_if_user_deleted();

CREATE FUNCTION insert_user_links_fail_if_user_deleted() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT 1 FROM users WHERE id = NEW.user_id AND deleted) THEN
        RAISE EXCEPTION 'cannot link a login: user % is deleted', NEW.user_id;
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER trigger_upsert_user_links
    BEFORE INSERT OR UPDATE ON user_links FOR EACH ROW
    EXECUTE FUNCTION insert_user_links_fail_if_user_deleted();

CREATE FUNCTION record_user_status_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' OR OLD.status IS DISTINCT FROM NEW.status THEN
        INSERT INTO user_status_changes (user_id, new_status, changed_at)
        VALUES (NEW.id, NEW.status, NEW.updated_at);
    END IF;
    IF TG_OP = 'UPDATE' AND NEW.deleted AND NOT OLD.deleted THEN
        INSERT INTO user_deleted (user_id, deleted_at) VALUES (NEW.id, NEW.updated_at);
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER user_status_change_trigger
    AFTER INSERT OR UPDATE ON users FOR EACH ROW
    EXECUTE FUNCTION record_user_status_change();

CREATE FUNCTION nullify_next_start_at_on_workspace_autostart_modification() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE workspaces SET next_start_at = NULL WHERE id = NEW.id;
    RETURN NEW;
END
$$;
-- A writer that changes the schedule and the next start together has computed the new one, and is believed.
CREATE TRIGGER trigger_nullify_next_start_at_on_workspace_autostart_modificati
    AFTER UPDATE ON workspaces FOR EACH ROW
    WHEN (
        NEW.next_start_at IS NOT NULL
        AND (
            NEW.dormant_at IS NOT NULL
            OR (NEW.autostart_schedule IS DISTINCT FROM OLD.autostart_schedule AND NEW.next_start_at = OLD.next_start_at)
        )
    )
    EXECUTE FUNCTION nullify_next_start_at_on_workspace_autostart_modification();

-- A deleted agent keeps its name.
CREATE FUNCTION check_workspace_agent_name_unique() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (
        SELECT 1
        FROM workspace_resources AS mine
        INNER JOIN workspace_builds AS b ON b.job_id = mine.job_id
        INNER JOIN workspace_resources AS theirs ON theirs.job_id = mine.job_id
        INNER JOIN workspace_agents AS other ON other.resource_id = theirs.id
        WHERE mine.id = NEW.resource_id AND other.name = NEW.name AND other.id <> NEW.id
    ) THEN
        RAISE EXCEPTION 'workspace agent name "%" already exists in this workspace build', NEW.name
            USING ERRCODE = 'unique_violation';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER workspace_agent_name_unique_trigger
    BEFORE INSERT OR UPDATE OF name, resource_id ON workspace_agents FOR EACH ROW
    EXECUTE FUNCTION check_workspace_agent_name_unique();

CREATE FUNCTION inhibit_enqueue_if_disabled() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    -- A preference of the user's own decides; without one, the template's default does.
    IF coalesce(
        (SELECT p.disabled FROM notification_preferences AS p
         WHERE p.user_id = NEW.user_id AND p.notification_template_id = NEW.notification_template_id),
        (SELECT NOT t.enabled_by_default FROM notification_templates AS t WHERE t.id = NEW.notification_template_id),
        false
    ) THEN
        RAISE EXCEPTION 'cannot enqueue message: notification is not enabled';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER inhibit_enqueue_if_disabled
    BEFORE INSERT ON notification_messages FOR EACH ROW
    EXECUTE FUNCTION inhibit_enqueue_if_disabled();

-- One message a day of one content to one user by one method.
CREATE FUNCTION compute_notification_message_dedupe_hash() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.dedupe_hash := encode(
        sha256(convert_to(concat_ws(
            ' ', NEW.notification_template_id, NEW.user_id, NEW.method, NEW.payload, NEW.targets,
            (NEW.created_at AT TIME ZONE 'UTC')::date
        ), 'UTF8')),
        'hex'
    );
    RETURN NEW;
END
$$;
CREATE TRIGGER update_notification_message_dedupe_hash
    BEFORE INSERT OR UPDATE ON notification_messages FOR EACH ROW
    EXECUTE FUNCTION compute_notification_message_dedupe_hash();

-- Rows that are part of the schema ------------------------------------------------------------------------------------

-- Owns the unclaimed prebuilt workspaces and initiates their builds; every queue puts its jobs behind people's.
INSERT INTO users (id, email, username, hashed_password, created_at, updated_at, status, login_type, name, is_system)
VALUES (
    'c42fdf75-3097-471c-8c33-fb52454d81c0', 'prebuilds@system', 'prebuilds', '', now(), now(), 'active', 'none',
    'Prebuilds Owner', true
);

INSERT INTO notification_templates (id, name, title_template, body_template, "group")
VALUES
(
    '381df2a9-c0c0-4749-420f-80a9280c66f9', 'Workspace Autobuild Failed',
    'Automatic build of workspace "{{.Labels.name}}" failed',
    'The build ran because of {{.Labels.reason}}.', 'Workspace Events'
),
(
    '2faeee0f-26cb-4e96-821c-85ccb9f71513', 'Workspace Manual Build Failed',
    'Build of workspace "{{.Labels.name}}" failed',
    'Template {{.Labels.template_name}} failed to build for {{.Labels.workspace_owner_username}}.', 'Template Events'
);
