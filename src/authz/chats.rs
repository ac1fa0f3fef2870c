//! Permits for chats.

use super::{
    Actor, Denied, System,
    permit::{Policy, denied, permit},
};
use crate::model::{Entity, UserId};

permit! {
    /// May read chats and change what they work with: all of them, or only one's own (domain: chat tools).
    UseChats {
        /// The only owner that the permit reaches; `None` for all.
        owner: Option<UserId>,
    }
}

impl UseChats {
    const POLICY: Policy = Policy { site: &[], organization: &[], system: &[System::ChatDaemon] };

    /// The chat daemon for all chats, every user for one's own, where one is a member. No role reaches the chats of
    /// others.
    pub fn check(actor: &Actor) -> Result<Self, Denied> {
        match (Self::POLICY.grants(actor), actor.user_id()) {
            (true, _) => Ok(Self { owner: None, _checked: () }),
            (false, Some(user)) => Ok(Self { owner: Some(user), _checked: () }),
            (false, None) => Err(denied(Entity::Chat, "any")),
        }
    }
}
