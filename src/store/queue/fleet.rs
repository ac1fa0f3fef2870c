//! The daemons, and which tags they serve.

use std::collections::{HashMap, HashSet};

use serde_json::Value;
use time::OffsetDateTime;

use super::Kind;
use crate::model::{DaemonCounts, Label, OrganizationId, ProvisionerType, Tags, tags_contain, tags_serve};

/// Daemons of one organization with the same tags and provisioners.
pub(super) struct Group {
    pub(super) organization: OrganizationId,
    pub(super) provisioners: Vec<Label<ProvisionerType>>,
    /// As stored.
    pub(super) tags: Value,
    pub(super) counts: DaemonCounts,
    /// The last sign of life of any of them.
    pub(super) last_seen_at: Option<OffsetDateTime>,
}

impl Group {
    /// Whether its daemons may take jobs of the kind, if their tags serve it.
    pub(super) fn may_take(&self, kind: &Kind) -> bool {
        self.organization == kind.organization && self.provisioners.contains(&kind.provisioner)
    }
}

/// All daemons.
#[derive(Default)]
pub(super) struct Fleet {
    groups: Vec<Group>,
    /// By a tag, the groups that have it: with thousands of tag sets, comparing each with each takes seconds.
    by_tag: HashMap<(String, String), Vec<usize>>,
    organizations: HashSet<OrganizationId>,
}

impl Fleet {
    pub(super) fn add(&mut self, group: Group) {
        for (key, value) in strings(&group.tags) {
            self.by_tag.entry((key.clone(), value.to_owned())).or_default().push(self.groups.len());
        }
        self.organizations.insert(group.organization);
        self.groups.push(group);
    }

    pub(super) fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// The groups whose tags serve a job with these.
    pub(super) fn serving(&self, tags: &Value) -> Vec<usize> {
        let serves = |group: &usize| tags_serve(&self.groups[*group].tags, tags);
        // A daemon serves a tag with a text value only if it has that very tag.
        match strings(tags).map(|(key, value)| self.having(key, value)).min_by_key(|groups| groups.len()) {
            Some(groups) => groups.iter().copied().filter(serves).collect(),
            None => (0..self.groups.len()).filter(serves).collect(),
        }
    }

    fn having(&self, key: &str, value: &str) -> &[usize] {
        self.by_tag.get(&(key.to_owned(), value.to_owned())).map_or(&[], Vec::as_slice)
    }

    /// Whether the organization has any.
    pub(super) fn is_in(&self, organization: OrganizationId) -> bool {
        self.organizations.contains(&organization)
    }

    /// The tags of a job that none of them in the organization has.
    pub(super) fn missing(&self, organization: OrganizationId, tags: &Value) -> Tags {
        let is_there = |key: &str, value: &Value| match value.as_str() {
            Some(value) => self.having(key, value).iter().any(|group| self.groups[*group].organization == organization),
            None => self.groups.iter().any(|group| {
                let has = group.tags.get(key).is_some_and(|found| tags_contain(found, value));
                has && group.organization == organization
            }),
        };
        let missing = tags.as_object().into_iter().flatten().filter(|(key, value)| !is_there(key, value));
        Tags::from(missing.map(|(key, value)| (key.clone(), value.clone())).collect::<Value>())
    }
}

/// The tags that are texts, as all are that this layer stores.
fn strings(tags: &Value) -> impl Iterator<Item = (&String, &str)> {
    tags.as_object().into_iter().flatten().filter_map(|(key, value)| Some((key, value.as_str()?)))
}
