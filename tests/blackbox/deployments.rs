//! Every way to deploy works with the sandbox on, and goes on working at the next reload:
//! where files lie, how addresses are written, who the process is.

use std::fs::{self, Permissions};
use std::io::Write;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::{SocketAddr as UnixAddress, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use ghostunnel_testing::{
    Address, Backend, Behaviour, ClientCertificates, Command, Endpoint, Issued, Pki, Plain, Process,
    ReservedPort, Signal, TlsClient, TlsServer, eventually, private_dir, read_to_end, skip,
};

use crate::sandbox::{assert_echoes, is_confined};
use crate::support::{as_nobody, client_at, ghostunnel, server_at, with_etc};

/// Starts a command that listens on `port` and checks that it is confined, with no rule left out.
///
/// `None` where the kernel does not confine it.
fn start_confined(command: &Command) -> Option<Process> {
    let process = command.start();
    process.wait_for_line("listening for connections on");
    assert_eq!(
        process.count_lines("warning: landlock"),
        0,
        "{}",
        process.stdout()
    );
    is_confined(&process).then_some(process)
}

/// A server tunnel whose certificate and key are these paths, as written.
fn with_credentials(pki: &Pki, port: &ReservedPort, backend: &Backend, cert: &Path, key: &Path) -> Command {
    let mut command = ghostunnel();
    command
        .args(["server", "--allow-all"])
        .flag("--listen", port.address().to_string())
        .flag("--target", backend.address().to_string())
        .flag("--cacert", &pki.ca_file)
        .flag("--cert", cert)
        .flag("--key", key);
    command
}

/// Asks for a reload and gives its lines.
fn reload(process: &Process) -> Vec<String> {
    let mark = process.mark();
    process.signal(Signal::HUP);
    process.wait_for_line_after(mark, "reloading configuration complete");
    let lines = process.lines();
    lines[mark..].iter().map(|line| line.text().to_owned()).collect()
}

#[track_caller]
fn assert_reloads(process: &Process) {
    let lines = reload(process);
    assert!(
        lines
            .iter()
            .any(|line| line.contains("loaded certificate: CN=server")),
        "{lines:#?}"
    );
}

#[track_caller]
fn assert_serves(pki: &Pki, port: &ReservedPort, identity: &Issued) {
    let client = TlsClient::trusting(&pki.authority).identity(&pki.client);
    let peer = client.connect(&port.address().into()).expect("admitted");
    assert_eq!(peer.facts().peer_certificates, identity.chain());
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).expect("own file");
}

fn new_directory(path: PathBuf) -> PathBuf {
    fs::create_dir(&path).expect("own directory");
    path
}

#[test]
fn relative_paths_are_found_at_start_and_at_reload() {
    let (pki, port) = (Pki::new(), ReservedPort::new());
    let backend = Backend::tcp(Behaviour::Echo);
    let below = new_directory(pki.path("below"));
    for (cert, key, directory) in [
        ("server-cert.pem", "server-key.pem", pki.dir()),
        ("./server-cert.pem", "below/../server-key.pem", pki.dir()),
        ("../server-cert.pem", "../server-key.pem", &below),
    ] {
        let mut command = with_credentials(&pki, &port, &backend, Path::new(cert), Path::new(key));
        let Some(process) = start_confined(command.directory(directory)) else {
            return;
        };
        assert_echoes(&pki, &port.address().into());
        assert_reloads(&process);
    }
}

/// The way container platforms hand out secrets: `tls.crt` leads to `..data/tls.crt`, and
/// `..data` to a directory that changes at each rotation.
#[test]
fn symlink_farms_are_followed_through_their_rotation() {
    let (pki, port) = (Pki::new(), ReservedPort::new());
    let backend = Backend::tcp(Behaviour::Echo);
    // Not below the directory of --cacert, whose rule would cover it.
    let own = private_dir();
    let farm = own.path().to_owned();
    let fill = |version: &str| {
        let issued = pki.authority.issue(&Pki::server_request());
        issued.write_to(&new_directory(farm.join(version)), "tls");
        symlink(version, farm.join("..data.new")).expect("link");
        fs::rename(farm.join("..data.new"), farm.join("..data")).expect("renamed");
        issued
    };
    let first = fill("..1");
    for name in ["tls-cert.pem", "tls-key.pem"] {
        symlink(Path::new("..data").join(name), farm.join(name)).expect("link");
    }
    let (cert, key) = (farm.join("tls-cert.pem"), farm.join("tls-key.pem"));
    let Some(process) = start_confined(&with_credentials(&pki, &port, &backend, &cert, &key)) else {
        return;
    };
    assert_serves(&pki, &port, &first);
    let second = fill("..2");
    fs::remove_dir_all(farm.join("..1")).expect("own directory");
    assert_reloads(&process);
    assert_serves(&pki, &port, &second);
}

#[test]
fn links_to_another_directory_are_followed_and_files_there_may_be_renewed() {
    let (pki, port) = (Pki::new(), ReservedPort::new());
    let (backend, store) = (Backend::tcp(Behaviour::Echo), private_dir());
    let issued = pki.authority.issue(&Pki::server_request());
    let files = issued.write_to(store.path(), "stored");
    let (cert, key) = (pki.path("link-cert"), pki.path("link-key"));
    symlink(&files.certificate, &cert).expect("link");
    symlink(&files.key, &key).expect("link");
    let Some(process) = start_confined(&with_credentials(&pki, &port, &backend, &cert, &key)) else {
        return;
    };
    assert_serves(&pki, &port, &issued);
    let renewed = pki.authority.issue(&Pki::server_request());
    let files = renewed.write_to(store.path(), "renewed");
    fs::rename(&files.certificate, store.path().join("stored-cert.pem")).expect("renamed");
    fs::rename(&files.key, store.path().join("stored-key.pem")).expect("renamed");
    assert_reloads(&process);
    assert_serves(&pki, &port, &renewed);
}

/// Rules hold for the directories found at start. What lies elsewhere later can't be read,
/// the old certificate stays, and the log names the cause.
#[test]
fn directories_found_at_start_are_the_ones_that_count() {
    let retarget = |pki: &Pki, tls: &Path| {
        let elsewhere = private_dir();
        pki.server.write_to(elsewhere.path(), "moved");
        let link = tls.join("new");
        symlink(elsewhere.path().join("moved-cert.pem"), &link).expect("link");
        fs::rename(link, tls.join("tls-cert.pem")).expect("renamed");
        Some(elsewhere)
    };
    let replace = |pki: &Pki, tls: &Path| {
        fs::rename(tls, pki.path("old")).expect("renamed");
        pki.server.write_to(&new_directory(tls.to_owned()), "tls");
        None
    };
    type Change = fn(&Pki, &Path) -> Option<tempfile::TempDir>;
    let changes: [Change; 2] = [retarget, replace];
    for change in changes {
        let (pki, port) = (Pki::new(), ReservedPort::new());
        let backend = Backend::tcp(Behaviour::Echo);
        let tls = new_directory(pki.path("tls-own"));
        let issued = pki.authority.issue(&Pki::server_request());
        let files = issued.write_to(&tls, "tls");
        // Nothing else makes the parent readable.
        let anchors = private_dir();
        let ca = anchors.path().join("ca.pem");
        fs::copy(&pki.ca_file, &ca).expect("copied");
        let mut command = ghostunnel();
        command
            .args(["server", "--allow-all"])
            .flag("--listen", port.address().to_string())
            .flag("--target", backend.address().to_string())
            .flag("--cacert", &ca)
            .flag("--cert", &files.certificate)
            .flag("--key", &files.key);
        let Some(process) = start_confined(&command) else {
            return;
        };
        let _elsewhere = change(&pki, &tls);
        let lines = reload(&process);
        let error = lines
            .iter()
            .find(|line| line.contains("error reloading TLS configuration"));
        let error = error.expect("the files are out of reach");
        assert!(error.contains("permission denied"), "{error}");
        assert!(error.contains("sandbox"), "{error}");
        assert_serves(&pki, &port, &issued);
    }
}

#[test]
fn credentials_may_lie_below_run_and_in_a_home_directory() {
    let home = std::env::var_os("HOME").map(PathBuf::from);
    for place in [Some("/run".into()), home].into_iter().flatten() {
        let Ok(dir) = tempfile::tempdir_in(&place) else {
            skip(&format!("{} is not writable", place.display()));
            continue;
        };
        let (pki, port) = (Pki::new(), ReservedPort::new());
        let backend = Backend::tcp(Behaviour::Echo);
        let files = pki.server.write_to(dir.path(), "tls");
        let command = with_credentials(&pki, &port, &backend, &files.certificate, &files.key);
        let Some(process) = start_confined(&command) else {
            return;
        };
        assert_echoes(&pki, &port.address().into());
        assert_reloads(&process);
    }
}

#[test]
fn sockets_may_lie_in_private_directories() {
    let pki = Pki::new();
    let dirs = [private_dir(), private_dir(), private_dir()];
    let [listen, target, status] = dirs.each_ref().map(|dir| dir.path().join("socket"));
    let backend = Backend::unix(&target, Behaviour::Echo);
    let mut command = server_at(
        &pki,
        &format!("unix:{}", listen.display()),
        &backend.address().to_string(),
    );
    command.flag("--status", format!("unix:{}", status.display()));
    let Some(process) = start_confined(&command) else {
        return;
    };
    let status_address = Address::Unix(status.clone());
    eventually("the backend is seen to be well", || {
        let answer = Endpoint::Http(&status_address).get("/_status");
        answer.is_ok_and(|answer| answer.status == 200)
    });
    assert_echoes(&pki, &Address::Unix(listen.clone()));
    process.signal(Signal::TERM);
    process.wait_exit();
    assert!(!listen.exists() && !status.exists());
}

/// A socket that a killed process left behind is replaced, from inside the sandbox.
#[test]
fn stale_sockets_are_replaced_inside_the_sandbox() {
    let (pki, dir) = (Pki::new(), private_dir());
    let backend = Backend::tcp(Behaviour::Echo);
    let socket = dir.path().join("socket");
    let listen = format!("unix:{}", socket.display());
    let command = server_at(&pki, &listen, &backend.address().to_string());
    let Some(killed) = start_confined(&command) else {
        return;
    };
    killed.signal(Signal::KILL);
    killed.wait_exit();
    assert!(socket.exists());
    let _process = start_confined(&command);
    assert_echoes(&pki, &Address::Unix(socket));
}

#[test]
fn abstract_names_work_at_both_ends() {
    let pki = Pki::new();
    // Abstract names belong to the whole machine; the directory's name is unique.
    let unique = pki.dir().display().to_string();
    let names = ["listen", "target"].map(|end| format!("{unique}/{end}"));
    let [listen, target] = names
        .each_ref()
        .map(|name| UnixAddress::from_abstract_name(name).expect("short"));
    let backend = UnixListener::bind_addr(&target).expect("free");
    let Some(_process) = start_confined(&server_at(
        &pki,
        &format!("unix:@{}", names[0]),
        &format!("unix:@{}", names[1]),
    )) else {
        return;
    };
    let stream = UnixStream::connect_addr(&listen).expect("listening");
    let client = TlsClient::trusting(&pki.authority).identity(&pki.client);
    let mut peer = client.handshake(Plain::from(stream)).expect("admitted");
    peer.write_all(b"hello").expect("open");
    peer.end_writing();
    let accepted = backend.accept().expect("dialled").0;
    let (bytes, _) = read_to_end(&mut Plain::from(accepted));
    assert_eq!(bytes, b"hello");
}

#[test]
fn a_backend_may_appear_after_the_start_and_come_back() {
    let (pki, port, dir) = (Pki::new(), ReservedPort::new(), private_dir());
    let socket = dir.path().join("socket");
    let target = format!("unix:{}", socket.display());
    let Some(_process) = start_confined(&server_at(&pki, &port.address().to_string(), &target)) else {
        return;
    };
    for _ in 0..2 {
        let _backend = Backend::unix(&socket, Behaviour::Echo);
        assert_echoes(&pki, &port.address().into());
    }
}

#[test]
fn a_missing_directory_of_a_unix_target_costs_only_its_own_rule() {
    let (pki, port, dir) = (Pki::new(), ReservedPort::new(), private_dir());
    let later = dir.path().join("later");
    let target = format!("unix:{}", later.join("socket").display());
    let process = server_at(&pki, &port.address().to_string(), &target).start();
    process.wait_for_line("listening for connections on");
    let warning = process.wait_for_line("warning: landlock rule left out");
    assert!(
        warning.contains(&format!("connect {} (--target)", later.display())),
        "{warning}"
    );
    let report = process.wait_for_line("sandbox: landlock");
    let abi = report
        .split_once("abi=")
        .and_then(|(_, rest)| rest.split(' ').next());
    let abi: u32 = abi.and_then(|abi| abi.parse().ok()).unwrap_or_default();
    // From version 9 on the kernel restricts whom one connects to.
    if abi < 9 {
        new_directory(later.clone());
        let _backend = Backend::unix(&later.join("socket"), Behaviour::Echo);
        assert_echoes(&pki, &port.address().into());
    }
}

#[test]
fn ipv6_works_at_every_end() {
    let pki = Pki::new();
    if std::net::TcpListener::bind("[::1]:0").is_err() {
        return skip("no IPv6 here");
    }
    let loopback = std::net::Ipv6Addr::LOCALHOST;
    let (port, status) = (ReservedPort::on(loopback), ReservedPort::on(loopback));
    let backend = Backend::tcp_at((loopback, 0).into(), Behaviour::Echo);
    let mut command = server_at(
        &pki,
        &port.address().to_string(),
        &format!("[::1]:{}", backend.port()),
    );
    command.flag("--status", format!("http://{}", status.address()));
    let Some(_process) = start_confined(&command) else {
        return;
    };
    assert_echoes(&pki, &port.address().into());
    let answer = Endpoint::Http(&status.address().into()).get("/_status");
    assert_eq!(answer.expect("answered").status, 200);
}

#[test]
fn the_port_of_a_target_may_be_the_name_of_a_service() {
    let (pki, port, etc) = (Pki::new(), ReservedPort::new(), private_dir());
    let backend = Backend::tcp(Behaviour::Echo);
    let mut command = server_at(&pki, &port.address().to_string(), "localhost:echo-of-test");
    let services = format!("echo-of-test\t{}/tcp\n", backend.port());
    let files = [
        ("services", services.as_str()),
        ("hosts", "127.0.0.1 localhost\n"),
    ];
    if !with_etc(&mut command, etc.path(), &files) {
        return;
    }
    let Some(_process) = start_confined(&command) else {
        return;
    };
    assert_echoes(&pki, &port.address().into());
}

#[test]
fn names_are_looked_up_in_the_hosts_file_as_the_system_is_told_to() {
    for order in [
        "files",
        "files dns",
        "compat files",
        "dns [!UNAVAIL=continue] files",
    ] {
        let (pki, port, etc) = (Pki::new(), ReservedPort::new(), private_dir());
        let backend = Backend::tcp(Behaviour::Echo);
        let target = format!("backend.test:{}", backend.port());
        let mut command = server_at(&pki, &port.address().to_string(), &target);
        command.arg("--unsafe-target");
        let (switch, nowhere) = (
            format!("hosts: {order}\n"),
            "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n",
        );
        let files = [
            ("hosts", "127.0.0.1 localhost backend.test\n"),
            ("nsswitch.conf", switch.as_str()),
            ("resolv.conf", nowhere),
        ];
        if !with_etc(&mut command, etc.path(), &files) {
            return;
        }
        let Some(_process) = start_confined(&command) else {
            return;
        };
        assert_echoes(&pki, &port.address().into());
        // Each dial looks up anew; the name server's place may be taken by another file.
        fs::write(
            etc.path().join("hosts"),
            "192.0.2.1 nobody.test\n127.0.0.1 backend.test\n",
        )
        .expect("writable");
        assert_echoes(&pki, &port.address().into());
    }
}

#[test]
fn s27_localhost_must_resolve_to_loopback_at_start_and_at_each_dial() {
    let (pki, port, etc) = (Pki::new(), ReservedPort::new(), private_dir());
    let backend = Backend::tcp(Behaviour::Echo);
    let target = format!("localhost:{}", backend.port());
    let mut command = server_at(&pki, &port.address().to_string(), &target);
    let files = [
        ("hosts", "192.0.2.1 localhost\n"),
        ("nsswitch.conf", "hosts: files\n"),
    ];
    if !with_etc(&mut command, etc.path(), &files) {
        return;
    }
    let output = command.run();
    assert!(output.stderr.contains("not a loopback address"), "{output:?}");

    fs::write(etc.path().join("hosts"), "127.0.0.1 localhost\n").expect("writable");
    let process = command.start();
    process.wait_for_line("listening for connections on");
    assert_echoes(&pki, &port.address().into());
    fs::write(etc.path().join("hosts"), "192.0.2.1 localhost\n").expect("writable");
    let client = TlsClient::trusting(&pki.authority).identity(&pki.client);
    let _refused = client.connect(&port.address().into());
    let error = process.wait_for_line("error on dial");
    assert!(
        error.contains("192.0.2.1, which is not a loopback address"),
        "{error}"
    );
}

/// A client tunnel without `--cacert` trusts what the system trusts, and these variables say
/// where that is.
#[test]
fn variables_may_name_the_trust_store() {
    let dirs = [private_dir(), private_dir()];
    let [farm, store] = dirs.each_ref().map(|dir| dir.path());
    let pki = Pki::new();
    let stored = store.join("authority.pem");
    fs::write(&stored, pki.authority.pem()).expect("writable");
    symlink(&stored, farm.join("0123abcd.0")).expect("link");
    for (variable, value) in [("SSL_CERT_FILE", &stored), ("SSL_CERT_DIR", &farm.to_owned())] {
        let tls = TlsServer::new(&pki.server, &ClientCertificates::Unasked);
        let backend = Backend::tls(tls, Behaviour::Echo);
        let port = ReservedPort::new();
        let mut command = ghostunnel();
        command
            .args(["client", "--disable-authentication"])
            .flag("--listen", port.address().to_string())
            .flag("--target", format!("localhost:{}", backend.port()))
            .env("SSL_CERT_FILE", "/nonexistent")
            .env("SSL_CERT_DIR", "/nonexistent")
            .env(variable, value);
        let Some(process) = start_confined(&command) else {
            return;
        };
        for _ in 0..2 {
            let mut peer = Plain::connect(&port.address().into()).expect("listening");
            peer.write_all(b"hello").expect("open");
            peer.end_writing();
            assert_eq!(read_to_end(&mut peer).0, b"hello", "{variable}");
            let lines = reload(&process);
            assert!(!lines.iter().any(|line| line.contains("error")), "{lines:#?}");
        }
    }
}

#[test]
fn client_tunnels_are_confined_alike() {
    let (pki, dir) = (Pki::new(), private_dir());
    let socket = dir.path().join("socket");
    let tls = TlsServer::new(&pki.server, &ClientCertificates::required(&pki.authority));
    let backend = Backend::tls(tls, Behaviour::Echo);
    let command = client_at(
        &pki,
        &format!("unix:{}", socket.display()),
        &format!("localhost:{}", backend.port()),
    );
    let Some(process) = start_confined(&command) else {
        return;
    };
    let mut peer = Plain::connect(&Address::Unix(socket)).expect("listening");
    peer.write_all(b"hello").expect("open");
    peer.end_writing();
    assert_eq!(read_to_end(&mut peer).0, b"hello");
    let lines = reload(&process);
    assert!(
        lines
            .iter()
            .any(|line| line.contains("loaded certificate: CN=client")),
        "{lines:#?}"
    );
}

/// A time zone file (RFC 9636) with one offset for all times.
fn time_zone(east: i32) -> Vec<u8> {
    let mut file = Vec::new();
    for version in [b'2', b'2'] {
        file.extend_from_slice(b"TZif");
        file.push(version);
        file.extend_from_slice(&[0; 15]);
        for count in [0, 0, 0, 0, 1, 4_u32] {
            file.extend_from_slice(&count.to_be_bytes());
        }
        file.extend_from_slice(&east.to_be_bytes());
        file.extend_from_slice(b"\0\0TST\0");
    }
    let (hours, minutes) = (east / 3600, east % 3600 / 60);
    file.extend_from_slice(format!("\n<TST>-{hours:02}:{minutes:02}\n").as_bytes());
    file
}

#[test]
fn the_time_zone_may_be_a_file_that_no_rule_covers() {
    const EAST: i32 = (13 * 60 + 37) * 60;
    let (pki, port, dir) = (Pki::new(), ReservedPort::new(), private_dir());
    let zone = dir.path().join("zone");
    fs::write(&zone, time_zone(EAST)).expect("writable");
    let backend = Backend::tcp(Behaviour::Echo);
    let mut command = server_at(&pki, &port.address().to_string(), &backend.address().to_string());
    let Some(process) = start_confined(command.env("TZ", &zone)) else {
        return;
    };
    let lines = reload(&process);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    let expected = (now.as_secs() / 60 + u64::from(EAST.unsigned_abs()) / 60) % (24 * 60);
    // [PID] YYYY/MM/DD HH:MM:SS.uuuuuu
    let time = lines[0].split(' ').nth(2).expect("a time");
    let mut parts = time
        .split(':')
        .map(|part| part.parse::<u64>().unwrap_or_default());
    let minutes = parts.next().expect("hours") * 60 + parts.next().expect("minutes");
    let apart = minutes.abs_diff(expected);
    assert!(apart <= 1 || apart == 24 * 60 - 1, "{}: {expected}", lines[0]);
}

#[test]
fn an_unprivileged_user_in_a_directory_it_can_not_list_is_served() {
    let (pki, port) = (Pki::new(), ReservedPort::new());
    let backend = Backend::tcp(Behaviour::Echo);
    // Passable, but not readable.
    set_mode(pki.dir(), 0o711);
    let mut command = with_credentials(
        &pki,
        &port,
        &backend,
        Path::new("server-cert.pem"),
        Path::new("server-key.pem"),
    );
    command.directory(pki.dir()).copied_to(pki.dir());
    if !as_nobody(&mut command) {
        return;
    }
    let Some(process) = start_confined(&command) else {
        return;
    };
    assert_echoes(&pki, &port.address().into());
    assert_reloads(&process);
}

#[test]
fn a_working_directory_without_any_right_or_without_a_name_does_not_matter() {
    let (pki, port) = (Pki::new(), ReservedPort::new());
    let backend = Backend::tcp(Behaviour::Echo);
    let closed = private_dir();
    set_mode(pki.dir(), 0o755);
    let files = &pki.server_files;
    let mut command = with_credentials(&pki, &port, &backend, &files.certificate, &files.key);
    command.directory(closed.path()).copied_to(pki.dir());
    set_mode(closed.path(), 0o000);
    if as_nobody(&mut command) {
        let Some(process) = start_confined(&command) else {
            return;
        };
        assert_echoes(&pki, &port.address().into());
        assert_reloads(&process);
    }

    let mut command = with_credentials(&pki, &port, &backend, &files.certificate, &files.key);
    let gone = new_directory(pki.path("gone"));
    command.directory(&gone).through(
        Path::new("/bin/sh"),
        ["-c", "rmdir \"$PWD\" && exec \"$0\" \"$@\""],
    );
    let Some(process) = start_confined(&command) else {
        return;
    };
    assert!(!gone.exists());
    assert_echoes(&pki, &port.address().into());
    assert_reloads(&process);
}
