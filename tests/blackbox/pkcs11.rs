//! Keys in PKCS#11 tokens: SoftHSM as it comes, and a module around it that is slow or fails.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use ghostunnel_testing::{
    Attempt, Backend, Behaviour, ClientCertificates, Command, Endpoint, Exit, Files, Issued, KeyKind, PIN,
    Pki, Plain, Request, ReservedPort, Signal, SoftHsm, TlsClient, TlsServer, Version, Wrapper, attempt,
    eventually,
};

use crate::operator::{BOTH_MODES, Mode, Tunnel, echo_backend, replace};
use crate::support::ghostunnel;

const TOKEN: &str = "front door";

/// Codes of PKCS#11: CKR_DEVICE_REMOVED, CKR_SESSION_HANDLE_INVALID, CKR_PIN_INCORRECT,
/// CKR_KEY_FUNCTION_NOT_PERMITTED.
const DEVICE_REMOVED: u32 = 0x32;
const SESSION_HANDLE_INVALID: u32 = 0xb3;
const PIN_INCORRECT: u32 = 0xa0;
const KEY_FUNCTION_NOT_PERMITTED: u32 = 0x68;

fn own_request(mode: Mode) -> Request {
    match mode {
        Mode::Server => Pki::server_request(),
        Mode::Client => Pki::client_request(),
    }
}

/// A tunnel whose key is in a token; to be started with whatever is added.
struct Plan<'a> {
    mode: Mode,
    pki: Pki,
    /// Its certificate; the file with the key is gone.
    own: Files,
    hsm: &'a SoftHsm,
    module: &'a Path,
}

impl<'a> Plan<'a> {
    /// With a key of this kind, on the token.
    fn new(mode: Mode, kind: KeyKind, hsm: &'a SoftHsm) -> Self {
        let pki = Pki::new();
        let own = pki.authority.issue(&own_request(mode).key(kind));
        hsm.import(TOKEN, &own);
        Self::without_key(mode, pki, &own, hsm)
    }

    /// With a certificate whose key may be anywhere.
    fn without_key(mode: Mode, pki: Pki, own: &Issued, hsm: &'a SoftHsm) -> Self {
        let files = own.write_to(pki.dir(), "own");
        fs::remove_file(&files.key).expect("it was written");
        Self {
            mode,
            pki,
            own: files,
            hsm,
            module: hsm.module(),
        }
    }

    fn through(self, module: &'a Path) -> Self {
        Self { module, ..self }
    }

    /// Everything but the token's label and PIN.
    fn command(&self, listen: &ReservedPort, target: &str) -> Command {
        let mut command = ghostunnel();
        command
            .arg(match self.mode {
                Mode::Server => "server",
                Mode::Client => "client",
            })
            .flag("--listen", listen.address().to_string())
            .flag("--target", target)
            .flag("--cacert", &self.pki.ca_file)
            .flag("--cert", &self.own.certificate)
            .flag("--pkcs11-module", self.module)
            .env("SOFTHSM2_CONF", self.hsm.configuration());
        if self.mode == Mode::Server {
            command.arg("--allow-all");
        }
        command
    }

    fn start(self) -> Tunnel {
        self.start_with(|_| {})
    }

    fn start_with(self, adapt: impl FnOnce(&mut Command)) -> Tunnel {
        let backend = echo_backend(self.mode, &self.pki);
        self.start_before(backend, adapt)
    }

    fn start_before(self, backend: Backend, adapt: impl FnOnce(&mut Command)) -> Tunnel {
        let (listen, status) = (ReservedPort::new(), ReservedPort::new());
        let mut command = self.command(&listen, &backend.address().to_string());
        command
            .flag("--pkcs11-token-label", TOKEN)
            .env("PKCS11_PIN", PIN)
            .flag("--status", format!("http://{}", status.address()));
        adapt(&mut command);
        let process = command.start();
        process.wait_listening(status.port());
        Tunnel {
            mode: self.mode,
            pki: self.pki,
            backend,
            listen,
            status,
            process,
        }
    }

    /// Why it does not start.
    #[track_caller]
    fn refusal(&self, adapt: impl FnOnce(&mut Command)) -> String {
        let mut command = self.command(&ReservedPort::new(), "localhost:1");
        adapt(&mut command);
        let output = command.run();
        assert_eq!(output.exit, Exit::Code(1), "{output:?}");
        assert!(
            !format!("{output:?}").contains(PIN),
            "the PIN was told: {output:?}"
        );
        let cause = output
            .stderr
            .strip_prefix("error: ")
            .and_then(|text| text.strip_suffix('\n'));
        cause.unwrap_or_else(|| panic!("{output:?}")).to_owned()
    }

    fn own_certificate(&self) -> &Path {
        &self.own.certificate
    }
}

/// What the log says before the reason, and the reason.
#[track_caller]
fn assert_key_refusal(refusal: &str, module: &Path, token: &str, reason: &str) {
    let expected =
        format!("pkcs11: failed to load private key from module {module:?} (token {token:?}): {reason}");
    let advice = refusal.strip_prefix(&expected);
    assert!(
        advice.is_some_and(|rest| rest.is_empty() || rest.starts_with("; ") || rest.starts_with(": ")),
        "{refusal}"
    );
}

/// Whether the client gets through. In client mode the refusal shows as the end of the stream.
fn gets_through(tunnel: &Tunnel) -> bool {
    tunnel.connect().is_ok_and(|mut peer| peer.echo(b"hello").is_ok())
}

#[test]
fn keys_of_every_kind_sign_in_both_modes_and_versions() {
    let Some(hsm) = SoftHsm::with_token(TOKEN) else {
        return;
    };
    for mode in BOTH_MODES {
        for kind in [KeyKind::P256, KeyKind::P384, KeyKind::P521, KeyKind::Rsa2048] {
            for version in Version::BOTH {
                let plan = Plan::new(mode, kind, &hsm);
                if mode == Mode::Client {
                    let clients = ClientCertificates::required(&plan.pki.authority);
                    let server = TlsServer::with_version(&plan.pki.server, &clients, version);
                    let backend = Backend::tls(server, Behaviour::Echo);
                    plan.start_before(backend, |_| {}).visit();
                    continue;
                }
                let tunnel = plan.start();
                let client = TlsClient::trusting(&tunnel.pki.authority)
                    .identity(&tunnel.pki.client)
                    .version(version);
                let address = tunnel.listen.address().into();
                let peer = client.connect(&address);
                assert!(peer.is_ok(), "{kind:?} {version:?}: {:?}", peer.err());
            }
        }
    }
}

#[test]
fn the_start_says_where_the_key_comes_from_and_that_the_sandbox_is_on() {
    let Some(hsm) = SoftHsm::with_token(TOKEN) else {
        return;
    };
    let tunnel = Plan::new(Mode::Server, KeyKind::P256, &hsm).start();
    let log = tunnel.process.stdout();
    for line in [
        "setting up landlock rules to limit process privileges",
        "pkcs11: loading private key for given certificate from module",
        "using PKCS#11 module as certificate source",
    ] {
        assert!(log.contains(line), "{log}");
    }
    assert!(!log.contains("warning: landlock"), "{log}");
    let sandbox = &tunnel.status_report()["sandbox"];
    // Kernels without Landlock say so, and are not what this is about.
    if sandbox["state"] != "unsupported" {
        assert_eq!(sandbox["state"], "enforced", "{sandbox}");
        assert_eq!(sandbox["files"], true, "{sandbox}");
    }
    for task in fs::read_dir(format!("/proc/{}/task", tunnel.process.id())).expect("it runs") {
        let status = fs::read_to_string(task.expect("an entry").path().join("status")).expect("a thread");
        assert!(status.contains("NoNewPrivs:\t1"), "{status}");
    }
    tunnel.visit();
}

#[test]
fn a_keystore_serves_as_certificate_file_and_flags_as_variables() {
    let Some(hsm) = SoftHsm::with_token(TOKEN) else {
        return;
    };
    let plan = Plan::new(Mode::Server, KeyKind::P256, &hsm);
    let (listen, backend) = (ReservedPort::new(), Backend::tcp(Behaviour::Echo));
    let mut command = ghostunnel();
    command
        .args(["server", "--allow-all", "--pkcs11-pin", PIN])
        .flag("--listen", listen.address().to_string())
        .flag("--target", backend.address().to_string())
        .flag("--cacert", &plan.pki.ca_file)
        .env("KEYSTORE_PATH", plan.own_certificate())
        .env("PKCS11_MODULE", hsm.module())
        .env("PKCS11_TOKEN_LABEL", TOKEN)
        .env("SOFTHSM2_CONF", hsm.configuration());
    let process = command.start();
    process.wait_listening(listen.port());
    TlsClient::trusting(&plan.pki.authority)
        .identity(&plan.pki.client)
        .connect(&listen.address().into())
        .expect("admitted");
}

#[test]
fn what_does_not_fit_stops_the_start_in_the_known_words() {
    let Some(hsm) = SoftHsm::with_token(TOKEN) else {
        return;
    };
    let plan = Plan::new(Mode::Server, KeyKind::P256, &hsm);
    let module = hsm.module();
    let label = |command: &mut Command, label: &str, pin: &str| {
        command.flag("--pkcs11-token-label", label).env("PKCS11_PIN", pin);
    };
    let opening = "pkcs11key: pkcs11key: opening session";
    assert_key_refusal(
        &plan.refusal(|command| label(command, "back door", PIN)),
        module,
        "back door",
        &format!("{opening}: no slot found matching token label \"back door\""),
    );
    for pin in ["0000", "9999999999"] {
        assert_key_refusal(
            &plan.refusal(|command| label(command, TOKEN, pin)),
            module,
            TOKEN,
            &format!("{opening}: pkcs11: 0xA0: CKR_PIN_INCORRECT"),
        );
    }
    // Nothing was locked by that.
    let own = plan.pki.authority.issue(&Pki::server_request());
    let elsewhere = Plan::without_key(Mode::Server, Pki::new(), &own, &hsm);
    assert_key_refusal(
        &elsewhere.refusal(|command| label(command, TOKEN, PIN)),
        module,
        TOKEN,
        "pkcs11key: looking up public key: no objects found",
    );
    let ed25519 = plan
        .pki
        .authority
        .issue(&Pki::server_request().key(KeyKind::Ed25519));
    let unsupported = Plan::without_key(Mode::Server, Pki::new(), &ed25519, &hsm);
    assert_key_refusal(
        &unsupported.refusal(|command| label(command, TOKEN, PIN)),
        module,
        TOKEN,
        "pkcs11key: looking up public key: unsupported public key of type ed25519.PublicKey",
    );
}

#[test]
fn a_key_that_the_token_has_twice_stops_the_start() {
    let Some(hsm) = SoftHsm::with_token(TOKEN) else {
        return;
    };
    let (pki, other) = (Pki::new(), Pki::new());
    hsm.import_as(TOKEN, &pki.server, "AA");
    hsm.import_as(TOKEN, &other.server, "AA");
    let server = other.server.clone();
    let plan = Plan::without_key(Mode::Server, other, &server, &hsm);
    let refusal = plan.refusal(|command| {
        command.flag("--pkcs11-token-label", TOKEN).env("PKCS11_PIN", PIN);
    });
    assert_key_refusal(
        &refusal,
        hsm.module(),
        TOKEN,
        "pkcs11key: looking up private key: too many objects returned from FindObjects",
    );
}

#[test]
fn what_is_no_module_stops_the_start() {
    let Some(hsm) = SoftHsm::with_token(TOKEN) else {
        return;
    };
    let plan = Plan::new(Mode::Server, KeyKind::P256, &hsm);
    let text = plan.pki.write("module.so", "no library at all");
    for module in [text.as_path(), Path::new("/usr/bin/softhsm2-util")] {
        let plan = Plan::without_key(Mode::Server, Pki::new(), &plan.pki.server, &hsm).through(module);
        let refusal = plan.refusal(|_| {});
        assert_key_refusal(
            &refusal,
            module,
            "",
            &format!("pkcs11key: failed to load module '{}'", module.display()),
        );
        assert!(refusal.contains("--pkcs11-module must name"), "{refusal}");
    }
}

#[test]
fn files_that_do_not_fit_stop_the_start_before_the_token_is_asked() {
    let Some(hsm) = SoftHsm::with_token(TOKEN) else {
        return;
    };
    let plan = Plan::new(Mode::Server, KeyKind::P256, &hsm);
    let path = plan.own_certificate().to_owned();
    let shown = path.display();
    let refusal = |text: &str| {
        replace(&path, text);
        plan.refusal(|_| {})
    };
    let key_only = refusal(&plan.pki.server.key_pem());
    let expected =
        format!("failed to load certificate from \"{shown}\": no certificates found in file '{shown}'");
    assert!(key_only.starts_with(&expected), "{key_only}");
    fs::remove_file(&path).expect("it was there");
    let missing = plan.refusal(|_| {});
    let expected =
        format!("failed to load certificate from \"{shown}\": open {shown}: no such file or directory");
    assert!(missing.starts_with(&expected), "{missing}");

    let plan = Plan::new(Mode::Server, KeyKind::P256, &hsm);
    replace(&plan.pki.ca_file, "nothing");
    let anchors = plan.refusal(|_| {});
    let expected = format!(
        "loading trust store {:?}: unable to read certificates",
        plan.pki.ca_file
    );
    assert!(anchors.starts_with(&expected), "{anchors}");
}

#[test]
fn many_handshakes_at_once_are_all_signed() {
    const CLIENTS: usize = 200;
    let Some(hsm) = SoftHsm::with_token(TOKEN) else {
        return;
    };
    for mode in BOTH_MODES {
        let tunnel = Plan::new(mode, KeyKind::Rsa2048, &hsm).start();
        let through = thread::scope(|scope| {
            let clients: Vec<_> = (0..CLIENTS)
                .map(|_| scope.spawn(|| gets_through(&tunnel)))
                .collect();
            clients
                .into_iter()
                .map(|client| client.join().expect("no panic"))
                .filter(|through| *through)
                .count()
        });
        assert_eq!(through, CLIENTS, "{mode:?}");
        tunnel.process.signal(Signal::TERM);
        assert_eq!(tunnel.process.wait_exit(), Exit::Code(0), "{mode:?}");
    }
}

#[test]
fn a_token_that_was_pulled_out_is_used_again_when_it_is_back() {
    let Some(hsm) = SoftHsm::with_token(TOKEN) else {
        return;
    };
    for mode in BOTH_MODES {
        let tunnel = Plan::new(mode, KeyKind::P256, &hsm).start();
        tunnel.visit();
        let mut open = tunnel.connect().expect("admitted");
        open.echo(b"before").expect("answered");
        hsm.pull_out();
        assert!(!gets_through(&tunnel), "{mode:?}: without the token");
        tunnel
            .process
            .wait_for_line("is lost, handshakes fail until it is back");
        assert!(!gets_through(&tunnel), "{mode:?}: without the token");
        assert_eq!(tunnel.process.count_lines("is lost"), 1, "told once");
        open.echo(b"meanwhile").expect("what is open goes on");
        hsm.put_back();
        eventually("handshakes succeed again", || gets_through(&tunnel));
        tunnel.process.wait_for_line("is back");
    }
}

#[test]
fn lost_sessions_are_replaced_within_the_handshake_or_when_the_token_answers_again() {
    let Some(hsm) = SoftHsm::with_token(TOKEN) else {
        return;
    };
    let Some(wrapper) = Wrapper::around(hsm.module()) else {
        return;
    };
    let module = wrapper.module();
    let tunnel = Plan::new(Mode::Server, KeyKind::P256, &hsm)
        .through(&module)
        .start();
    for code in [DEVICE_REMOVED, SESSION_HANDLE_INVALID, KEY_FUNCTION_NOT_PERMITTED] {
        tunnel.visit();
        wrapper.fail(code);
        assert!(!gets_through(&tunnel), "0x{code:X}");
        wrapper.recover();
        eventually("handshakes succeed again", || gets_through(&tunnel));
    }
}

#[test]
fn a_pin_that_was_refused_is_not_shown_to_the_token_again() {
    let Some(hsm) = SoftHsm::with_token(TOKEN) else {
        return;
    };
    let Some(wrapper) = Wrapper::around(hsm.module()) else {
        return;
    };
    let module = wrapper.module();
    let tunnel = Plan::new(Mode::Server, KeyKind::P256, &hsm)
        .through(&module)
        .start();
    tunnel.visit();
    wrapper.refuse_pin(PIN_INCORRECT);
    // The only session is lost, and with it the login.
    wrapper.fail(DEVICE_REMOVED);
    assert!(!gets_through(&tunnel));
    wrapper.recover();
    let mark = tunnel.process.mark();
    for _ in 0..8 {
        assert!(!gets_through(&tunnel));
    }
    tunnel
        .process
        .wait_for_line_after(mark, "the PIN was refused before");
    let lines = tunnel.process.lines();
    let shown = lines[mark..]
        .iter()
        .filter(|line| line.text() == "wrapper: login")
        .count();
    assert!(shown <= 1, "shown {shown} times");
}

#[test]
fn a_reload_takes_a_new_certificate_for_the_same_key_only() {
    let Some(hsm) = SoftHsm::with_token(TOKEN) else {
        return;
    };
    for mode in BOTH_MODES {
        let pki = Pki::new();
        let own = pki.authority.issue(&own_request(mode));
        let other = pki.authority.issue(&own_request(mode));
        hsm.import(TOKEN, &own);
        hsm.import(TOKEN, &other);
        let renewed = pki
            .authority
            .reissue(&own_request(mode).organizational_unit("renewed"), &own);
        let plan = Plan::without_key(mode, pki, &own, &hsm);
        let certificate = plan.own_certificate().to_owned();
        let tunnel = plan.start();

        replace(&certificate, &renewed.chain_pem());
        let mark = tunnel.process.mark();
        assert_eq!(tunnel.reload()["last_reload_ok"], true, "{mode:?}");
        for line in [
            "pkcs11: re-using previously cached private key handle from module",
            "loaded certificate: ",
        ] {
            tunnel.process.wait_for_line_after(mark, line);
        }
        let subject = tunnel.status_report()["certificate"]["subject"].clone();
        assert!(subject.to_string().contains("OU=renewed"), "{subject}");
        tunnel.visit();

        // On the token too, but not the key that the process has.
        replace(&certificate, &other.chain_pem());
        let mark = tunnel.process.mark();
        assert_eq!(tunnel.reload()["last_reload_ok"], false, "{mode:?}");
        tunnel.process.wait_for_line_after(
            mark,
            &format!(
                "error reloading TLS configuration: pkcs11: refusing to reload certificate {certificate:?}: its \
                 public key does not match the cached HSM private key"
            ),
        );
        assert_eq!(tunnel.status_report()["certificate"]["subject"], subject);
        tunnel.visit();
    }
}

/// Figures: printed, so that `--no-capture` shows them.
#[test]
fn a_slow_token_holds_up_its_own_handshakes_and_nothing_else() {
    const DELAY: Duration = Duration::from_secs(2);
    const CLIENTS: usize = 40;
    /// On an idle machine it is below a millisecond.
    const ACCEPTABLE: Duration = Duration::from_millis(500);
    let Some(hsm) = SoftHsm::with_token(TOKEN) else {
        return;
    };
    let Some(wrapper) = Wrapper::around(hsm.module()) else {
        return;
    };
    let module = wrapper.module();
    for mode in BOTH_MODES {
        let tunnel = Plan::new(mode, KeyKind::P256, &hsm)
            .through(&module)
            .start_with(|command| {
                command.arg("--connect-timeout=1s");
            });
        // One for each worker and more.
        let mut open: Vec<_> = (0..8).map(|_| tunnel.connect().expect("admitted")).collect();
        for peer in &mut open {
            peer.echo(b"before").expect("answered");
        }
        wrapper.delay(DELAY);
        let is_over = AtomicBool::new(false);
        let (slowest, waits) = thread::scope(|scope| {
            let clients: Vec<_> = (0..CLIENTS)
                .map(|_| {
                    scope.spawn(|| {
                        let since = Instant::now();
                        assert!(!gets_through(&tunnel), "in spite of the delay");
                        since.elapsed()
                    })
                })
                .collect();
            let watch = scope.spawn(|| {
                let mut slowest = Duration::ZERO;
                while !is_over.load(Ordering::SeqCst) {
                    for peer in &mut open {
                        let since = Instant::now();
                        peer.echo(b"meanwhile").expect("answered");
                        slowest = slowest.max(since.elapsed());
                    }
                    let since = Instant::now();
                    assert_eq!(tunnel.get("/_metrics/json").status, 200);
                    slowest = slowest.max(since.elapsed());
                }
                slowest
            });
            let waits: Vec<_> = clients
                .into_iter()
                .map(|client| client.join().expect("no panic"))
                .collect();
            is_over.store(true, Ordering::SeqCst);
            (watch.join().expect("no panic"), waits)
        });
        eprintln!(
            "{mode:?}: slowest answer to others {slowest:?}; handshakes given up after {:?} to {:?}",
            waits.iter().min(),
            waits.iter().max()
        );
        assert!(slowest < ACCEPTABLE, "{mode:?}: {slowest:?}");
        wrapper.delay(Duration::ZERO);
        eventually("handshakes succeed again", || gets_through(&tunnel));
    }
}

#[test]
fn a_stuck_token_holds_up_neither_reload_nor_shutdown() {
    let Some(hsm) = SoftHsm::with_token(TOKEN) else {
        return;
    };
    let Some(wrapper) = Wrapper::around(hsm.module()) else {
        return;
    };
    let module = wrapper.module();
    let tunnel = Plan::new(Mode::Server, KeyKind::P256, &hsm)
        .through(&module)
        .start_with(|command| {
            command.args(["--connect-timeout=30s", "--shutdown-timeout=2s"]);
        });
    tunnel.visit();
    wrapper.delay(Duration::from_secs(60));
    let waiting = Plain::connect(&tunnel.listen.address().into()).expect("accepted");
    let client = TlsClient::trusting(&tunnel.pki.authority).identity(&tunnel.pki.client);
    thread::scope(|scope| {
        scope.spawn(|| client.handshake(waiting).map(drop));
        eventually("a signature is under way", || {
            tunnel.status_report()["connections_open"] == 1
        });
        assert_eq!(tunnel.reload()["last_reload_ok"], true);
        let since = Instant::now();
        tunnel.process.signal(Signal::TERM);
        let exit = tunnel.process.wait_exit();
        eprintln!("ended with {exit:?} after {:?}", since.elapsed());
        assert!(since.elapsed() < Duration::from_secs(5), "{:?}", since.elapsed());
        assert!(matches!(exit, Exit::Code(_)), "{exit:?}");
    });
}

#[test]
fn the_status_port_signs_with_the_token_too_and_waits_for_it_alone() {
    let Some(hsm) = SoftHsm::with_token(TOKEN) else {
        return;
    };
    let Some(wrapper) = Wrapper::around(hsm.module()) else {
        return;
    };
    let module = wrapper.module();
    let secure = ReservedPort::new();
    let plan = Plan::new(Mode::Server, KeyKind::P256, &hsm).through(&module);
    let (listen, backend) = (ReservedPort::new(), Backend::tcp(Behaviour::Echo));
    let mut command = plan.command(&listen, &backend.address().to_string());
    let process = command
        .flag("--pkcs11-token-label", TOKEN)
        .env("PKCS11_PIN", PIN)
        .flag("--status", secure.address().to_string())
        .arg("--shutdown-timeout=2s")
        .start();
    process.wait_listening(secure.port());
    let address = secure.address().into();
    let client = TlsClient::trusting(&plan.pki.authority);
    let answer = Endpoint::Https(&address, &client)
        .get("/_status")
        .expect("answered");
    assert_eq!(answer.status, 200);
    wrapper.delay(Duration::from_secs(60));
    thread::scope(|scope| {
        scope.spawn(|| Endpoint::Https(&address, &client).get("/_status"));
        eventually("a signature is under way", || {
            ghostunnel_testing::threads(process.id())
                .iter()
                .any(|thread| thread.name == "status-tls")
        });
        process.signal(Signal::HUP);
        process.wait_for_line("reloading configuration complete");
        let since = Instant::now();
        process.signal(Signal::TERM);
        let exit = process.wait_exit();
        assert!(since.elapsed() < Duration::from_secs(10), "{:?}", since.elapsed());
        assert!(matches!(exit, Exit::Code(_)), "{exit:?}");
    });
}

#[test]
fn the_pin_is_told_nowhere() {
    let Some(hsm) = SoftHsm::with_token(TOKEN) else {
        return;
    };
    let tunnel = Plan::new(Mode::Server, KeyKind::P256, &hsm).start_with(|command| {
        command.flag("--pkcs11-pin", PIN).arg("--log-level=debug");
    });
    tunnel.visit();
    tunnel.reload();
    hsm.pull_out();
    assert!(!gets_through(&tunnel));
    hsm.put_back();
    for path in [
        "/",
        "/_status",
        "/_metrics",
        "/_metrics/prometheus",
        "/debug/pprof/cmdline",
    ] {
        let answer = tunnel.get(path);
        assert!(!answer.text().contains(PIN), "{path}: {}", answer.text());
    }
    for line in tunnel.process.lines() {
        assert!(!line.text().contains(PIN), "{}", line.text());
    }
}

#[test]
fn a_module_that_needs_more_is_given_it_by_name() {
    let Some(hsm) = SoftHsm::with_token(TOKEN) else {
        return;
    };
    let elsewhere = ghostunnel_testing::private_dir();
    let needed = elsewhere.path().join("vendor.conf");
    fs::write(&needed, "").expect("a file of the test");
    let Some(wrapper) = Wrapper::needing(hsm.module(), &needed) else {
        return;
    };
    let module = wrapper.module();
    let plan = Plan::new(Mode::Server, KeyKind::P256, &hsm).through(&module);
    let refused = plan.refusal(|_| {});
    assert_key_refusal(
        &refused,
        &module,
        "",
        &format!("pkcs11key: failed to load module '{}'", module.display()),
    );
    assert!(refused.contains("--sandbox-allow-read"), "{refused}");
    let tunnel = plan.start_with(|command| {
        command.flag("--sandbox-allow-read", &needed);
    });
    tunnel.visit();
}

#[test]
fn ports_that_no_flag_names_stay_closed_to_a_module() {
    let Some(hsm) = SoftHsm::with_token(TOKEN) else {
        return;
    };
    let (named, other) = (Backend::tcp(Behaviour::Echo), Backend::tcp(Behaviour::Echo));
    let tunnel = Plan::new(Mode::Server, KeyKind::P256, &hsm).start_with(|command| {
        command.flag("--sandbox-allow-connect", named.port().to_string());
    });
    let sandbox = &tunnel.status_report()["sandbox"];
    if sandbox["tcp"] != true {
        ghostunnel_testing::skip("this kernel does not restrict TCP");
        return;
    }
    let at = |backend: &Backend| Attempt::Connect(([127, 0, 0, 1], backend.port()).into());
    let attempts = [at(&named), at(&other)];
    for thread in attempt(tunnel.process.id(), &attempts).unwrap_or_default() {
        assert_eq!(thread.outcomes, [Ok(()), Err(ErrorKind::PermissionDenied)]);
    }
}
