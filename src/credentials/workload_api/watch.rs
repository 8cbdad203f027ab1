//! Asks for ever: one stream after the other, with a growing pause between them.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tracing::{error, info, warn};

use super::call::Call;
use super::{Code, Settings, Status, Update};
use crate::credentials::{Credentials, OwnIdentity, Warning};
use crate::net::Resolver;

/// How long connecting may take, and how long an agent that was reached may be silent before
/// its first message. An agent answers at once, if only to refuse.
const CONNECT: Duration = Duration::from_secs(10);
const FIRST_MESSAGE: Duration = Duration::from_secs(60);

/// Each failure in a row makes the pause a second longer, up to this.
const LONGEST_PAUSE: u64 = 30;

/// How often the clock is looked at for the end of an SVID's life: waiting for an hour takes
/// longer where the machine sleeps meanwhile.
const CLOCK: Duration = Duration::from_secs(30);

/// What is known now.
#[derive(Debug, Clone, Default)]
pub struct State {
    /// The last good answer.
    pub credentials: Option<Arc<Credentials>>,
    /// How it goes with the agent.
    pub agent: AgentState,
    /// Why nothing will ever come. Only before the first good answer.
    pub refusal: Option<Status>,
}

/// How it goes with the agent.
#[derive(Debug, Clone, Default)]
pub struct AgentState {
    /// Whether a stream is open on which something has come.
    pub is_connected: bool,
    /// The SPIFFE ID in force.
    pub spiffe_id: Option<String>,
    /// The trust domains whose peers can be verified.
    pub trust_domains: Vec<String>,
    /// When the last good answer came.
    pub updated_at: Option<SystemTime>,
    /// What went wrong since then, most recently.
    pub last_error: Option<String>,
}

/// A watch on the agent of one tunnel.
pub struct Watch {
    settings: Settings,
    resolver: Resolver,
    state: watch::Sender<State>,
    generation: u64,
    failures: u64,
}

/// The start was given up.
#[derive(Debug, thiserror::Error)]
#[error(
    "timed out or failed waiting for initial SPIFFE Workload API update (is the agent reachable and is there a \
     registration entry?): {0}"
)]
pub struct NoFirstAnswer(String);

impl Watch {
    /// A watch to be run, and what it will find out.
    pub fn new(settings: Settings, resolver: Resolver) -> (Self, watch::Receiver<State>) {
        let (state, receiver) = watch::channel(State::default());
        let watch = Self {
            settings,
            resolver,
            state,
            generation: 0,
            failures: 0,
        };
        (watch, receiver)
    }

    /// Follows the agent. Ends only if the agent refuses before it has answered once.
    pub async fn run(self) {
        let state = self.state.subscribe();
        tokio::select! {
            () = self.follow_for_ever() => {}
            () = tell_of_expiry(state) => {}
        }
    }

    async fn follow_for_ever(mut self) {
        loop {
            info!("spiffe/debug: Watching X.509 contexts");
            let status = self.follow().await;
            self.state.send_modify(|state| {
                state.agent.is_connected = false;
                state.agent.last_error = Some(status.to_string());
            });
            // An agent that was reached and finds fault with the request will do so again.
            let is_final = matches!(status.code(), Code::Canceled | Code::InvalidArgument);
            if is_final && self.generation == 0 {
                error!("spiffe/error: Canceling watch: {status}");
                self.state.send_modify(|state| state.refusal = Some(status));
                return;
            }
            error!(
                event = "workload_api_failed",
                error = status.to_string(),
                "spiffe/error: Failed to watch the Workload API: {status}"
            );
            self.failures = self.failures.saturating_add(1).min(LONGEST_PAUSE);
            info!("spiffe/debug: Retrying watch in {}s", self.failures);
            sleep(Duration::from_secs(self.failures)).await;
        }
    }

    /// One stream, to its end.
    async fn follow(&mut self) -> Status {
        let first = Instant::now() + FIRST_MESSAGE;
        let silent = |_| {
            let limit = FIRST_MESSAGE.as_secs();
            Status::new(Code::DeadlineExceeded, format_args!("no answer within {limit}s"))
        };
        let open = Call::open(
            self.settings.endpoint.target(),
            &self.resolver,
            Instant::now() + CONNECT,
        );
        let mut call = match timeout_at(first, open).await.map_err(silent) {
            Ok(Ok(call)) => call,
            Ok(Err(status)) | Err(status) => return status,
        };
        let mut next = match timeout_at(first, call.next()).await.map_err(silent) {
            Ok(next) => next,
            Err(status) => return status,
        };
        loop {
            match next {
                Ok(message) => self.take(&message),
                Err(status) => return status,
            }
            next = call.next().await;
        }
    }

    /// Puts an answer in force, or keeps the old one.
    fn take(&mut self, message: &[u8]) {
        self.failures = 0;
        match Update::parse(message) {
            Ok(update) => self.publish(update),
            Err(error) => {
                error!(
                    event = "workload_api_failed",
                    error = error.to_string(),
                    "spiffe/error: Failed to parse X509-SVID response: {error}"
                );
                self.state.send_modify(|state| {
                    state.agent.is_connected = true;
                    state.agent.last_error = Some(error.to_string());
                });
            }
        }
    }

    fn publish(&mut self, update: Update) {
        let domains: Vec<String> = update.bundles.trust_domains().map(ToString::to_string).collect();
        self.generation = self.generation.saturating_add(1);
        let spiffe_id = update.id.text().to_owned();
        let credentials = update.into_credentials(self.settings.is_presented, self.generation);
        self.state.send_modify(|state| {
            state.credentials = Some(Arc::new(credentials));
            state.agent = AgentState {
                is_connected: true,
                spiffe_id: Some(spiffe_id),
                trust_domains: domains,
                updated_at: Some(SystemTime::now()),
                last_error: None,
            };
        });
    }
}

/// Waits for the first good answer.
pub async fn first_answer(
    state: &mut watch::Receiver<State>,
    limit: Option<Duration>,
) -> Result<Arc<Credentials>, NoFirstAnswer> {
    let answer = async {
        let seen = state
            .wait_for(|state| state.credentials.is_some() || state.refusal.is_some())
            .await;
        let Ok(seen) = seen else {
            return Err("the watch has ended".to_owned());
        };
        match (&seen.credentials, &seen.refusal) {
            (Some(credentials), _) => Ok(Arc::clone(credentials)),
            (None, Some(status)) => Err(status.to_string()),
            (None, None) => Err("the watch has ended".to_owned()),
        }
    };
    let answer = match limit {
        None => answer.await,
        Some(limit) => match timeout(limit, answer).await {
            Ok(answer) => answer,
            Err(_) => Err(match &state.borrow().agent.last_error {
                Some(error) => format!("context deadline exceeded; the last failure: {error}"),
                None => "context deadline exceeded".to_owned(),
            }),
        },
    };
    answer.map_err(NoFirstAnswer)
}

/// Says once of each SVID that its life has ended, if no other came in time. It stays in use:
/// peers will refuse it, which is not for this end to anticipate.
async fn tell_of_expiry(mut state: watch::Receiver<State>) {
    loop {
        let current = state.borrow_and_update().credentials.clone();
        let Some(own) = current.as_deref().and_then(Credentials::identity) else {
            if state.changed().await.is_err() {
                return;
            }
            continue;
        };
        // One that came too late has been warned about when it was put in force.
        let is_in_time = remaining(own).is_some();
        tokio::select! {
            changed = another(&mut state, own) => {
                if changed.is_err() {
                    return;
                }
            }
            () = expired(own), if is_in_time => {
                let warning = Warning::Expired { subject: own.subject().to_owned() };
                warn!("spiffe/warn: the agent has sent no new SVID in time: {warning}");
                if another(&mut state, own).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// Waits until another SVID than this one is in force.
async fn another(
    state: &mut watch::Receiver<State>,
    than: &Arc<OwnIdentity>,
) -> Result<(), watch::error::RecvError> {
    let is_other = |state: &State| {
        let own = state.credentials.as_deref().and_then(Credentials::identity);
        own.is_some_and(|own| !Arc::ptr_eq(own, than))
    };
    state.wait_for(is_other).await.map(|_| ())
}

async fn expired(own: &OwnIdentity) {
    while let Some(left) = remaining(own) {
        sleep(left.min(CLOCK)).await;
    }
}

/// How long the certificate is valid yet; `None` when it is not any more.
fn remaining(own: &OwnIdentity) -> Option<Duration> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let end = u64::try_from(own.not_after().unix_seconds()).unwrap_or_default();
    // Valid through its last second.
    Duration::from_secs(end.saturating_add(1))
        .checked_sub(now)
        .filter(|left| !left.is_zero())
}
