//! Certificate, key and trust from the agent of a SPIFFE Workload API.

use std::io::{Read, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, SystemTime};

use ghostunnel_testing::{
    Address, Agent, AlertDescription, Answer, Authority, Backend, Behaviour, ClientCertificates, Command,
    End, Endpoint, Exit, Identities, Issued, Plain, Process, Request, ReservedPort, Signal, TlsClient,
    TlsServer, eventually, eventually_some, is_listening, private_dir, read_to_end,
};
use serde_json::Value;
use tempfile::TempDir;

use crate::operator::SetWhenDropped;
use crate::support::ghostunnel;

const OWN: &str = "spiffe://one.test/own";
const PEER: &str = "spiffe://one.test/peer";

const ANY_SERVER: &str = "warning: --use-workload-api without --verify-uri takes every workload";

const RECEIVED: &str = "spiffe/info: received SVID ";

/// An SVID. The DNS name is for peers of the tests, which know nothing of SPIFFE.
fn svid(authority: &Authority, id: &str) -> Issued {
    authority.issue(&Request::unnamed().uri(id).dns("localhost"))
}

fn identities(authority: &Authority, id: &str) -> Identities {
    Identities::of(id, &svid(authority, id), authority)
}

/// A trust domain `one.test` with an agent, and a place for the tunnel.
struct Scene {
    domain: Authority,
    agent: Agent,
    listen: ReservedPort,
    status: ReservedPort,
    dir: TempDir,
}

impl Scene {
    /// With an agent that serves [`OWN`].
    fn new() -> Self {
        Self::with(Agent::unix)
    }

    /// With an agent that is not there yet.
    fn without_agent() -> Self {
        Self::with(Agent::absent)
    }

    fn with(agent: impl FnOnce(&Path, Answer) -> Agent) -> Self {
        let domain = Authority::new("one");
        let dir = private_dir();
        let agent = agent(dir.path(), identities(&domain, OWN).answer());
        Self {
            domain,
            agent,
            listen: ReservedPort::new(),
            status: ReservedPort::new(),
            dir,
        }
    }

    fn command(&self, mode: &str, target: &Address) -> Command {
        let mut command = ghostunnel();
        command
            .arg(mode)
            .flag("--listen", self.listen.address().to_string())
            .flag("--target", target.to_string())
            .flag("--use-workload-api-addr", self.agent.uri());
        command
    }

    fn server(&self, backend: &Backend) -> Command {
        self.command("server", backend.address())
    }

    fn client(&self, backend: &Backend) -> Command {
        self.command("client", backend.address())
    }

    /// Starts with a status port, and waits until it serves.
    fn start(&self, command: &mut Command) -> Process {
        let process = command
            .flag("--status", format!("http://{}", self.status.address()))
            .start();
        process.wait_listening(self.status.port());
        process
    }

    fn address(&self) -> Address {
        self.listen.address().into()
    }

    /// A client of this trust domain.
    fn peer(&self) -> TlsClient {
        self.peer_with(&svid(&self.domain, PEER))
    }

    fn peer_with(&self, identity: &Issued) -> TlsClient {
        TlsClient::trusting(&self.domain).identity(identity)
    }

    /// The body of `/_status`.
    fn report(&self) -> Value {
        let address = self.status.address().into();
        Endpoint::Http(&address).get("/_status").expect("answered").json()
    }

    /// What it says of the agent.
    fn agent_report(&self) -> Value {
        self.report()["workload_api"].clone()
    }

    #[track_caller]
    fn admits(&self, client: &TlsClient) {
        let mut peer = client.connect(&self.address()).expect("a handshake");
        echo(&mut peer).expect("admitted");
    }

    #[track_caller]
    fn refuses(&self, client: &TlsClient) {
        let end = match client.connect(&self.address()) {
            Ok(mut peer) => read_to_end(&mut peer).1,
            Err(end) => end,
        };
        assert_eq!(end, End::Alert(AlertDescription::BadCertificate));
    }

    /// The certificate that the tunnel shows now.
    fn shown(&self, client: &TlsClient) -> Vec<u8> {
        let peer = client.connect(&self.address()).expect("a handshake");
        peer.facts().peer_certificates[0].to_vec()
    }

    /// Visits a client tunnel.
    fn visit(&self) -> Result<(), End> {
        echo(&mut Plain::connect(&self.address()).expect("listening"))
    }
}

fn echo(peer: &mut (impl Read + Write)) -> Result<(), End> {
    let sent = peer.write_all(b"hello").and_then(|()| peer.flush());
    sent.map_err(|error| End::from(&error))?;
    let mut answer = [0; 5];
    peer.read_exact(&mut answer).map_err(|error| End::from(&error))?;
    assert_eq!(answer, *b"hello");
    Ok(())
}

fn echoing() -> Backend {
    Backend::tcp(Behaviour::Echo)
}

/// A TLS backend that asks for a certificate of `domain`.
fn tls_backend(identity: &Issued, domain: &Authority) -> Backend {
    let server = TlsServer::new(identity, &ClientCertificates::required(domain));
    Backend::tls(server, Behaviour::Echo)
}

mod identity {
    use super::*;

    #[test]
    fn a_server_shows_its_svid_and_admits_peers_by_theirs() {
        let (scene, backend) = (Scene::new(), echoing());
        let process = scene.start(scene.server(&backend).arg("--allow-all"));
        process.wait_for_line("using SPIFFE Workload API as certificate source");
        process.wait_for_line("spiffe/debug: Watching X.509 contexts");
        process.wait_for_line(&format!("{RECEIVED}{OWN}, valid until "));
        process.wait_for_line("sandbox: landlock ");
        scene.admits(&scene.peer());
        // Names and usages of certificates play no role; nor does a chain's root in it.
        let middle = scene.domain.intermediate(&Request::named("middle"));
        let chain = middle.issue(
            &Request::unnamed()
                .uri(PEER)
                .usage(ghostunnel_testing::Usage::Server),
        );
        scene.admits(&scene.peer_with(&chain));

        let other = Authority::new("other");
        let one = |request: Request| scene.domain.issue(&request);
        for (identity, reason) in [
            (
                one(Request::named("client")),
                "x509svid: could not get leaf SPIFFE ID: certificate contains no URI SAN",
            ),
            (
                one(Request::unnamed().uri(PEER).uri("spiffe://one.test/two")),
                "x509svid: could not get leaf SPIFFE ID: certificate contains more than one URI SAN",
            ),
            (
                one(Request::unnamed().uri("https://one.test/peer")),
                "x509svid: could not get leaf SPIFFE ID: scheme is missing or invalid",
            ),
            (
                one(Request::unnamed().uri(PEER).authority()),
                "x509svid: leaf certificate with CA flag set to true",
            ),
            (
                svid(&scene.domain, "spiffe://other.test/peer"),
                "x509svid: could not get X509 bundle: x509bundle: no X.509 bundle for trust domain \"other.test\"",
            ),
            (
                svid(&other, PEER),
                "x509svid: could not verify leaf certificate: x509: certificate signed by unknown authority",
            ),
            (
                one(Request::unnamed().uri(PEER).expired()),
                "x509svid: could not verify leaf certificate: x509: certificate has expired or is not yet valid",
            ),
        ] {
            let mark = process.mark();
            scene.refuses(&scene.peer_with(&identity));
            process.wait_for_line_after(mark, reason);
        }
        assert_eq!(
            backend.accepted(),
            2,
            "no backend hears of those who were refused"
        );
        let end = match TlsClient::trusting(&scene.domain).connect(&scene.address()) {
            Ok(mut peer) => read_to_end(&mut peer).1,
            Err(end) => end,
        };
        assert_eq!(end, End::Alert(AlertDescription::CertificateRequired));
    }

    #[test]
    fn a_client_shows_its_svid_and_verifies_servers_by_theirs_not_by_name() {
        let scene = Scene::new();
        // Not good for the address that is dialled.
        let server = scene.domain.issue(&Request::unnamed().uri(PEER));
        let backend = tls_backend(&server, &scene.domain);
        let process = scene.start(&mut scene.client(&backend));
        process.wait_for_line(ANY_SERVER);
        scene.visit().expect("verified");
        let facts = backend.connection(backend.accepted() - 1).tls().expect("over");
        assert_eq!(facts.peer_certificates.len(), 1);
        drop(process);

        let stranger = tls_backend(&svid(&Authority::new("other"), PEER), &scene.domain);
        let named = tls_backend(
            &scene.domain.issue(&Request::named("x").dns("localhost")),
            &scene.domain,
        );
        for (backend, reason) in [
            (
                stranger,
                "x509svid: could not verify leaf certificate: x509: certificate signed by unknown authority",
            ),
            (
                named,
                "x509svid: could not get leaf SPIFFE ID: certificate contains no URI SAN",
            ),
        ] {
            let process = scene.start(&mut scene.client(&backend));
            assert!(scene.visit().is_err());
            process.wait_for_line(&format!("error on dial: {reason}"));
        }
    }

    #[test]
    fn access_rules_are_asked_about_verified_peers() {
        let (scene, backend) = (Scene::new(), echoing());
        let process = scene.start(scene.server(&backend).arg("--allow-uri=spiffe://*/peer"));
        scene.admits(&scene.peer());
        scene.refuses(&scene.peer_with(&svid(&scene.domain, "spiffe://one.test/other")));
        process.wait_for_line("unauthorized: invalid principal, or principal not allowed");
        drop(process);

        let (peer, other) = (
            svid(&scene.domain, PEER),
            svid(&scene.domain, "spiffe://one.test/other"),
        );
        for (server, is_admitted) in [(peer, true), (other, false)] {
            let backend = tls_backend(&server, &scene.domain);
            let process = scene.start(scene.client(&backend).arg(format!("--verify-uri={PEER}")));
            assert_eq!(scene.visit().is_ok(), is_admitted);
            assert_eq!(process.count_lines(ANY_SERVER), 0);
        }
    }

    #[test]
    fn a_server_behind_a_unix_socket_is_verified_by_its_id_whatever_its_name() {
        let scene = Scene::new();
        let server = TlsServer::new(
            &svid(&scene.domain, PEER),
            &ClientCertificates::required(&scene.domain),
        );
        let backend = Backend::tls_unix(&scene.dir.path().join("backend.sock"), server, Behaviour::Echo);
        let _process = scene.start(scene.client(&backend).arg("--override-server-name=any.test"));
        scene.visit().expect("verified");
    }

    #[test]
    fn without_authentication_clients_show_nothing_and_servers_ask_nothing() {
        let scene = Scene::new();
        let server = svid(&scene.domain, PEER);
        let optional = ClientCertificates::optional(&scene.domain);
        let backend = Backend::tls(TlsServer::new(&server, &optional), Behaviour::Echo);
        let process = scene.start(scene.client(&backend).arg("--disable-authentication"));
        scene.visit().expect("the server is still verified");
        let facts = backend.connection(backend.accepted() - 1).tls().expect("over");
        assert!(facts.peer_certificates.is_empty());
        drop(process);
        let other = Backend::tls(
            TlsServer::new(&svid(&Authority::new("other"), PEER), &optional),
            Behaviour::Echo,
        );
        let process = scene.start(scene.client(&other).arg("--disable-authentication"));
        assert!(scene.visit().is_err());
        drop(process);

        let backend = echoing();
        let _process = scene.start(scene.server(&backend).arg("--disable-authentication"));
        scene.admits(&TlsClient::trusting(&scene.domain));
    }

    #[test]
    fn peers_of_other_trust_domains_need_a_federated_bundle() {
        let (scene, backend) = (Scene::new(), echoing());
        let other = Authority::new("two");
        let foreign = svid(&other, "spiffe://two.test/peer");
        let pretender = svid(&other, PEER);
        let process = scene.start(scene.server(&backend).arg("--allow-all"));
        scene.refuses(&scene.peer_with(&foreign));

        let own = svid(&scene.domain, OWN);
        let alone = Identities::of(OWN, &own, &scene.domain);
        let federated = alone.clone().federated("spiffe://two.test", &other);
        scene.agent.answer(federated.answer());
        process.wait_for_line("and bundles of one.test, two.test");
        let resuming = scene.peer_with(&foreign).resuming();
        scene.admits(&resuming);
        scene.admits(&scene.peer());
        // An authority vouches for its own trust domain only.
        scene.refuses(&scene.peer_with(&pretender));
        scene.refuses(&scene.peer_with(&svid(&scene.domain, "spiffe://two.test/peer")));

        let mark = process.mark();
        scene.agent.answer(alone.answer());
        process.wait_for_line_after(mark, RECEIVED);
        // Neither anew nor by a session from better times.
        scene.refuses(&scene.peer_with(&foreign));
        scene.refuses(&resuming);
        scene.admits(&scene.peer());
    }

    #[test]
    fn a_ca_bundle_plays_no_role() {
        let (scene, backend) = (Scene::new(), echoing());
        let other = Authority::new("other");
        let file = scene.dir.path().join("ca.pem");
        std::fs::write(&file, other.pem()).expect("writable");
        let process = scene.start(scene.server(&backend).arg("--allow-all").flag("--cacert", &file));
        scene.refuses(&scene.peer_with(&svid(&other, PEER)));
        scene.admits(&scene.peer());
        drop(process);
        let missing = scene.dir.path().join("missing.pem");
        let _process = scene.start(
            scene
                .server(&backend)
                .arg("--allow-all")
                .flag("--cacert", missing),
        );
        scene.admits(&scene.peer());
    }
}

mod updates {
    use super::*;

    #[test]
    fn a_new_svid_is_shown_by_the_next_handshake_and_traffic_goes_on() {
        let (scene, backend) = (Scene::new(), echoing());
        let process = scene.start(scene.server(&backend).arg("--allow-all"));
        let client = scene.peer();
        let mut open = client.connect(&scene.address()).expect("a handshake");
        echo(&mut open).expect("admitted");
        let (stop, visits) = (AtomicBool::new(false), AtomicUsize::new(0));
        thread::scope(|scope| {
            let _ended = SetWhenDropped(&stop);
            for _ in 0..2 {
                scope.spawn(|| {
                    while !stop.load(Ordering::SeqCst) {
                        scene.admits(&scene.peer());
                        visits.fetch_add(1, Ordering::SeqCst);
                    }
                });
            }
            for round in 0..5 {
                let fresh = svid(&scene.domain, OWN);
                let (mark, before) = (process.mark(), visits.load(Ordering::SeqCst));
                scene
                    .agent
                    .answer(Identities::of(OWN, &fresh, &scene.domain).answer());
                process.wait_for_line_after(mark, RECEIVED);
                eventually("the new SVID is shown", || scene.shown(&client) == fresh.der());
                eventually("there is traffic", || visits.load(Ordering::SeqCst) > before + 4);
                assert_eq!(process.count_lines(RECEIVED), round + 2);
            }
        });
        echo(&mut open).expect("open connections are not touched");
        assert_eq!(process.count_lines("error on TLS handshake"), 0);
        assert_eq!(scene.agent.calls(), 1, "all came on one stream");
    }

    #[test]
    fn a_client_dials_with_the_new_svid() {
        let scene = Scene::new();
        let backend = tls_backend(&svid(&scene.domain, PEER), &scene.domain);
        let process = scene.start(&mut scene.client(&backend));
        let fresh = svid(&scene.domain, OWN);
        let mark = process.mark();
        scene
            .agent
            .answer(Identities::of(OWN, &fresh, &scene.domain).answer());
        process.wait_for_line_after(mark, RECEIVED);
        eventually("the new SVID is shown", || {
            scene.visit().expect("verified");
            let facts = backend.connection(backend.accepted() - 1).tls().expect("over");
            facts.peer_certificates[0].as_ref() == fresh.der()
        });
    }

    #[test]
    fn a_new_authority_replaces_the_old_one() {
        let (scene, backend) = (Scene::new(), echoing());
        let process = scene.start(scene.server(&backend).arg("--allow-all"));
        let old = scene.peer();
        scene.admits(&old);
        let next = Authority::new("next");
        let mark = process.mark();
        scene.agent.answer(identities(&next, OWN).answer());
        process.wait_for_line_after(mark, RECEIVED);
        let new = TlsClient::trusting(&next).identity(&svid(&next, PEER));
        scene.admits(&new);
        scene.refuses(&TlsClient::trusting(&next).identity(&svid(&scene.domain, PEER)));
    }

    #[test]
    fn an_answer_that_is_bad_in_any_part_changes_nothing() {
        let (scene, backend) = (Scene::new(), echoing());
        let process = scene.start(scene.server(&backend).arg("--allow-all"));
        let client = scene.peer();
        let shown = scene.shown(&client);
        let one = |request: Request| Identities::of(OWN, &scene.domain.issue(&request), &scene.domain);
        let other = svid(&scene.domain, PEER);
        for (answer, reason) in [
            (
                one(Request::unnamed().uri(OWN).uri(PEER)).encode(),
                "certificate contains more than one URI SAN",
            ),
            (
                one(Request::unnamed().uri(OWN).authority()).encode(),
                "leaf certificate with CA flag set to true",
            ),
            (
                Identities::of(OWN, &svid(&scene.domain, OWN).with_key_of(&other), &scene.domain).encode(),
                "tls: private key does not match public key",
            ),
            (
                one(Request::unnamed().uri(PEER)).encode(),
                "its certificate is that of",
            ),
            (Identities::default().encode(), "no SVIDs in response"),
            (b"\xff\xff\xff".to_vec(), "message is truncated"),
            (b"no message at all".to_vec(), "message"),
            (vec![0; 1024 * 1024], "malformed field"),
        ] {
            let mark = process.mark();
            scene.agent.answer(Answer::Message(answer));
            let line =
                process.wait_for_line_after(mark, "spiffe/error: Failed to parse X509-SVID response: ");
            assert!(line.contains(reason), "{line}");
            assert!(scene.agent_report()["last_error"].is_string());
            assert_eq!(scene.agent_report()["connected"], true);
            assert_eq!(scene.shown(&client), shown);
            scene.admits(&client);
        }
        scene.agent.answer(identities(&scene.domain, OWN).answer());
        eventually("the next good one counts", || scene.shown(&client) != shown);
        assert!(scene.agent_report()["last_error"].is_null());
        assert_eq!(scene.agent.calls(), 1);
    }

    #[test]
    fn a_reload_has_nothing_to_do_and_succeeds() {
        let (scene, backend) = (Scene::new(), echoing());
        let process = scene.start(scene.server(&backend).arg("--allow-all"));
        let shown = scene.shown(&scene.peer());
        process.signal(Signal::HUP);
        process.wait_for_line("reloading configuration complete");
        assert_eq!(process.count_lines("loaded certificate"), 0);
        assert_eq!(scene.shown(&scene.peer()), shown);
        assert_eq!(scene.report()["last_reload_ok"], true);
    }

    #[test]
    fn an_svid_that_expires_is_warned_about_and_served_on() {
        let (scene, backend) = (Scene::new(), echoing());
        let now = SystemTime::now();
        let request = Request::unnamed().uri(OWN).dns("localhost");
        let short = request.valid(now - Duration::from_secs(60), now + Duration::from_secs(3));
        let short = Identities::of(OWN, &scene.domain.issue(&short), &scene.domain);
        scene.agent.answer(short.answer());
        let process = scene.start(scene.server(&backend).arg("--allow-all"));
        let warning = "spiffe/warn: the agent has sent no new SVID in time: own certificate has expired";
        process.wait_for_line(warning);
        assert!(process.try_exit().is_none());
        // Whoever does not look at the time is still served; the next one is in force as usual.
        scene.agent.answer(identities(&scene.domain, OWN).answer());
        eventually("the next one is in force", || {
            let shown = scene.peer().connect(&scene.address());
            shown.is_ok_and(|mut peer| echo(&mut peer).is_ok())
        });
        assert_eq!(process.count_lines(warning), 1);
    }
}

mod agents {
    use super::*;

    const NO_ANSWER: &str = "timed out or failed waiting for initial SPIFFE Workload API update (is the agent \
                             reachable and is there a registration entry?): ";

    #[test]
    fn a_start_without_agent_ends_at_the_timeout_in_the_known_words() {
        let scene = Scene::without_agent();
        let target: Address = ReservedPort::new().address().into();
        let last = format!(
            "; the last failure: rpc error: code = Unavailable desc = connection error: desc = \"transport: Error \
             while dialing: dial unix {}: connect: no such file or directory\"",
            scene.dir.path().join("agent.sock").display()
        );
        for (mode, phrase, cause) in [
            ("server", "error: unable to get server TLS config: ", ""),
            (
                "client",
                "error: unable to build dialer: ",
                "unable to get client TLS config: ",
            ),
        ] {
            let mut command = scene.command(mode, &target);
            if mode == "server" {
                command.arg("--allow-all");
            }
            let output = command.arg("--use-workload-api-timeout=1500ms").run();
            assert_eq!(output.exit, Exit::Code(1));
            let cause = format!("{cause}{NO_ANSWER}context deadline exceeded{last}");
            assert_eq!(output.stderr, format!("error: {cause}\n"));
            assert!(
                output.stdout.contains(&format!("{phrase}{cause}\n")),
                "{}",
                output.stdout
            );
            for line in [
                "spiffe/debug: Watching X.509 contexts",
                "spiffe/error: Failed to watch the Workload API: rpc error: code = Unavailable desc = ",
                "spiffe/debug: Retrying watch in 1s",
            ] {
                assert!(output.stdout.contains(line), "{line}");
            }
            let trailing = output
                .stdout
                .contains("error from server listen: timed out or failed");
            assert_eq!(trailing, mode == "server");
            assert!(!output.stdout.contains("listening for connections"));
        }
    }

    #[test]
    fn an_agent_that_comes_late_is_waited_for_and_signals_are_heard_meanwhile() {
        let (scene, backend) = (Scene::without_agent(), echoing());
        let mut command = scene.server(&backend);
        command
            .args(["--allow-all", "--use-workload-api-timeout=0"])
            .flag("--status", format!("http://{}", scene.status.address()));
        let process = command.start();
        process.wait_for_line("Retrying watch in 1s");
        process.signal(Signal::HUP);
        process.wait_for_line("note: nothing to reload yet");
        // Nobody waits in vain at a door that is not open yet.
        assert!(!is_listening(scene.listen.port()) && !is_listening(scene.status.port()));
        scene.agent.start();
        process.wait_listening(scene.status.port());
        scene.admits(&scene.peer());
        drop(process);

        scene.agent.stop();
        let process = command.start();
        process.wait_for_line("Retrying watch in 1s");
        process.signal(Signal::TERM);
        assert_eq!(process.wait_exit(), Exit::Code(0));
        assert!(process.stdout().contains("received terminated, shutting down"));
    }

    #[test]
    fn an_agent_that_dies_costs_nothing_and_is_found_again() {
        for scene in [Scene::new(), Scene::with(|_, answer| Agent::tcp(answer))] {
            let backend = echoing();
            let process = scene.start(scene.server(&backend).arg("--allow-all"));
            let client = scene.peer();
            let shown = scene.shown(&client);
            assert_eq!(scene.agent_report()["connected"], true);

            scene.agent.stop();
            process.wait_for_line(
                "spiffe/error: Failed to watch the Workload API: rpc error: code = Unavailable",
            );
            process.wait_for_line("spiffe/debug: Retrying watch in 2s");
            let report = scene.agent_report();
            assert_eq!(
                (&report["connected"], &report["spiffe_id"]),
                (&false.into(), &OWN.into())
            );
            assert!(
                report["last_error"]
                    .as_str()
                    .is_some_and(|text| text.contains("Unavailable"))
            );
            assert_eq!(scene.shown(&client), shown);
            scene.admits(&client);

            let fresh = svid(&scene.domain, OWN);
            scene
                .agent
                .answer(Identities::of(OWN, &fresh, &scene.domain).answer());
            let mark = process.mark();
            scene.agent.start();
            process.wait_for_line_after(mark, RECEIVED);
            eventually("the new SVID is shown", || scene.shown(&client) == fresh.der());
            let report = scene.agent_report();
            assert_eq!(report["connected"], true);
            assert!(report["last_error"].is_null());
            // A good answer makes the next pause short again.
            let mark = process.mark();
            scene.agent.stop();
            process.wait_for_line_after(mark, "spiffe/debug: Retrying watch in 1s");
        }
    }

    #[test]
    fn a_workload_without_entry_is_refused_until_it_has_one() {
        let (scene, backend) = (Scene::new(), echoing());
        let good = identities(&scene.domain, OWN).answer();
        scene.agent.answer(Answer::Refusal(7, "no identity issued"));
        let process = scene.server(&backend).arg("--allow-all").start();
        process.wait_for_line(
            "spiffe/error: Failed to watch the Workload API: rpc error: code = PermissionDenied desc = no identity \
             issued",
        );
        scene.agent.answer(good);
        process.wait_listening(scene.listen.port());
        scene.admits(&scene.peer());
        // Whatever the agent finds fault with later, it is asked again.
        for (code, name) in [(7, "PermissionDenied"), (3, "InvalidArgument"), (1, "Canceled")] {
            let mark = process.mark();
            scene.agent.answer(Answer::Refusal(code, "not now"));
            process.wait_for_line_after(mark, &format!("rpc error: code = {name} desc = not now"));
            process.wait_for_line_after(mark, "spiffe/debug: Retrying watch in 1s");
            scene.agent.answer(identities(&scene.domain, OWN).answer());
            process.wait_for_line_after(mark, RECEIVED);
            scene.admits(&scene.peer());
        }
    }

    #[test]
    fn an_agent_that_finds_fault_with_the_request_ends_the_start() {
        let (scene, backend) = (Scene::new(), echoing());
        scene.agent.answer(Answer::Refusal(3, "who\nare you"));
        let output = scene.server(&backend).arg("--allow-all").run();
        assert_eq!(output.exit, Exit::Code(1));
        let status = "rpc error: code = InvalidArgument desc = who\\nare you";
        assert_eq!(output.stderr, format!("error: {NO_ANSWER}{status}\n"));
        assert!(
            output
                .stdout
                .contains(&format!("spiffe/error: Canceling watch: {status}"))
        );
    }

    #[test]
    fn what_is_no_agent_is_no_danger() {
        let (scene, backend) = (Scene::new(), echoing());
        let message = |length: u32| [&[0][..], &length.to_be_bytes()].concat();
        for (answer, reason) in [
            (Answer::Silence, "context deadline exceeded"),
            (
                Answer::Http("text/html", b"<html>".to_vec()),
                "code = Unknown desc = unexpected content-type \"text/html\"",
            ),
            (
                Answer::Http("application/grpc", message(u32::MAX)),
                "code = ResourceExhausted desc = grpc: received message larger than max (4294967295 vs. 4194304)",
            ),
            (
                Answer::Http("application/grpc", vec![1, 0, 0, 0, 0]),
                "code = Internal desc = the message is compressed",
            ),
            (
                Answer::Http("application/grpc", message(7)),
                "code = Internal desc = server closed the stream without sending trailers",
            ),
            (Answer::Message(b"\x0a\x05".to_vec()), "context deadline exceeded"),
        ] {
            scene.agent.answer(answer);
            let mut command = scene.server(&backend);
            let output = command
                .args(["--allow-all", "--use-workload-api-timeout=500ms"])
                .run();
            assert_eq!(output.exit, Exit::Code(1));
            assert!(output.stderr.contains(reason), "{}", output.stderr);
        }
        // Not even HTTP/2.
        let plain = Backend::tcp(Behaviour::Echo);
        let mut command = ghostunnel();
        let output = command
            .args(["server", "--allow-all", "--use-workload-api-timeout=500ms"])
            .flag("--listen", scene.listen.address().to_string())
            .flag("--target", backend.address().to_string())
            .flag("--use-workload-api-addr", format!("tcp://{}", plain.address()))
            .run();
        assert_eq!(output.exit, Exit::Code(1));
        assert!(output.stderr.contains("rpc error: code = "), "{}", output.stderr);
    }
}

mod flags {
    use super::*;

    #[test]
    fn the_address_may_come_from_the_environment() {
        let (scene, backend) = (Scene::new(), echoing());
        for arguments in [
            &[][..],
            &["--use-workload-api"],
            // An address is a wish that no switch undoes.
            &["--no-use-workload-api"],
        ] {
            let mut command = ghostunnel();
            command
                .args(["server", "--allow-all"])
                .args(arguments)
                .flag("--listen", scene.listen.address().to_string())
                .flag("--target", backend.address().to_string())
                .env("SPIFFE_ENDPOINT_SOCKET", scene.agent.uri());
            let process = command.start();
            process.wait_listening(scene.listen.port());
            scene.admits(&scene.peer());
        }
        let mut command = scene.server(&backend);
        command
            .arg("--allow-all")
            .env("SPIFFE_ENDPOINT_SOCKET", "unix:///nowhere");
        let process = command.start();
        process.wait_listening(scene.listen.port());
        scene.admits(&scene.peer());
    }

    #[test]
    fn addresses_that_lead_nowhere_stop_the_start_at_once() {
        for (address, expected) in [
            ("", "workload endpoint socket address is not configured"),
            (
                "/run/agent.sock",
                "workload endpoint socket URI must have a \"tcp\" or \"unix\" scheme",
            ),
            (
                "unix:agent.sock",
                "workload endpoint unix socket URI must not be opaque",
            ),
            (
                "unix:///a?b",
                "workload endpoint unix socket URI must not include query values",
            ),
            ("unix://", "workload endpoint unix socket URI must include a path"),
            (
                "tcp://localhost:1",
                "workload endpoint tcp socket URI host component must be an IP:port",
            ),
            (
                "tcp://127.0.0.1:1/x",
                "workload endpoint tcp socket URI must not include a path",
            ),
        ] {
            let mut command = ghostunnel();
            command
                .args([
                    "server",
                    "--allow-all",
                    "--listen=localhost:0",
                    "--target=localhost:1",
                ])
                .arg("--use-workload-api")
                .flag("--use-workload-api-addr", address);
            let output = command.run();
            assert_eq!(output.exit, Exit::Code(1));
            assert!(
                output.stderr.starts_with(&format!("error: {expected}")),
                "{}",
                output.stderr
            );
            let line = format!("error: unable to create workload API TLS source: {expected}");
            assert!(output.stdout.contains(&line), "{}", output.stdout);
        }
        let mut command = ghostunnel();
        command
            .args([
                "server",
                "--allow-all",
                "--listen=localhost:0",
                "--target=localhost:1",
            ])
            .env("SPIFFE_ENDPOINT_SOCKET", "agent.sock");
        let output = command.run();
        assert!(
            output
                .stderr
                .ends_with(" (the environment sets SPIFFE_ENDPOINT_SOCKET)\n"),
            "{}",
            output.stderr
        );
    }

    #[test]
    fn a_key_that_would_cross_a_network_is_warned_about() {
        let mut command = ghostunnel();
        command
            .args([
                "server",
                "--allow-all",
                "--listen=localhost:0",
                "--target=localhost:1",
            ])
            .args([
                "--use-workload-api-addr=tcp://192.0.2.1:1",
                "--use-workload-api-timeout=1ms",
            ]);
        let output = command.run();
        assert!(
            output
                .stdout
                .contains("warning: --use-workload-api-addr leads over a network"),
            "{}",
            output.stdout
        );
    }

    #[test]
    fn the_status_tells_of_identity_and_agent() {
        let (scene, backend) = (Scene::new(), echoing());
        let process = scene.start(scene.server(&backend).arg("--allow-all"));
        let report = scene.report();
        assert_eq!(report["ok"], true);
        let agent = &report["workload_api"];
        assert_eq!(agent["connected"], true);
        assert_eq!(agent["spiffe_id"], OWN);
        assert_eq!(agent["trust_domains"], serde_json::json!(["one.test"]));
        assert!(
            agent["last_update"]
                .as_str()
                .is_some_and(|time| time.starts_with("20"))
        );
        assert!(agent["last_error"].is_null());
        assert!(report["certificate"]["not_after"].is_string());
        drop(process);
        // The port serves TLS with the SVID, and asks nobody for another, whatever the tunnel does.
        let mut command = scene.server(&backend);
        let process = command
            .arg("--allow-all")
            .flag("--status", scene.status.address().to_string())
            .start();
        process.wait_listening(scene.status.port());
        let client = TlsClient::trusting(&scene.domain);
        let peer = eventually_some("TLS is served", || {
            client.connect(&scene.status.address().into()).ok()
        });
        assert_eq!(peer.facts().peer_certificates.len(), 1);
    }
}
