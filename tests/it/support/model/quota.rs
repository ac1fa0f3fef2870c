//! Quota (domain: quota).

use std::collections::BTreeSet;

use uuid::Uuid;

use super::{Branch, Model};

impl Model {
    /// The members of groups, each once: those that are stored, and those of Everyone (domain: groups).
    pub fn group_members_expanded(&self) -> BTreeSet<(Uuid, Uuid)> {
        let explicit = self.group_members.iter().map(|member| (member.group_id, member.user_id));
        let implied = self.organization_members.iter().map(|member| (member.organization_id, member.user_id));
        explicit
            .chain(implied)
            .filter(|(_, user_id)| {
                let deleted = self.users.iter().any(|user| user.id == *user_id && user.deleted);
                self.reached.note(Branch::DeletedMember, deleted);
                !deleted
            })
            .collect()
    }

    /// The budget (domain: quota).
    pub fn quota_allowance(&self, user: Uuid, organization: Uuid) -> i64 {
        let members = self.group_members_expanded();
        let member = self.organization_members.iter().any(|m| (m.organization_id, m.user_id) == (organization, user));
        self.reached.note(Branch::NoEveryoneRow, member && !self.groups.iter().any(|group| group.id == organization));
        self.groups
            .iter()
            .filter(|group| group.organization_id == organization && members.contains(&(group.id, user)))
            .map(|group| {
                let explicit = self.group_members.iter().any(|m| (m.group_id, m.user_id) == (group.id, user));
                self.reached.note(Branch::ExplicitMember, explicit);
                self.reached.note(Branch::EveryoneMember, group.id == organization && member);
                self.reached.note(Branch::BothMember, explicit && group.id == organization && member);
                self.reached.note(Branch::ForeignMember, explicit && !member);
                i64::from(group.quota_allowance)
            })
            .sum()
    }

    /// What is consumed (domain: quota).
    pub fn quota_consumed(&self, owner: Uuid, organization: Uuid) -> i64 {
        self.workspaces
            .iter()
            .filter(|workspace| workspace.owner_id == owner)
            .filter_map(|workspace| {
                let mut builds: Vec<_> =
                    self.workspace_builds.iter().filter(|build| build.workspace_id == workspace.id).collect();
                builds.sort_by_key(|build| build.build_number);
                let latest = builds.pop()?;
                let here = workspace.organization_id == organization;
                let costs = latest.daily_cost != 0;
                self.reached.note(Branch::DeletedWorkspaceCost, here && workspace.deleted && costs);
                self.reached.note(Branch::OtherOrganizationCost, !here && !workspace.deleted && costs);
                if !here || workspace.deleted {
                    return None;
                }
                self.reached.note(Branch::LatestHidesCost, !costs && builds.pop().is_some_and(|b| b.daily_cost != 0));
                Some(i64::from(latest.daily_cost))
            })
            .sum()
    }
}
