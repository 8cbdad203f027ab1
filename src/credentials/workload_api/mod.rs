//! The SPIFFE Workload API: certificate, key and trust bundles from a local agent, which pushes
//! new ones whenever it likes.
//!
//! [`Watch`] keeps a stream open for the life of the process and publishes each good answer as
//! whole credentials. A lost agent costs nothing but freshness: the last answer stays in force
//! while the watch knocks again. `address` says where the agent is, `call` speaks gRPC with it,
//! `message` takes its bytes apart, `update` judges what they say, `watch` goes on for ever.
//!
//! The agent is trusted with the key, but not to be well behaved: messages, header lists and
//! waits are bounded, and no bytes of it make the process panic.

mod address;
mod message;
mod status;
mod update;
mod watch;

#[cfg(not(feature = "spiffe"))]
#[path = "absent.rs"]
mod call;
#[cfg(feature = "spiffe")]
mod call;

use std::time::Duration;

pub use address::{Endpoint, EndpointError};
pub use message::WireError;
pub use status::{Code, Status};
pub use update::{ResponseError, Update};
pub use watch::{AgentState, NoFirstAnswer, State, Watch, first_answer};

/// Whether this build can talk to an agent.
pub const IS_BUILT: bool = cfg!(feature = "spiffe");

/// Where credentials are fetched from, and what is done with them.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The agent (`--use-workload-api-addr`).
    pub endpoint: Endpoint,
    /// How long the start waits for the first answer; `None` is for ever.
    pub first_answer_timeout: Option<Duration>,
    /// Whether peers that ask for a certificate are shown the SVID; not so in client mode with
    /// `--disable-authentication`.
    pub is_presented: bool,
}
