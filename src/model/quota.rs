//! What quota is used for, and what a start would do to it (domain: quota check).

use serde::Serialize;
use time::OffsetDateTime;

use super::{GroupId, Label, Quota, QuotaExplanation, TemplateId, Transition, WorkspaceId};

/// Whether a start fits into somebody's budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum QuotaVerdict {
    /// The 95th percentile of the samples fits, or there is a prebuilt workspace to claim.
    Fits,
    /// The median fits.
    Likely,
    /// Less than the median fits, but some sample does.
    LikelyNot,
    /// No sample fits.
    DoesNotFit,
    /// Nothing was started of late.
    Unknown,
}

/// What a start is likely to commit, and whether that fits into somebody's budget, in credits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct QuotaCheck {
    /// What the user consumes and may consume.
    #[serde(flatten)]
    pub quota: Quota,
    /// How many successful starts the numbers come from.
    pub samples: usize,
    /// The median of what they have committed.
    pub median: Option<i32>,
    /// The 95th percentile of what they have committed.
    pub p95: Option<i32>,
    /// The prebuilt workspaces that can be claimed instead, if there is one.
    pub claim: Option<QuotaClaim>,
    /// Whether it fits.
    pub verdict: QuotaVerdict,
}

/// Prebuilt workspaces that can be claimed. A claim commits what the workspace costs already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct QuotaClaim {
    /// How many there are.
    pub workspaces: usize,
    /// What the cheapest one costs, in credits.
    pub least: i32,
    /// What the most expensive one costs.
    pub most: i32,
}

impl QuotaCheck {
    /// The rule, for what starts have committed and what each prebuilt workspace costs that can be claimed.
    pub(crate) fn new(quota: Quota, mut costs: Vec<i32>, claims: &[i32]) -> Self {
        costs.sort_unstable();
        // The nearest rank: a cost that was committed, not one between two.
        let percentile = |percent: usize| costs.get((costs.len() * percent).div_ceil(100).saturating_sub(1)).copied();
        let (median, p95) = (percentile(50), percentile(95));
        // What costs nothing commits nothing, and is never rejected.
        let fits = |cost: &i32| *cost == 0 || quota.credits_consumed.saturating_add((*cost).into()) <= quota.budget;
        let claim = claims.iter().min().zip(claims.iter().max());
        let claim = claim.map(|(least, most)| QuotaClaim { workspaces: claims.len(), least: *least, most: *most });
        let verdict = match (median, p95) {
            // The workspace costs no more than before: its commit is accepted whatever the budget is.
            _ if claim.is_some() => QuotaVerdict::Fits,
            (_, Some(p95)) if fits(&p95) => QuotaVerdict::Fits,
            (Some(median), _) if fits(&median) => QuotaVerdict::Likely,
            (None, _) => QuotaVerdict::Unknown,
            _ if costs.iter().any(fits) => QuotaVerdict::LikelyNot,
            _ => QuotaVerdict::DoesNotFit,
        };
        Self { quota, samples: costs.len(), median, p95, claim, verdict }
    }
}

/// What the workspaces of a template consume in an organization.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TemplateQuota {
    /// The template.
    pub id: TemplateId,
    /// Its name.
    pub name: String,
    /// Whether it is gone.
    pub deleted: bool,
    /// How many workspaces it has.
    pub workspaces: i64,
    /// What they consume, in credits.
    pub credits_consumed: i64,
}

/// What the workspaces of the members of a group consume in its organization. Who is in several groups counts in each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct GroupQuota {
    /// The group; that of Everyone has the id of the organization.
    pub id: GroupId,
    /// Its name.
    pub name: String,
    /// What it adds to the budget of each member, in credits; may be negative.
    pub allowance: i32,
    /// How many members it has.
    pub members: i64,
    /// What their workspaces consume, in credits.
    pub credits_consumed: i64,
}

/// A workspace whose newest build has committed something else than the build before it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct QuotaChange {
    /// The workspace.
    pub id: WorkspaceId,
    /// Its name.
    pub name: String,
    /// What the newest build does.
    pub transition: Label<Transition>,
    /// What the build before has committed, in credits; `None` if there is none.
    pub from: Option<i32>,
    /// What the newest build has committed.
    pub to: i32,
    /// When it was asked for.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
}

impl QuotaExplanation {
    /// What has changed since then, the newest first. Changes of groups carry no time, and are not among them.
    #[must_use]
    pub fn changes_since(&self, since: OffsetDateTime) -> Vec<QuotaChange> {
        let newer = self.workspaces.iter().filter(|workspace| {
            workspace.built_at >= since && workspace.credits_before.unwrap_or(0) != workspace.credits
        });
        let mut changes: Vec<_> = newer
            .map(|workspace| QuotaChange {
                id: workspace.id,
                name: workspace.name.clone(),
                transition: workspace.transition.clone(),
                from: workspace.credits_before,
                to: workspace.credits,
                at: workspace.built_at,
            })
            .collect();
        changes.sort_by(|a, b| b.at.cmp(&a.at).then_with(|| a.id.cmp(&b.id)));
        changes
    }
}
