//! Permits for provisioner jobs.

use super::{
    Actor, Denied,
    OrganizationRole::{Admin, TemplateAdmin},
    ReadOrganizations, SiteRole, System, TemplateRight,
    permit::{Permission, Policy, denied, permit},
};
use crate::model::{DaemonId, Entity, JobTarget, OrganizationId, UserId};

permit! {
    /// May read the provisioner jobs of one organization.
    ReadJobs {
        /// Whose jobs.
        organization: OrganizationId,
    }
}

impl ReadJobs {
    pub(super) const POLICY: Policy = Policy {
        site: &[SiteRole::Owner],
        organization: &[Admin, TemplateAdmin],
        system: &[System::ProvisionerDaemon, System::Reaper, System::PrebuildReconciler, System::Operator],
    };
    pub(super) const PERMISSION: Permission = ("provisioner_jobs", "read");

    /// Owners of the site; admins and template admins of the organization, and users with a custom role there that
    /// includes reading jobs.
    pub fn check(actor: &Actor, organization: OrganizationId) -> Result<Self, Denied> {
        let granted = Self::POLICY.or_custom_role_grants_in(actor, organization, Self::PERMISSION);
        granted.then_some(Self { organization, _checked: () }).ok_or_else(|| denied(Entity::Organization, organization))
    }
}

permit! {
    /// May put jobs about one version of a template into the queue of one organization, as one initiator. The job of a
    /// build comes with the build: that takes a [`BuildWorkspaces`](super::BuildWorkspaces).
    InsertJobs {
        /// Whose jobs they will be.
        organization: OrganizationId,
        /// Who asks for them.
        initiator: UserId,
        /// What they do, to which version.
        target: JobTarget,
        /// The user to whom the lists of the template must give reading for a dry run; `None` if a role gives it.
        reader: Option<UserId>,
    }
}

impl InsertJobs {
    const IMPORTS: Policy = Policy {
        site: &[SiteRole::Owner, SiteRole::TemplateAdmin],
        organization: &[Admin, TemplateAdmin],
        system: &[],
    };
    const DRY_RUNS: Policy = Policy { site: &[SiteRole::Owner], organization: &[], system: &[] };

    /// A user as oneself: an import needs a template admin, a dry run a member.
    pub fn check(actor: &Actor, organization: OrganizationId, target: JobTarget) -> Result<Self, Denied> {
        let granted = match target {
            JobTarget::Import { .. } => Self::IMPORTS.grants_in(actor, organization),
            JobTarget::DryRun(_) => actor.is_member_of(organization) || Self::DRY_RUNS.grants_in(actor, organization),
        };
        let initiator =
            actor.user_id().filter(|_| granted).ok_or_else(|| denied(Entity::Organization, organization))?;
        let reader = TemplateRight::Read.decided_for(actor, organization)?;
        Ok(Self { organization, initiator, target, reader, _checked: () })
    }
}

permit! {
    /// May take jobs of one organization as one daemon, and report and commit quota for those that this daemon took.
    RunJobs {
        /// Whose jobs.
        organization: OrganizationId,
        /// Which daemon.
        daemon: DaemonId,
    }
}

impl RunJobs {
    const POLICY: Policy = Policy { site: &[], organization: &[], system: &[System::ProvisionerDaemon] };

    /// Only provisioner daemons.
    pub fn check(actor: &Actor, organization: OrganizationId, daemon: DaemonId) -> Result<Self, Denied> {
        let granted = Self::POLICY.grants(actor);
        granted
            .then_some(Self { organization, daemon, _checked: () })
            .ok_or_else(|| denied(Entity::Organization, organization))
    }
}

permit! {
    /// May hold the row of a job of one organization, for deciding on it in a transaction.
    LockJobs {
        /// Whose jobs.
        organization: OrganizationId,
    }
}

impl LockJobs {
    const POLICY: Policy = Policy {
        site: &[SiteRole::Owner],
        organization: &[Admin],
        system: &[System::ProvisionerDaemon, System::Reaper, System::PrebuildReconciler, System::Operator],
    };

    /// Owners, organization admins, and the parts of the product that end jobs. Readers may not: a lock makes others
    /// wait.
    pub fn check(actor: &Actor, organization: OrganizationId) -> Result<Self, Denied> {
        let granted = Self::POLICY.grants_in(actor, organization);
        granted.then_some(Self { organization, _checked: () }).ok_or_else(|| denied(Entity::Organization, organization))
    }
}

permit! {
    /// May ask for jobs of one organization to be canceled (domain: canceling).
    CancelJobs {
        /// Whose jobs.
        organization: OrganizationId,
        /// The only user whose builds and dry runs the permit reaches; `None` for those of all users.
        owner: Option<UserId>,
        /// Whether it reaches imports of template versions.
        imports: bool,
        /// Whether it reaches builds that run although their template does not let users cancel them.
        regardless: bool,
    }
}

impl CancelJobs {
    const ALL: Policy = Policy { site: &[SiteRole::Owner], organization: &[], system: &[System::Operator] };
    const EVERYBODYS: Policy = Policy { site: &[SiteRole::Owner], organization: &[Admin], system: &[System::Operator] };
    const IMPORTS: Policy = Policy {
        site: &[SiteRole::Owner, SiteRole::TemplateAdmin],
        organization: &[Admin, TemplateAdmin],
        system: &[System::Operator],
    };

    /// Owners cancel everything; organization admins what the template lets users cancel; template admins imports, and
    /// their own like every other member.
    pub fn check(actor: &Actor, organization: OrganizationId) -> Result<Self, Denied> {
        let imports = Self::IMPORTS.grants_in(actor, organization);
        let owner = match actor.user_id() {
            _ if Self::EVERYBODYS.grants_in(actor, organization) => None,
            Some(user) if imports || actor.is_member_of(organization) => Some(user),
            _ => return Err(denied(Entity::Organization, organization)),
        };
        Ok(Self { organization, owner, imports, regardless: Self::ALL.grants(actor), _checked: () })
    }
}

permit! {
    /// May end jobs that hang, or that no daemon takes, in all organizations (domain: reaping).
    ReapJobs {}
}

impl ReapJobs {
    const POLICY: Policy = Policy { site: &[], organization: &[], system: &[System::Reaper] };

    /// Only the reaper.
    pub fn check(actor: &Actor) -> Result<Self, Denied> {
        Self::POLICY.grants(actor).then_some(Self { _checked: () }).ok_or_else(|| denied(Entity::Job, "any"))
    }
}

permit! {
    /// May delete old jobs of one organization and their logs (domain: pruning).
    PruneJobs {
        /// Whose jobs.
        organization: OrganizationId,
    }
}

impl PruneJobs {
    const POLICY: Policy = Policy { site: &[SiteRole::Owner], organization: &[], system: &[System::Operator] };

    /// Owners of the site, and operators.
    pub fn check(actor: &Actor, organization: OrganizationId) -> Result<Self, Denied> {
        let granted = Self::POLICY.grants(actor);
        granted.then_some(Self { organization, _checked: () }).ok_or_else(|| denied(Entity::Organization, organization))
    }
}

permit! {
    /// May read the logs and timings of jobs of one organization: all of them, or those of one user.
    ReadJobLogs {
        /// Whose jobs.
        organization: OrganizationId,
        /// The only user whose builds and dry runs the permit reaches; `None` for all jobs.
        owner: Option<UserId>,
        /// Whether it reaches imports of template versions.
        imports: bool,
    }
}

impl ReadJobLogs {
    const POLICY: Policy = Policy { system: &[System::Operator], ..ReadJobs::POLICY };

    /// Users who may read jobs read the logs of all; template admins those of imports; every member those of own builds
    /// and dry runs.
    pub fn check(actor: &Actor, organization: OrganizationId) -> Result<Self, Denied> {
        let all = Self::POLICY.or_custom_role_grants_in(actor, organization, ReadJobs::PERMISSION);
        let imports = all || InsertJobs::IMPORTS.grants_in(actor, organization);
        let owner = match actor.user_id() {
            _ if all => None,
            Some(user) if imports || actor.is_member_of(organization) => Some(user),
            _ => return Err(denied(Entity::Organization, organization)),
        };
        Ok(Self { organization, owner, imports, _checked: () })
    }
}

/// May find out which job a build, a version of a template or a dry run has, and in which organization: there another
/// permit says what one may do with it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct FindJobs(ReadOrganizations);

impl FindJobs {
    /// Never denied: reaches the organizations that one may read.
    pub fn check(actor: &Actor) -> Self {
        Self(ReadOrganizations::check(actor))
    }

    pub(crate) fn reaches(&self, organization: OrganizationId) -> bool {
        self.0.reaches(organization)
    }
}

permit! {
    /// May read the status of the jobs of all organizations, for those who wait for them.
    WatchJobs {}
}

impl WatchJobs {
    const POLICY: Policy = Policy { site: &[], organization: &[], system: &[System::Watcher] };

    /// Only the watcher.
    pub fn check(actor: &Actor) -> Result<Self, Denied> {
        Self::POLICY.grants(actor).then_some(Self { _checked: () }).ok_or_else(|| denied(Entity::Job, "any"))
    }
}
