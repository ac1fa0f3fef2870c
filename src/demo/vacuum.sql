VACUUM (ANALYZE)
    users, organizations, organization_members, groups, group_members, files, templates, template_versions,
    template_version_presets, workspaces, workspace_builds, workspace_resources, workspace_agents, provisioner_jobs,
    provisioner_job_logs, provisioner_job_timings, provisioner_keys, provisioner_daemons
