//! The sandbox against the running kernel.
//!
//! Entering it can't be undone and must happen while a process has one thread, so each
//! case runs in a process of its own that starts at `main`, without the test harness:
//! this executable, started again with the name of the case in its environment. The
//! arguments that `cargo test` and `cargo nextest` give are understood.

use std::fmt::Debug;
use std::io::{self, ErrorKind};
use std::process::{Command, ExitCode};

const CASE_VARIABLE: &str = "GHOSTUNNEL_LANDLOCK_CASE";

/// A case; `Err` carries why it can't run here.
type Case = fn() -> Result<(), String>;

#[cfg(target_os = "linux")]
const CASES: &[(&str, Case)] = &[
    (
        "what_no_rule_grants_is_denied_on_every_thread",
        linux::what_no_rule_grants_is_denied_on_every_thread,
    ),
    (
        "one_odd_rule_costs_only_itself",
        linux::one_odd_rule_costs_only_itself,
    ),
    (
        "a_second_thread_is_reported_and_nothing_restricted",
        linux::a_second_thread_is_reported,
    ),
    (
        "a_tunnel_works_inside_its_own_plan",
        linux::a_tunnel_works_inside_its_own_plan,
    ),
];
#[cfg(not(target_os = "linux"))]
const CASES: &[(&str, Case)] = &[];

fn main() -> ExitCode {
    if let Ok(name) = std::env::var(CASE_VARIABLE) {
        return run_here(&name);
    }
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let has = |flag: &str| arguments.iter().any(|argument| argument == flag);
    let filters = filters(&arguments);
    let is_wanted = |name: &str| {
        let matches = |filter: &&String| {
            if has("--exact") {
                *filter == name
            } else {
                name.contains(*filter)
            }
        };
        !has("--ignored") && (filters.is_empty() || filters.iter().any(matches))
    };
    let wanted: Vec<&str> = CASES
        .iter()
        .map(|(name, _)| *name)
        .filter(|name| is_wanted(name))
        .collect();
    if has("--list") {
        wanted.iter().for_each(|name| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    let failed: Vec<&str> = wanted
        .into_iter()
        .filter(|name| !passes_elsewhere(name))
        .collect();
    failed.iter().for_each(|name| println!("test {name} ... FAILED"));
    if failed.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Words that are neither flags of the harness nor their values.
fn filters(arguments: &[String]) -> Vec<&String> {
    let takes_value =
        |flag: &str| ["--test-threads", "--format", "--color", "--logfile", "-Z"].contains(&flag);
    let mut previous = "";
    let mut filters = Vec::new();
    for argument in arguments {
        if !argument.starts_with('-') && !takes_value(previous) {
            filters.push(argument);
        }
        previous = argument;
    }
    filters
}

fn passes_elsewhere(name: &str) -> bool {
    let executable = std::env::current_exe().expect("path of this executable");
    Command::new(executable)
        .env(CASE_VARIABLE, name)
        .status()
        .expect("started")
        .success()
}

fn run_here(name: &str) -> ExitCode {
    let (_, case) = CASES
        .iter()
        .find(|(known, _)| *known == name)
        .expect("known case");
    match case() {
        Ok(()) => println!("test {name} ... ok"),
        Err(reason) if std::env::var_os("CI").is_some() => {
            println!("test {name} ... cannot be skipped in CI: {reason}");
            return ExitCode::FAILURE;
        }
        Err(reason) => println!("test {name} ... SKIPPED: {reason}"),
    }
    ExitCode::SUCCESS
}

#[track_caller]
fn assert_denied<T: Debug>(result: io::Result<T>) {
    assert_eq!(
        result.expect_err("must be denied").kind(),
        ErrorKind::PermissionDenied
    );
}

#[cfg(target_os = "linux")]
mod linux {
    use std::fs;
    use std::net::{TcpListener, TcpStream};
    use std::os::unix::net::{UnixListener, UnixStream};
    use std::path::{Path, PathBuf};
    use std::sync::Arc;
    use std::thread;
    use std::time::Duration;

    use ghostunnel::app::sandbox_plan::{self, Environment};
    use ghostunnel::config::{ClientAuth, Config, Mode, Tunnel};
    use ghostunnel::net::{Inherited, ListenAddr, Reach, TargetAddr};
    use ghostunnel::sandbox::{Access, FileRule, Outcome, Plan, PortRule, Report, enter};
    use ghostunnel::{authorization, credentials, lifecycle, metrics, proxy, sandbox};

    use super::*;

    /// A directory outside of `/tmp`, which a real plan opens.
    fn folder() -> tempfile::TempDir {
        tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("folder")
    }

    fn make_folder(path: PathBuf) -> PathBuf {
        fs::create_dir(&path).expect("folder");
        fs::write(path.join("file"), "content").expect("file");
        path
    }

    fn file_rule(path: &Path, access: Access) -> FileRule {
        FileRule {
            path: path.to_owned(),
            access,
            why: "test",
            is_optional: false,
        }
    }

    fn listening() -> (TcpListener, u16) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let port = listener.local_addr().expect("address").port();
        (listener, port)
    }

    fn require_enforced(report: &Report) -> Result<(), String> {
        match &report.outcome {
            Outcome::Enforced { tcp: true, .. } => Ok(()),
            Outcome::Enforced { tcp: false, .. } | Outcome::Unsupported(_) => Err(report.to_string()),
            Outcome::Failed(_) | Outcome::Absent => panic!("{report}"),
        }
    }

    pub(super) fn what_no_rule_grants_is_denied_on_every_thread() -> Result<(), String> {
        let root = folder();
        let inside = |name: &str| make_folder(root.path().join(name));
        let (read, write, listen, outside) = (
            inside("read"),
            inside("write"),
            inside("listen"),
            inside("outside"),
        );
        let ((_allowed, allowed), (_denied, denied)) = (listening(), listening());
        let plan = Plan {
            files: vec![
                file_rule(&read, Access::Read),
                file_rule(Path::new("/usr/bin"), Access::Read),
                file_rule(&write, Access::ReadWrite),
                file_rule(&listen, Access::Listen),
            ],
            connect_ports: vec![PortRule {
                port: allowed,
                why: "test",
            }],
            ..Plan::default()
        };
        let report = enter(&plan);
        require_enforced(&report)?;
        assert_eq!(report.skipped, []);

        let check = move || {
            assert_eq!(
                fs::read_to_string(read.join("file")).expect("readable"),
                "content"
            );
            assert_denied(fs::write(read.join("file"), "changed"));
            assert_denied(fs::write(read.join("new"), "new"));
            assert_denied(fs::remove_file(read.join("file")));

            fs::write(write.join("new"), "new").expect("writable");
            fs::rename(write.join("new"), write.join("renamed")).expect("writable");
            fs::remove_file(write.join("renamed")).expect("writable");

            drop(UnixListener::bind(listen.join("socket")).expect("socket"));
            fs::remove_file(listen.join("socket")).expect("removable");
            assert_denied(fs::read(listen.join("file")));
            assert_denied(fs::write(listen.join("new"), "new"));

            assert_denied(fs::read(outside.join("file")));
            assert_denied(fs::read_dir(&outside).map(|_| ()));
            assert_denied(UnixListener::bind(outside.join("socket")));
            assert_denied(fs::read("/etc/passwd"));
            assert_denied(Command::new("/usr/bin/true").status());

            TcpStream::connect(("127.0.0.1", allowed)).expect("allowed port");
            assert_denied(TcpStream::connect(("127.0.0.1", denied)));
            assert_denied(TcpListener::bind("127.0.0.1:0"));
        };
        check();
        thread::spawn(check).join().expect("the same on a new thread");
        Ok(())
    }

    pub(super) fn one_odd_rule_costs_only_itself() -> Result<(), String> {
        let root = folder();
        let (read, outside) = (
            make_folder(root.path().join("read")),
            make_folder(root.path().join("outside")),
        );
        let missing = root.path().join("missing");
        let optional = FileRule {
            is_optional: true,
            ..file_rule(&missing, Access::Read)
        };
        let below_a_file = FileRule {
            is_optional: true,
            ..file_rule(&read.join("file/x"), Access::Read)
        };
        let report = enter(&Plan {
            files: vec![
                file_rule(&missing, Access::Read),
                optional,
                below_a_file,
                // Rights to a directory, though this is a file: the fitting ones remain.
                file_rule(&read.join("file"), Access::ReadWrite),
            ],
            ..Plan::default()
        });
        require_enforced(&report)?;
        let told: Vec<String> = report.skipped.iter().map(ToString::to_string).collect();
        let [missing_told, below_told] = told.as_slice() else {
            panic!("{told:?}")
        };
        assert!(
            missing_told.starts_with(&format!("read {} (test): ", missing.display())),
            "{missing_told}"
        );
        assert!(
            missing_told.contains("No such file or directory"),
            "{missing_told}"
        );
        assert!(below_told.contains("Not a directory"), "{below_told}");
        assert_eq!(fs::read(read.join("file")).expect("readable"), b"content");
        assert_denied(fs::read(outside.join("file")));
        Ok(())
    }

    pub(super) fn a_second_thread_is_reported() -> Result<(), String> {
        let root = folder();
        let (release, wait) = std::sync::mpsc::sync_channel::<()>(1);
        let other = thread::spawn(move || wait.recv().ok());
        let report = enter(&Plan::default());
        assert_eq!(
            report.outcome,
            Outcome::Failed("2 threads are running, and only one of them would be confined".to_owned())
        );
        fs::write(root.path().join("file"), "free").expect("not confined");
        drop(release);
        other.join().expect("thread");
        Ok(())
    }

    pub(super) fn a_tunnel_works_inside_its_own_plan() -> Result<(), String> {
        let root = folder();
        let (tls, store) = (
            make_folder(root.path().join("tls")),
            make_folder(root.path().join("store")),
        );
        let sockets = make_folder(root.path().join("sockets"));
        std::os::unix::fs::symlink(store.join("file"), tls.join("link")).expect("link");
        let path = sockets.join("s");
        drop(UnixListener::bind(&path).expect("a socket left behind"));
        let (target, port) = listening();

        let listen =
            ListenAddr::parse(&format!("unix:{}", path.display()), Reach::LocalOnly).expect("listen");
        let target_addr = TargetAddr::parse(&format!("localhost:{port}"), Reach::LocalOnly).expect("target");
        let config = config(&listen, &target_addr, &tls);
        let bound = listen.bind(&mut Inherited::default()).expect("bind");
        let report = enter(&sandbox_plan::plan(&config, &Environment::of_process()));
        require_enforced(&report)?;
        assert_eq!(report.skipped, []);

        let status = fs::read_to_string("/proc/self/status").expect("status");
        assert!(status.contains("NoNewPrivs:\t1"), "{status}");
        for name in ["file", "link"] {
            assert_eq!(fs::read(tls.join(name)).expect("credentials"), b"content");
        }
        assert_denied(fs::write(tls.join("file"), "forged"));
        assert_denied(fs::read(sockets.join("file")));

        let listener = bound.listen().expect("replaces the dead socket");
        UnixStream::connect(&path).expect("connect");
        listener.close();
        assert!(!path.exists());

        target_addr.check_resolves().expect("name service");
        TcpStream::connect(("localhost", port)).expect("target");
        target.accept().expect("accept");
        assert_denied(TcpListener::bind("127.0.0.1:0"));
        Ok(())
    }

    fn config(listen: &ListenAddr, target: &TargetAddr, tls: &Path) -> Config {
        let tunnel = Tunnel {
            listen: listen.clone(),
            target: target.clone(),
            resolve_at_start: true,
            mode: Mode::Server {
                client_auth: ClientAuth::Required(authorization::Rules::default()),
                header: None,
                announcers: None,
                target_status: None,
            },
            credentials: credentials::Selection {
                identity: credentials::Identity::Pair {
                    cert: tls.join("file"),
                    key: tls.join("link"),
                    password: credentials::Password::None,
                },
                trust: credentials::Trust::System,
            },
            tls: ghostunnel::tls::Options::default(),
            limits: proxy::Limits {
                connect_timeout: Duration::from_secs(10),
                close_timeout: Duration::from_secs(60),
                max_lifetime: None,
                max_concurrent: None,
            },
        };
        Config {
            tunnels: vec![Arc::new(tunnel)],
            status: None,
            metrics: metrics::Settings::default(),
            sandbox: sandbox::Settings {
                landlock: true,
                ..sandbox::Settings::default()
            },
            lifecycle: lifecycle::Settings {
                timed_reload: None,
                shutdown_timeout: Duration::ZERO,
            },
        }
    }
}
