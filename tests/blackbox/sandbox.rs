//! The Landlock sandbox of a running process: what it denies on every thread, what the kernel
//! is asked for, and what happens where the kernel can't.
//!
//! Names that start with `sNN_` prove the row SNN of `docs/security-model.md`.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;

use ghostunnel_testing::{
    Address, Attempt, Backend, Behaviour, Command, Exit, Pki, Process, ReservedPort, Signal, TlsClient,
    attempt, eventually, private_dir, require_tool, skip, threads,
};

use crate::support::{server, server_at};

/// A server tunnel that admits everybody with a certificate, before an echo backend.
pub(crate) struct Tunnel {
    pub(crate) pki: Pki,
    pub(crate) backend: Backend,
    pub(crate) port: ReservedPort,
    pub(crate) process: Process,
}

impl Tunnel {
    fn confined() -> Self {
        Self::start(|_| ())
    }

    fn free() -> Self {
        Self::start(|command| {
            command.arg("--disable-landlock");
        })
    }

    fn start(adjust: impl FnOnce(&mut Command)) -> Self {
        let (pki, port) = (Pki::new(), ReservedPort::new());
        let backend = Backend::tcp(Behaviour::Echo);
        let mut command = server(&pki, &port, backend.address());
        command.arg("--allow-all");
        adjust(&mut command);
        let process = command.start();
        process.wait_for_line("listening for connections on");
        Self {
            pki,
            backend,
            port,
            process,
        }
    }

    fn assert_echoes(&self) {
        assert_echoes(&self.pki, &self.port.address().into());
    }
}

/// Sends something through a server tunnel with an echo backend and gets it back.
#[track_caller]
pub(crate) fn assert_echoes(pki: &Pki, address: &Address) {
    let client = TlsClient::trusting(&pki.authority).identity(&pki.client);
    let mut peer = client.connect(address).expect("admitted");
    peer.write_all(b"hello").expect("open");
    let mut answer = [0; 5];
    peer.read_exact(&mut answer).expect("echoed");
    assert_eq!(&answer, b"hello");
}

/// Whether the kernel confines a process that was not told otherwise, TCP ports included;
/// says so if not.
pub(crate) fn is_confined(process: &Process) -> bool {
    let report = process.wait_for_line("sandbox: landlock");
    let is_whole = report.contains("files=yes tcp=yes");
    if !is_whole {
        skip(&format!("this kernel confines less: {report}"));
    }
    is_whole
}

/// Checks that all threads of a process are granted, or denied, all of these.
///
/// `false` if that could not be tried.
#[track_caller]
fn outcomes_are(process: &Process, attempts: &[Attempt], expected: Result<(), ErrorKind>) -> bool {
    let Some(attempted) = attempt(process.id(), attempts) else {
        return false;
    };
    for thread in &attempted {
        for (outcome, attempt) in thread.outcomes.iter().zip(attempts) {
            assert_eq!(*outcome, expected, "{attempt:?} on thread {}", thread.thread);
        }
    }
    let mut tried: Vec<u32> = attempted.iter().map(|thread| thread.thread).collect();
    let mut known: Vec<u32> = threads(process.id()).iter().map(|thread| thread.id).collect();
    tried.sort_unstable();
    known.sort_unstable();
    assert_eq!(tried, known, "every thread was tried");
    true
}

const DENIED: Result<(), ErrorKind> = Err(ErrorKind::PermissionDenied);

/// Checks that a process is denied all of these on every thread, and that it is the sandbox
/// that does so: without it the same is granted.
fn sandbox_denies(attempts: impl Fn(&Tunnel) -> Vec<Attempt>) {
    let confined = Tunnel::confined();
    if !is_confined(&confined.process) || !outcomes_are(&confined.process, &attempts(&confined), DENIED) {
        return;
    }
    let free = Tunnel::free();
    outcomes_are(&free.process, &attempts(&free), Ok(()));
}

fn sandbox_allows(attempts: impl Fn(&Tunnel) -> Vec<Attempt>) {
    let confined = Tunnel::confined();
    if is_confined(&confined.process) {
        outcomes_are(&confined.process, &attempts(&confined), Ok(()));
    }
}

fn on_any_port(ip: impl Into<IpAddr>) -> SocketAddr {
    SocketAddr::new(ip.into(), 0)
}

#[test]
fn s44_credentials_and_their_directory_are_readable_and_not_writable() {
    sandbox_allows(|tunnel| {
        vec![
            Attempt::Read(tunnel.pki.server_files.certificate.clone()),
            Attempt::Read(tunnel.pki.server_files.key.clone()),
            Attempt::Read(tunnel.pki.ca_file.clone()),
            Attempt::Read(tunnel.pki.dir().to_owned()),
        ]
    });
    sandbox_denies(|tunnel| {
        vec![
            Attempt::Write(tunnel.pki.server_files.certificate.clone()),
            Attempt::Write(tunnel.pki.server_files.key.clone()),
            Attempt::Write(tunnel.pki.ca_file.clone()),
            Attempt::Create(tunnel.pki.path("new")),
        ]
    });
}

#[test]
fn s47_nothing_else_is_readable() {
    let outside = private_dir();
    let file = outside.path().join("file");
    fs::write(&file, "secret").expect("writable");
    sandbox_denies(|_| {
        vec![
            Attempt::Read(file.clone()),
            Attempt::Read(outside.path().to_owned()),
            Attempt::Read("/var/tmp".into()),
            Attempt::Read("/home".into()),
            Attempt::Read("/".into()),
            Attempt::Read("/bin/sh".into()),
        ]
    });
}

#[test]
fn s48_no_tcp_port_can_be_bound() {
    sandbox_denies(|tunnel| {
        vec![
            Attempt::Bind(on_any_port(Ipv4Addr::LOCALHOST)),
            Attempt::Bind(on_any_port(Ipv4Addr::UNSPECIFIED)),
            // Its own port, on an address where it does not listen.
            Attempt::Bind(SocketAddr::from(([127, 0, 0, 2], tunnel.port.port()))),
        ]
    });
}

#[test]
fn s51_connecting_elsewhere_than_to_the_target_is_denied() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let other = listener.local_addr().expect("address");
    sandbox_allows(|tunnel| {
        vec![Attempt::Connect(SocketAddr::from((
            [127, 0, 0, 1],
            tunnel.backend.port(),
        )))]
    });
    sandbox_denies(|tunnel| vec![Attempt::Connect(other), Attempt::Connect(tunnel.port.address())]);
}

#[test]
fn s50_name_servers_can_be_asked_over_tcp() {
    let tunnel = Tunnel::confined();
    if !is_confined(&tunnel.process) {
        return;
    }
    // Nobody, or a name server, listens there: both are answers of the network.
    let name_server = Attempt::Connect(SocketAddr::from(([127, 0, 0, 1], 53)));
    let attempted = attempt(tunnel.process.id(), &[name_server]).unwrap_or_default();
    for thread in attempted {
        let [outcome] = thread.outcomes.as_slice() else {
            panic!("{thread:?}")
        };
        assert!(
            matches!(outcome, Ok(()) | Err(ErrorKind::ConnectionRefused)),
            "{outcome:?}"
        );
    }
}

#[test]
fn no_program_can_be_started() {
    sandbox_denies(|_| vec![Attempt::Execute("/bin/true".into())]);
}

#[test]
fn s56_every_thread_is_confined_also_those_that_look_names_up() {
    let (pki, port) = (Pki::new(), ReservedPort::new());
    let backend = Backend::tcp(Behaviour::Echo);
    // A name is looked up on a thread of its own.
    let target = format!("localhost:{}", backend.port());
    let process = server_at(&pki, &port.address().to_string(), &target).start();
    process.wait_for_line("listening for connections on");
    if !is_confined(&process) {
        return;
    }
    let before = threads(process.id());
    assert_echoes(&pki, &port.address().into());
    let during = threads(process.id());
    assert!(during.len() > before.len(), "{during:?}");
    let has = |name| during.iter().any(|thread| thread.name.starts_with(name));
    assert!(has("log") && has("worker"), "{during:?}");
    let free = during.iter().find(|thread| !thread.no_new_privileges);
    assert_eq!(free, None);

    let outside = private_dir();
    let attempts = [
        Attempt::Read(outside.path().to_owned()),
        Attempt::Bind(on_any_port(Ipv4Addr::LOCALHOST)),
        // A child would be confined too, but there is none to be had.
        Attempt::Execute("/bin/true".into()),
    ];
    outcomes_are(&process, &attempts, DENIED);
}

#[test]
fn s57_what_is_denied_stays_denied() {
    let tunnel = Tunnel::confined();
    if !is_confined(&tunnel.process) {
        return;
    }
    let outside = private_dir();
    tunnel.assert_echoes();
    tunnel.process.signal(Signal::HUP);
    tunnel.process.wait_for_line("reloading configuration complete");
    let attempts = [
        Attempt::Read(outside.path().to_owned()),
        Attempt::Create(tunnel.pki.path("new")),
        Attempt::Bind(on_any_port(Ipv4Addr::LOCALHOST)),
    ];
    outcomes_are(&tunnel.process, &attempts, DENIED);
    assert!(
        threads(tunnel.process.id())
            .iter()
            .all(|thread| thread.no_new_privileges)
    );
}

#[test]
fn s45_rotation_by_rename_survives() {
    let tunnel = Tunnel::confined();
    let renewed = tunnel.pki.authority.issue(&Pki::server_request());
    let fresh = renewed.write_to(tunnel.pki.dir(), "fresh");
    fs::rename(&fresh.key, &tunnel.pki.server_files.key).expect("renamed");
    fs::rename(&fresh.certificate, &tunnel.pki.server_files.certificate).expect("renamed");
    tunnel.process.signal(Signal::HUP);
    tunnel.process.wait_for_line("loaded certificate: CN=server");
    tunnel.process.wait_for_line("reloading configuration complete");
    let client = TlsClient::trusting(&tunnel.pki.authority).identity(&tunnel.pki.client);
    let peer = client.connect(&tunnel.port.address().into()).expect("admitted");
    assert_eq!(peer.facts().peer_certificates, renewed.chain());
}

/// The system calls of a process from its start to its end, one in each line.
///
/// `None` if strace is missing.
pub(crate) fn trace(
    command: &mut Command,
    calls: &str,
    meanwhile: impl FnOnce(&Process),
) -> Option<Vec<String>> {
    let dir = private_dir();
    let file = dir.path().join("trace");
    let process = under_strace(command, &file, calls, &[])?.start();
    meanwhile(&process);
    process.signal(Signal::TERM);
    process.wait_exit();
    let mut text = String::new();
    eventually("the trace is complete", || {
        text = fs::read_to_string(&file).unwrap_or_default();
        let end = |line: &str| line.contains("+++ exited") && line.starts_with(&process.id().to_string());
        text.lines().any(end)
    });
    Some(text.lines().map(str::to_owned).collect())
}

/// Puts strace before it, which traces it from a process of its own (`-D`), so that the
/// process id stays that of the program.
fn under_strace<'a>(
    command: &'a mut Command,
    file: &Path,
    calls: &str,
    more: &[&str],
) -> Option<&'a mut Command> {
    let file = file.to_str().expect("text");
    let calls = format!("trace={calls}");
    // With -I 1 it can be told to let go.
    let arguments = [
        &["-I", "1", "-D", "-f", "-y", "-o", file, "-e", calls.as_str()],
        more,
    ]
    .concat();
    Some(command.through(&require_tool("strace")?, arguments))
}

/// A whole command line of a server that can start.
fn plain_server(pki: &Pki, port: &ReservedPort) -> Command {
    let nobody = ReservedPort::new();
    let mut command = server(pki, port, &nobody.address());
    command.arg("--allow-all");
    command
}

fn is_serving(process: &Process) {
    process.wait_for_line("listening for connections on");
}

#[track_caller]
fn position(trace: &[String], text: &str) -> usize {
    trace
        .iter()
        .position(|line| line.contains(text))
        .unwrap_or_else(|| panic!("no {text} in {trace:#?}"))
}

#[test]
fn s40_confinement_is_on_without_any_flag_and_precedes_every_thread() {
    let (pki, port) = (Pki::new(), ReservedPort::new());
    let calls = "landlock_restrict_self,prctl,clone,clone3";
    let Some(trace) = trace(&mut plain_server(&pki, &port), calls, is_serving) else {
        return;
    };
    let restricted = position(&trace, "landlock_restrict_self(");
    assert!(trace[restricted].ends_with("= 0"), "{trace:#?}");
    assert!(
        position(&trace, "PR_SET_NO_NEW_PRIVS, 1") < restricted,
        "{trace:#?}"
    );
    assert!(position(&trace, "clone") > restricted, "{trace:#?}");
}

#[test]
fn s41_flags_are_judged_before_the_sandbox_is_entered() {
    let (pki, port) = (Pki::new(), ReservedPort::new());
    for wrong in ["--no-such-flag", "--allow-cn=x"] {
        let mut command = plain_server(&pki, &port);
        let Some(trace) = trace(command.arg(wrong), "/landlock", |process| {
            assert_eq!(process.wait_exit(), Exit::Code(1));
        }) else {
            return;
        };
        assert!(!trace.iter().any(|line| line.contains("landlock")), "{trace:#?}");
    }
}

/// Stricter than the page: what could not be read again at a reload does not start.
#[test]
fn s42_credentials_are_read_inside_the_sandbox() {
    let (pki, port) = (Pki::new(), ReservedPort::new());
    let Some(trace) = trace(
        &mut plain_server(&pki, &port),
        "landlock_restrict_self,openat,bind",
        is_serving,
    ) else {
        return;
    };
    let restricted = position(&trace, "landlock_restrict_self(");
    for file in [&pki.server_files.certificate, &pki.server_files.key, &pki.ca_file] {
        let name = format!("{}\", O_RDONLY", file.display());
        assert!(position(&trace, &name) > restricted, "{trace:#?}");
    }
    assert!(position(&trace, "bind(") < restricted, "{trace:#?}");
}

/// The rules that a traced process asked for: `RIGHTS PATH`, and `port` for each of a port,
/// whose number strace may not know how to show.
fn rules(trace: &[String]) -> Vec<String> {
    let rule = |line: &String| {
        let rule = line.split_once("landlock_add_rule(")?.1;
        let Some((_, rule)) = rule.split_once("allowed_access=") else {
            return Some("port".to_owned());
        };
        if rule.contains("NET_PORT") || rule.contains("port=") {
            return Some("port".to_owned());
        }
        let (rights, rest) = rule.split_once(", parent_fd=")?;
        let path = rest.split_once('<')?.1.split_once('>')?.0;
        Some(format!("{rights} {path}"))
    };
    trace.iter().filter_map(rule).collect()
}

fn traced_rules(command: &mut Command) -> Option<Vec<String>> {
    Some(rules(&trace(command, "landlock_add_rule", is_serving)?))
}

#[test]
fn s43_rules_derive_from_the_flags_alone() {
    let (first, second) = (Pki::new(), Pki::new());
    let sockets = private_dir();
    let (one, two) = (ReservedPort::new(), ReservedPort::new());
    let mut plain = plain_server(&first, &one);
    let mut other = plain_server(&second, &two);
    other.flag("--status", format!("unix:{}/s", sockets.path().display()));
    let (Some(plain), Some(other)) = (traced_rules(&mut plain), traced_rules(&mut other)) else {
        return;
    };
    if plain.is_empty() {
        return skip("this kernel has no Landlock");
    }
    let beyond = |these: &[String], those: &[String]| -> Vec<String> {
        let only = these.iter().filter(|rule| !those.contains(rule));
        only.map(|rule| rule.rsplit(' ').next().unwrap_or_default().to_owned())
            .collect()
    };
    let text = |path: &Path| path.display().to_string();
    assert_eq!(beyond(&plain, &other), [text(first.dir())]);
    let mut only_other = beyond(&other, &plain);
    only_other.sort();
    let mut expected = [text(second.dir()), text(sockets.path())];
    expected.sort();
    assert_eq!(only_other, expected);
    // The target's port and that of name servers.
    let ports = |rules: &[String]| rules.iter().filter(|rule| *rule == "port").count();
    assert!([0, 2].contains(&ports(&plain)), "{plain:#?}");
    assert_eq!(ports(&plain), ports(&other));
}

#[test]
fn s46_only_system_directories_are_writable_and_nothing_is_executable() {
    let (pki, port, sockets) = (Pki::new(), ReservedPort::new(), private_dir());
    let mut command = plain_server(&pki, &port);
    command.flag("--status", format!("unix:{}/s", sockets.path().display()));
    let Some(rules) = traced_rules(&mut command) else {
        return;
    };
    for rule in rules.iter().filter(|rule| *rule != "port") {
        let (rights, path) = rule.split_once(' ').expect("rights and path");
        let is_writable = ["/dev", "/run", "/proc", "/tmp"].contains(&path);
        assert_eq!(rights.contains("WRITE_FILE"), is_writable, "{rule}");
        let makes = ["MAKE_REG", "MAKE_DIR", "REMOVE_DIR"]
            .iter()
            .any(|right| rights.contains(right));
        assert_eq!(makes, is_writable, "{rule}");
        let is_socket_dir = Path::new(path) == sockets.path();
        assert_eq!(
            rights.contains("MAKE_SOCK"),
            is_writable || is_socket_dir,
            "{rule}"
        );
        for never in ["EXECUTE", "REFER", "MAKE_CHAR", "MAKE_BLOCK", "MAKE_SYM", "IOCTL"] {
            assert!(!rights.contains(never), "{rule}");
        }
    }
}

#[test]
fn s52_a_kernel_without_landlock_is_told_and_the_service_works() {
    for (error, reason) in [
        ("ENOSYS", "not built into"),
        ("EOPNOTSUPP", "not enabled at boot"),
    ] {
        let (pki, port, dir) = (Pki::new(), ReservedPort::new(), private_dir());
        let backend = Backend::tcp(Behaviour::Echo);
        let mut command = server(&pki, &port, backend.address());
        command.arg("--allow-all");
        let inject = format!("inject=landlock_create_ruleset:error={error}");
        let file = dir.path().join("trace");
        let Some(command) = under_strace(&mut command, &file, "landlock_create_ruleset", &["-e", &inject])
        else {
            return;
        };
        let process = command.start();
        let note = process.wait_for_line("note: kernel does not support landlock net rules");
        assert!(note.contains("sandboxing will be limited"), "{note}");
        assert!(note.contains(reason), "{note}");
        process.wait_for_line("sandbox: landlock none");
        is_serving(&process);
        assert_echoes(&pki, &port.address().into());
    }
}

#[test]
fn s53_an_old_kernel_restricts_files_and_not_the_network() {
    let (pki, port, dir) = (Pki::new(), ReservedPort::new(), private_dir());
    let backend = Backend::tcp(Behaviour::Echo);
    let mut command = server(&pki, &port, backend.address());
    command.arg("--allow-all");
    // The first call asks for the version.
    let inject = ["-e", "inject=landlock_create_ruleset:retval=2:when=1"];
    let file = dir.path().join("trace");
    let Some(command) = under_strace(&mut command, &file, "landlock_create_ruleset", &inject) else {
        return;
    };
    let process = command.start();
    process.wait_for_line("sandboxing will be limited to files");
    process.wait_for_line("sandbox: landlock abi=2 files=yes tcp=no");
    is_serving(&process);
    assert_echoes(&pki, &port.address().into());

    release_from_tracer(&process);
    let other = TcpListener::bind("127.0.0.1:0").expect("bind");
    let network = [
        Attempt::Connect(other.local_addr().expect("address")),
        Attempt::Bind(on_any_port(Ipv4Addr::LOCALHOST)),
    ];
    let files = [
        Attempt::Read(dir.path().to_owned()),
        Attempt::Create(pki.path("new")),
    ];
    outcomes_are(&process, &network, Ok(()));
    outcomes_are(&process, &files, DENIED);
}

/// Ends the strace of this process, since it can have one tracer only.
fn release_from_tracer(process: &Process) {
    let tracer = || {
        let status = fs::read_to_string(format!("/proc/{}/status", process.id())).expect("running");
        let line = status.lines().find_map(|line| line.strip_prefix("TracerPid:"));
        line.expect("every process has it").trim().to_owned()
    };
    let id = tracer();
    assert_ne!(id, "0", "traced");
    Command::new("/bin/sh").args(["-c", "kill $0", &id]).run();
    eventually("the tracer is gone", || tracer() == "0");
}

#[test]
fn s54_disable_landlock_makes_no_call_and_says_nothing() {
    let (pki, port) = (Pki::new(), ReservedPort::new());
    let mut command = plain_server(&pki, &port);
    command.arg("--disable-landlock");
    let Some(trace) = trace(&mut command, "/landlock", |process| {
        is_serving(process);
        assert_eq!(process.count_lines("landlock"), 0);
    }) else {
        return;
    };
    assert!(!trace.iter().any(|line| line.contains("landlock_")), "{trace:#?}");
}

/// A value that can't be turned into a rule costs that rule only.
#[test]
fn odd_addresses_leave_the_rest_of_the_sandbox_standing() {
    let outside = private_dir();
    for (flag, value, warning) in [
        (
            "--target",
            "localhost:0",
            Some("localhost:0 (--target): nothing can listen on port 0"),
        ),
        (
            "--target",
            "127.0.0.1:",
            Some("127.0.0.1: (--target): nothing can listen on port 0"),
        ),
        ("--target", "localhost:http", None),
        ("--target", "unix:", None),
        (
            "--target",
            "unix:/var/tmp/no/such/directory/s",
            Some("connect /var/tmp/no/such/directory (--target): "),
        ),
        ("--listen", "localhost:0", None),
        ("--listen", "127.0.0.1:", None),
        ("--status", "localhost:0", None),
        ("--status", "unix:@odd-addresses-leave-the-rest", None),
    ] {
        let (pki, port) = (Pki::new(), ReservedPort::new());
        let (address, nobody) = (port.address().to_string(), ReservedPort::new());
        let mut command = match flag {
            "--listen" => server_at(&pki, value, &nobody.address().to_string()),
            "--target" => server_at(&pki, &address, value),
            _ => server_at(&pki, &address, &nobody.address().to_string()),
        };
        if flag == "--status" {
            command.flag(flag, value);
        }
        let process = command.start();
        is_serving(&process);
        if !is_confined(&process) {
            return;
        }
        if flag == "--listen" {
            process.wait_for_line(&format!(
                "listening for connections on {value} (bound to 127.0.0.1:"
            ));
        }
        let told = format!("warning: landlock rule left out: {}", warning.unwrap_or_default());
        assert_eq!(
            process.count_lines(&told),
            usize::from(warning.is_some()),
            "{flag}={value}: {}",
            process.stdout()
        );
        // The others are whole by the report; looking into a process takes its time.
        if warning.is_none() {
            continue;
        }
        let attempts = [
            Attempt::Read(outside.path().to_owned()),
            Attempt::Connect(port.address()),
            Attempt::Bind(on_any_port(Ipv4Addr::LOCALHOST)),
        ];
        if !outcomes_are(&process, &attempts, DENIED) {
            return;
        }
    }
}

/// Variables that other programs read once turned the whole sandbox off.
#[test]
fn stray_proxy_variables_do_not_weaken_the_sandbox() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let other = listener.local_addr().expect("address");
    let tunnel = Tunnel::start(|command| {
        command
            .env("HTTPS_PROXY", "http://proxy.test:0")
            .env("http_proxy", format!("http://{other}"));
    });
    if is_confined(&tunnel.process) {
        outcomes_are(&tunnel.process, &[Attempt::Connect(other)], DENIED);
    }
}
