//! Is the process serving, and are its backends reachable? The answer of `/_status`.

use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::SystemTime;

use jiff::Timestamp;
use serde::Serialize;

use super::check::{Outcome, SharedCheck};
use crate::lifecycle::{ReloadRecord, State};
use crate::logging::{local_zone, rfc3339};
use crate::metrics::json;

/// Asks whether a tunnel's target is reachable, by the tunnel's own dial, and says why not.
/// Called once per request to `/_status`: backends count their connections.
pub type HealthCheck = Rc<dyn Fn() -> Pin<Box<dyn Future<Output = Result<(), String>>>>>;

/// What the status port says of a tunnel.
#[derive(Clone)]
pub struct TunnelView {
    /// `--listen` as typed.
    pub listen: String,
    /// `--target` as typed.
    pub forward: String,
    /// Where it really listens, for instance with the port that the kernel chose.
    pub listening_on: Option<String>,
    /// How to find out whether its target is reachable.
    pub check: HealthCheck,
    /// Gives its own certificate in force, if it has one.
    pub certificate: Rc<dyn Fn() -> Option<CertificateView>>,
    /// Tells how it goes with the agent that its certificate comes from, if there is one.
    pub workload_api: Rc<dyn Fn() -> Option<WorkloadApiView>>,
}

/// What the status port says of the agent of a SPIFFE Workload API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkloadApiView {
    /// Whether there is a stream on which updates can come.
    pub is_connected: bool,
    /// The SPIFFE ID in force.
    pub spiffe_id: Option<String>,
    /// The trust domains whose peers can be verified.
    pub trust_domains: Vec<String>,
    /// When the last good update came.
    pub updated_at: Option<SystemTime>,
    /// What went wrong since then.
    pub last_error: Option<String>,
}

/// The same as JSON.
#[derive(Debug, Clone, Serialize)]
struct AgentReport {
    connected: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    spiffe_id: Option<String>,
    trust_domains: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_update: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_error: Option<String>,
}

impl From<WorkloadApiView> for AgentReport {
    fn from(view: WorkloadApiView) -> Self {
        Self {
            connected: view.is_connected,
            spiffe_id: view.spiffe_id,
            trust_domains: view.trust_domains,
            last_update: view.updated_at.map(local_time),
            last_error: view.last_error,
        }
    }
}

/// What the status port says of a certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CertificateView {
    /// Whom it is about.
    pub subject: String,
    /// Its serial number in hexadecimal.
    pub serial: String,
    /// The last second at which it is valid, as RFC 3339 writes it.
    pub not_after: String,
}

/// What the status port says of the sandbox.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct SandboxView {
    /// `enforced`, `unsupported` (by the kernel), `failed`, `absent` (on this system) or
    /// `disabled`.
    pub state: &'static str,
    /// The version of Landlock that the kernel has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub abi: Option<u32>,
    /// Whether access to files is restricted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub files: Option<bool>,
    /// Whether TCP ports are restricted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tcp: Option<bool>,
    /// Why nothing is enforced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Rules that could not be made; what they were for is denied.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rules_left_out: Vec<String>,
}

/// The toolchain of `compiler`: the oldest one that builds this version. Which one built
/// it is known to build scripts only, and is not worth having one.
const COMPILER: &str = concat!("rustc ", env!("CARGO_PKG_RUST_VERSION"));

/// How "never" is written.
const NEVER: &str = "0001-01-01T00:00:00Z";

/// The JSON of `/_status`. The order of the fields up to `compiler` is that of
/// Ghostunnel 1.11.1; what it does not have comes after.
#[derive(Serialize)]
struct Report<'a> {
    ok: bool,
    status: &'static str,
    listen_address: &'a str,
    forward_address: &'a str,
    #[serde(flatten)]
    backend: Backend<'a>,
    time: String,
    last_reload: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    hostname: Option<&'a str>,
    message: String,
    revision: &'static str,
    compiler: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_reload_ok: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_reload_error: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bound_address: Option<&'a str>,
    connections_open: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    certificate: Option<CertificateView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    workload_api: Option<AgentReport>,
    sandbox: &'a SandboxView,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tunnels: Vec<TunnelReport<'a>>,
}

#[derive(Serialize)]
struct TunnelReport<'a> {
    listen_address: &'a str,
    forward_address: &'a str,
    #[serde(flatten)]
    backend: Backend<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bound_address: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    certificate: Option<CertificateView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    workload_api: Option<AgentReport>,
}

#[derive(Serialize)]
struct Backend<'a> {
    backend_ok: bool,
    backend_status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    backend_error: Option<&'a str>,
}

/// Waits for the checks of all tunnels at once.
pub(super) async fn check_all(checks: &[SharedCheck]) -> Vec<Outcome> {
    let mut pending: Vec<_> = checks.iter().map(|check| Box::pin(check.outcome())).collect();
    let mut results = vec![None; pending.len()];
    poll_fn(|context| {
        for (check, result) in pending.iter_mut().zip(&mut results) {
            if result.is_none()
                && let Poll::Ready(outcome) = check.as_mut().poll(context)
            {
                *result = Some(outcome);
            }
        }
        if results.iter().all(Option::is_some) {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
    .await;
    results.into_iter().flatten().collect()
}

/// All that a report is made of.
pub(super) struct Snapshot<'a> {
    pub(super) tunnels: &'a [TunnelView],
    /// One for each tunnel.
    pub(super) results: &'a [Outcome],
    pub(super) state: &'a State,
    pub(super) connections_open: i64,
    pub(super) sandbox: &'a SandboxView,
    pub(super) hostname: &'a str,
    pub(super) now: SystemTime,
}

/// Renders the report, and says whether all is well.
pub(super) fn report(snapshot: &Snapshot<'_>) -> (bool, String) {
    let Snapshot {
        tunnels,
        results,
        state,
        now,
        ..
    } = *snapshot;
    let mut reports: Vec<_> = tunnels.iter().zip(results).map(TunnelReport::new).collect();
    let ok = state.phase.is_serving() && results.iter().all(Result::is_ok);
    let last = state.last_reload.as_ref();
    let certificate = reports.first().and_then(|first| first.certificate.clone());
    let workload_api = reports.first().and_then(|first| first.workload_api.clone());
    let first = reports.first();
    let report = Report {
        ok,
        status: word(ok),
        listen_address: first.map_or("", |first| first.listen_address),
        forward_address: first.map_or("", |first| first.forward_address),
        backend: Backend::new(results.first().unwrap_or(&Ok(()))),
        time: local_time(now),
        last_reload: last.map_or_else(|| NEVER.to_owned(), |last| local_time(last.at)),
        hostname: Some(snapshot.hostname).filter(|name| !name.is_empty()),
        message: state.phase.to_string(),
        revision: env!("CARGO_PKG_VERSION"),
        compiler: COMPILER,
        last_reload_ok: last.map(|last| last.result.is_ok()),
        last_reload_error: last.and_then(reload_error),
        bound_address: first.and_then(|first| first.bound_address),
        connections_open: snapshot.connections_open,
        certificate,
        workload_api,
        sandbox: snapshot.sandbox,
        tunnels: if reports.len() > 1 {
            std::mem::take(&mut reports)
        } else {
            Vec::new()
        },
    };
    let text = serde_json::to_string(&report).expect("a report has only string keys");
    (ok, json::escape_markup(&text))
}

fn reload_error(record: &ReloadRecord) -> Option<&str> {
    record.result.as_ref().err().map(String::as_str)
}

impl<'a> TunnelReport<'a> {
    fn new((view, result): (&'a TunnelView, &'a Outcome)) -> Self {
        Self {
            listen_address: &view.listen,
            forward_address: &view.forward,
            backend: Backend::new(result),
            bound_address: view.listening_on.as_deref(),
            certificate: (view.certificate)(),
            workload_api: (view.workload_api)().map(AgentReport::from),
        }
    }
}

impl<'a> Backend<'a> {
    fn new(result: &'a Outcome) -> Self {
        Self {
            backend_ok: result.is_ok(),
            backend_status: word(result.is_ok()),
            backend_error: result.as_ref().err().map(String::as_str),
        }
    }
}

fn word(is_ok: bool) -> &'static str {
    if is_ok { "ok" } else { "critical" }
}

/// Users compare these texts to see whether a reload happened, so they have all digits of the
/// second.
fn local_time(time: SystemTime) -> String {
    Timestamp::try_from(time).map_or_else(|_| NEVER.to_owned(), |time| rfc3339(time, local_zone()))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;
    use crate::lifecycle::Phase;

    fn tunnel(listen: &str, listening_on: Option<&str>) -> TunnelView {
        TunnelView {
            listen: listen.to_owned(),
            forward: "127.0.0.1:19001".to_owned(),
            listening_on: listening_on.map(str::to_owned),
            check: Rc::new(|| Box::pin(async { Ok(()) })),
            certificate: Rc::new(|| None),
            workload_api: Rc::new(|| None),
        }
    }

    fn state(phase: Phase, last_reload: Option<ReloadRecord>) -> State {
        State { phase, last_reload }
    }

    fn now() -> SystemTime {
        UNIX_EPOCH + Duration::new(1_795_562_059, 35_681_169)
    }

    /// The text with its time zone's `time` and the version taken out.
    fn text(tunnels: &[TunnelView], results: &[Outcome], state: &State) -> String {
        let sandbox = SandboxView {
            state: "disabled",
            ..SandboxView::default()
        };
        let (_, text) = report(&Snapshot {
            tunnels,
            results,
            state,
            connections_open: 3,
            sandbox: &sandbox,
            hostname: "vm",
            now: now(),
        });
        let time = local_time(now());
        text.replace(&format!("\"{time}\""), "TIME")
            .replace(env!("CARGO_PKG_VERSION"), "VERSION")
    }

    #[test]
    fn a_healthy_tunnel_is_reported_in_the_known_order() {
        let expected = concat!(
            r#"{"ok":true,"status":"ok","listen_address":"127.0.0.1:19101","#,
            r#""forward_address":"127.0.0.1:19001","backend_ok":true,"backend_status":"ok","#,
            r#""time":TIME,"last_reload":"0001-01-01T00:00:00Z","hostname":"vm","#,
            r#""message":"listening","revision":"VERSION","compiler":"rustc 1.95","#,
            r#""connections_open":3,"sandbox":{"state":"disabled"}}"#
        );
        let state = state(Phase::Listening, None);
        assert_eq!(
            text(&[tunnel("127.0.0.1:19101", None)], &[Ok(())], &state),
            expected
        );
    }

    #[test]
    fn a_failing_backend_and_a_failed_reload_are_told_apart() {
        let failed = Err("no such file & more".to_owned());
        let state = state(
            Phase::Reloading,
            Some(ReloadRecord {
                at: now(),
                result: failed,
            }),
        );
        let results = [Err("dial tcp <x>: connect: connection refused".to_owned())];
        let expected = concat!(
            r#"{"ok":false,"status":"critical","listen_address":":0","#,
            r#""forward_address":"127.0.0.1:19001","backend_ok":false,"backend_status":"critical","#,
            r#""backend_error":"dial tcp \u003cx\u003e: connect: connection refused","#,
            r#""time":TIME,"last_reload":TIME,"hostname":"vm","#,
            r#""message":"reloading","revision":"VERSION","compiler":"rustc 1.95","#,
            r#""last_reload_ok":false,"last_reload_error":"no such file \u0026 more","#,
            r#""bound_address":"0.0.0.0:4711","connections_open":3,"sandbox":{"state":"disabled"}}"#
        );
        assert_eq!(
            text(&[tunnel(":0", Some("0.0.0.0:4711"))], &results, &state),
            expected
        );
    }

    #[test]
    fn all_is_well_only_while_serving_with_every_backend_up() {
        let down = || Err("down".to_owned());
        let cases = [
            (Phase::Listening, [Ok(()), Ok(())], true),
            (Phase::Reloading, [Ok(()), Ok(())], true),
            (Phase::Initializing, [Ok(()), Ok(())], false),
            (Phase::Stopping, [Ok(()), Ok(())], false),
            (Phase::Listening, [Ok(()), down()], false),
            (Phase::Listening, [down(), Ok(())], false),
        ];
        let tunnels = [tunnel("a:1", None), tunnel("b:2", None)];
        for (phase, results, expected) in cases {
            let (ok, text) = report(&Snapshot {
                tunnels: &tunnels,
                results: &results,
                state: &state(phase, None),
                connections_open: 0,
                sandbox: &SandboxView::default(),
                hostname: "",
                now: now(),
            });
            assert_eq!(ok, expected, "{text}");
            assert!(text.contains(&format!(r#""ok":{expected}"#)), "{text}");
            assert!(!text.contains("hostname"), "{text}");
        }
    }

    #[test]
    fn several_tunnels_are_listed_after_the_first_one_s_own_keys() {
        let tunnels = [tunnel("a:1", None), tunnel("b:2", None)];
        let text = text(
            &tunnels,
            &[Ok(()), Err("down".to_owned())],
            &state(Phase::Listening, None),
        );
        assert!(
            text.starts_with(r#"{"ok":false,"status":"critical","listen_address":"a:1""#),
            "{text}"
        );
        let expected = concat!(
            r#""tunnels":[{"listen_address":"a:1","forward_address":"127.0.0.1:19001","#,
            r#""backend_ok":true,"backend_status":"ok"},"#,
            r#"{"listen_address":"b:2","forward_address":"127.0.0.1:19001","#,
            r#""backend_ok":false,"backend_status":"critical","backend_error":"down"}]}"#
        );
        assert!(text.ends_with(expected), "{text}");
    }
}
