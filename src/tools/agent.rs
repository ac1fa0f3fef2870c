//! Which agent a chat uses, and waiting until it can be used (domain: agent choice; chat tools).

use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval, timeout};

use super::{
    AgentProblem, AgentReadiness, CancellationToken, Connector, StartupScripts, Toolbox,
    error::{Unavailable, twice},
};
use crate::{
    authz::{Actor, ReadWorkspaces},
    model::{AgentLifecycle, Label, OrganizationId, Workspace, WorkspaceAgent},
    store,
};

/// An agent whose name ends like this, in any case, is for chats.
const CHAT_SUFFIX: &str = "-coderd-chat";

/// An interval of nothing is a panic.
const TICK: Duration = Duration::from_millis(1);

/// Why no agent was chosen.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SelectionError {
    /// There is none, or only sub-agents.
    #[error("no eligible workspace agents found")]
    None,
    /// Several say that they are for chats.
    #[error(
        "multiple agents match the chat suffix \"{CHAT_SUFFIX}\": {}; only one agent should use this suffix",
        names.join(", ")
    )]
    Several {
        /// Their names.
        names: Vec<String>,
    },
}

/// The agent that a chat uses: the one that is for chats, or else the first one (domain: agent choice). Sub-agents do
/// not count.
pub fn choose_agent(agents: &[WorkspaceAgent]) -> Result<&WorkspaceAgent, SelectionError> {
    let mut roots: Vec<_> = agents.iter().filter(|agent| agent.parent_id.is_none()).collect();
    roots.sort_by_cached_key(|agent| (agent.display_order, agent.name.to_lowercase(), agent.name.clone(), agent.id));
    let is_for_chats = |agent: &&&WorkspaceAgent| agent.name.to_lowercase().ends_with(CHAT_SUFFIX);
    let for_chats: Vec<_> = roots.iter().filter(is_for_chats).collect();
    match for_chats.as_slice() {
        [] => roots.first().copied().ok_or(SelectionError::None),
        [only] => Ok(only),
        several => Err(SelectionError::Several { names: several.iter().map(|agent| agent.name.clone()).collect() }),
    }
}

/// Whether the agent has to be reached first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dial {
    Yes,
    No,
}

/// What the agents of a workspace come to in a reply.
pub(super) enum Agents {
    Unknown,
    None,
    NotChosen(SelectionError),
    Ready(AgentReadiness),
}

impl Agents {
    /// Where no answer about the agents is one, too.
    pub(super) fn readiness(self) -> AgentReadiness {
        match self {
            Self::Unknown => AgentReadiness::default(),
            Self::None => AgentReadiness { agent_status: Some(AgentProblem::NoAgent), ..AgentReadiness::default() },
            Self::NotChosen(error) => AgentReadiness {
                agent_status: Some(AgentProblem::SelectionError),
                agent_error: Some(error.to_string()),
                ..AgentReadiness::default()
            },
            Self::Ready(readiness) => readiness,
        }
    }
}

impl Toolbox {
    /// The agents of the newest build of the workspace.
    pub(super) async fn agents(&self, who: &Actor, workspace: &Workspace) -> Result<Vec<WorkspaceAgent>, Unavailable> {
        let permit = ReadWorkspaces::check(who, workspace.organization_id)?;
        let look =
            || async { Ok(store::agents::in_latest_build(&mut *self.pool.get().await?, &permit, workspace.id).await?) };
        twice(look).await
    }

    /// Chooses an agent of the workspace, and waits until it can be used.
    pub(super) async fn wait_for_agents(
        &self,
        who: &Actor,
        workspace: &Workspace,
        cancel: &CancellationToken,
    ) -> Agents {
        let Ok(agents) = self.agents(who, workspace).await else { return Agents::Unknown };
        if agents.is_empty() {
            return Agents::None;
        }
        match choose_agent(&agents) {
            Ok(agent) => {
                Agents::Ready(self.wait_for_agent(who, workspace.organization_id, agent, Dial::Yes, cancel).await)
            }
            Err(error) => Agents::NotChosen(error),
        }
    }

    /// Waits until the agent can be reached, and its start-up scripts are done.
    pub(super) async fn wait_for_agent(
        &self,
        who: &Actor,
        organization: OrganizationId,
        agent: &WorkspaceAgent,
        dial: Dial,
        cancel: &CancellationToken,
    ) -> AgentReadiness {
        if let (Some(connector), Dial::Yes) = (&self.connector, dial)
            && let Err(error) = self.connect(connector.as_ref(), agent, cancel).await
        {
            return AgentReadiness {
                agent_status: Some(AgentProblem::NotReady),
                agent_error: Some(error),
                ..AgentReadiness::default()
            };
        }
        self.wait_for_scripts(who, organization, agent, cancel).await
    }

    /// Connects to the agent, or says why the last attempt failed.
    async fn connect(
        &self,
        connector: &dyn Connector,
        agent: &WorkspaceAgent,
        cancel: &CancellationToken,
    ) -> Result<(), String> {
        let limit = self.settings.agent_attempt_timeout;
        let mut last = None;
        let attempts = async {
            let mut ticks = interval(self.settings.agent_retry_interval.max(TICK));
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                last = match timeout(limit, connector.connect(agent.id)).await {
                    Ok(Ok(_connection)) => return,
                    Ok(Err(error)) => Some(error.to_string()),
                    Err(_) => Some(format!("no answer within {limit:?}")),
                };
            }
        };
        let connected = tokio::select! {
            connected = timeout(self.settings.agent_connect_timeout, attempts) => connected.is_ok(),
            () = cancel.cancelled() => false,
        };
        if connected { Ok(()) } else { Err(last.unwrap_or_else(|| "no answer".to_owned())) }
    }

    /// Waits until the start-up scripts are done. That the database cannot be asked now and then does not matter.
    async fn wait_for_scripts(
        &self,
        who: &Actor,
        organization: OrganizationId,
        agent: &WorkspaceAgent,
        cancel: &CancellationToken,
    ) -> AgentReadiness {
        let scripts = |scripts| AgentReadiness { startup_scripts: Some(scripts), ..AgentReadiness::default() };
        let look = async || {
            let permit = ReadWorkspaces::check(who, organization)?;
            let state = store::agents::lifecycle(&mut *self.pool.get().await?, &permit, agent.id).await?;
            Ok::<_, Unavailable>(state.state)
        };
        let done = async {
            let mut ticks = interval(self.settings.startup_poll_interval.max(TICK));
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                match look().await {
                    Ok(Label::Known(AgentLifecycle::Created | AgentLifecycle::Starting)) | Err(_) => {}
                    Ok(state) => return state.known(),
                }
            }
        };
        tokio::select! {
            done = timeout(self.settings.startup_timeout, done) => match done {
                Ok(Some(AgentLifecycle::Ready)) => AgentReadiness::default(),
                Ok(Some(state)) => AgentReadiness { lifecycle_state: Some(state), ..scripts(StartupScripts::Failed) },
                // A state that this version does not know, and that the schema of the reply does not have.
                Ok(None) => scripts(StartupScripts::Unknown),
                Err(_) => scripts(StartupScripts::Timeout),
            },
            () = cancel.cancelled() => scripts(StartupScripts::Unknown),
        }
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;
    use uuid::Uuid;

    use super::*;
    use crate::model::WorkspaceAgentId;

    fn agent(id: u128, display_order: i32, name: &str) -> WorkspaceAgent {
        WorkspaceAgent {
            id: WorkspaceAgentId(Uuid::from_u128(id)),
            parent_id: None,
            name: name.to_owned(),
            created_at: datetime!(2026-05-07 12:00 UTC),
            first_connected_at: None,
            last_connected_at: None,
            disconnected_at: None,
            connection_timeout_seconds: 0,
            lifecycle_state: AgentLifecycle::Ready.into(),
            started_at: None,
            ready_at: None,
            operating_system: String::new(),
            architecture: String::new(),
            expanded_directory: String::new(),
            display_order,
            logs_length: 0,
            logs_overflowed: false,
        }
    }

    fn below(parent: u128, agent: WorkspaceAgent) -> WorkspaceAgent {
        WorkspaceAgent { parent_id: Some(WorkspaceAgentId(Uuid::from_u128(parent))), ..agent }
    }

    #[test]
    fn the_first_agent_is_chosen_by_order_name_and_id_or_the_one_for_chats() {
        let chosen = |agents: &[WorkspaceAgent]| choose_agent(agents).map(|agent| agent.id.0.as_u128());
        assert_eq!(chosen(&[agent(1, 2, "a"), agent(2, 1, "b")]), Ok(2));
        assert_eq!(chosen(&[agent(1, 1, "b"), agent(2, 1, "A")]), Ok(2));
        assert_eq!(chosen(&[agent(1, 1, "a"), agent(2, 1, "A")]), Ok(2));
        assert_eq!(chosen(&[agent(2, 1, "a"), agent(1, 1, "a")]), Ok(1));
        assert_eq!(chosen(&[agent(1, 1, "a"), agent(2, 9, "z-CODERD-chat")]), Ok(2));
        assert_eq!(chosen(&[agent(1, 9, "a"), below(1, agent(2, 1, "b-coderd-chat"))]), Ok(1));
        assert_eq!(chosen(&[agent(1, 1, "coderd-chat-a"), agent(2, 2, "b")]), Ok(1));
    }

    #[test]
    fn none_and_several_for_chats_are_errors_that_say_so() {
        let error = |agents: &[WorkspaceAgent]| choose_agent(agents).expect_err("no agent").to_string();
        for none in [vec![], vec![below(1, agent(2, 1, "a"))]] {
            assert_eq!(error(&none), "no eligible workspace agents found");
        }
        let several = [agent(1, 2, "a-coderd-chat"), agent(2, 1, "b-Coderd-Chat"), agent(3, 0, "c")];
        let expected = "multiple agents match the chat suffix \"-coderd-chat\": b-Coderd-Chat, a-coderd-chat; only one \
                        agent should use this suffix";
        assert_eq!(error(&several), expected);
    }
}
