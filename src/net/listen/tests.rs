//! Listeners of every kind, opened, accepted from and closed.

use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixListener;
use std::time::Duration;

use super::*;

fn address(text: &str) -> ListenAddr {
    ListenAddr::parse(text, Reach::Anywhere).expect(text)
}

fn open(text: &str) -> Listener {
    address(text)
        .bind(&mut Inherited::default())
        .expect(text)
        .listen()
        .expect(text)
}

fn failure(text: &str) -> String {
    address(text)
        .bind(&mut Inherited::default())
        .and_then(Bound::listen)
        .expect_err(text)
        .to_string()
}

#[test]
fn a_bound_port_refuses_until_it_listens() {
    let bound = address("127.0.0.1:0")
        .bind(&mut Inherited::default())
        .expect("bind");
    let port = bound.port().expect("port");
    assert_ne!(port, 0);
    let refused = std::net::TcpStream::connect(("127.0.0.1", port)).expect_err("not listening");
    assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    let listener = bound.listen().expect("listen");
    assert_eq!(listener.address(), format!("127.0.0.1:{port}"));
    std::net::TcpStream::connect(("127.0.0.1", port)).expect("listening");
}

#[test]
fn hosts_choose_the_expected_address() {
    for (text, starts_with) in [
        (":0", "0.0.0.0:"),
        ("localhost:0", "127.0.0.1:"),
        ("localhost:", "127.0.0.1:"),
        ("[::]:0", "[::]:"),
    ] {
        let Ok(bound) = address(text).bind(&mut Inherited::default()) else {
            assert!(text.starts_with('['), "{text}");
            eprintln!("SKIPPED: no IPv6 here");
            continue;
        };
        let listener = bound.listen().expect(text);
        assert!(
            listener.address().starts_with(starts_with),
            "{text}: {}",
            listener.address()
        );
    }
}

#[test]
fn two_listeners_of_one_user_may_share_a_port() {
    let first = open("127.0.0.1:0");
    let second = open(&first.address());
    assert_eq!(first.address(), second.address());
}

#[test]
fn refusals_keep_the_phrase_and_say_what_to_change() {
    let holder = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
    let taken = holder.local_addr().expect("address").to_string();
    for (text, message) in [
        (
            taken.as_str(),
            format!(
                "listen tcp {taken}: bind: address already in use \
                 (another process listens there; stop it or choose another port)"
            ),
        ),
        (
            "192.0.2.1:1",
            "listen tcp 192.0.2.1:1: bind: cannot assign requested address \
             (no network interface of this machine has this address)"
                .to_owned(),
        ),
        (
            "127.0.0.1:99999",
            "listen tcp: address 99999: invalid port".to_owned(),
        ),
        (
            "unix:/no/such/dir/s",
            "listen unix /no/such/dir/s: bind: no such file or directory (the directory must exist)"
                .to_owned(),
        ),
    ] {
        assert_eq!(failure(text), message);
    }
    let denied = ListenError::Tcp {
        address: "127.0.0.1:80".parse().expect("address"),
        call: "bind",
        error: Errno::ACCESS.into(),
    };
    assert_eq!(
        denied.to_string(),
        "listen tcp 127.0.0.1:80: bind: permission denied \
         (ports below 1024 need the capability CAP_NET_BIND_SERVICE)"
    );
}

#[test]
fn a_path_may_have_107_bytes() {
    let folder = tempfile::tempdir().expect("folder");
    let fill = |length: usize| {
        let start = format!("{}/", folder.path().display());
        format!("{start}{}", "x".repeat(length - start.len()))
    };
    open(&format!("unix:{}", fill(107)));
    let long = format!("unix:{}", fill(108));
    let error = address(&long)
        .bind(&mut Inherited::default())
        .expect_err("too long")
        .to_string();
    assert!(
        error.contains("bind: invalid argument (the name is too long"),
        "{error}"
    );
}

#[test]
fn a_path_appears_with_listen_and_goes_with_the_listener() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("s");
    let text = format!("unix:{}", path.display());
    let bound = address(&text).bind(&mut Inherited::default()).expect("bind");
    assert_eq!(bound.port(), None);
    assert!(!path.exists());
    let listener = bound.listen().expect("listen");
    assert_eq!(listener.address(), text);
    assert!(path.exists());
    listener.close();
    assert!(!path.exists());
}

#[test]
fn a_path_that_somebody_else_took_over_is_not_removed() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("s");
    let listener = open(&format!("unix:{}", path.display()));
    // A file beside it first, so that the new socket can't get the old inode.
    fs::rename(&path, folder.path().join("old")).expect("rename");
    let successor = UnixListener::bind(&path).expect("bind");
    let inode = fs::metadata(&path).expect("socket").ino();
    listener.close();
    assert_eq!(fs::metadata(&path).expect("still there").ino(), inode);
    drop(successor);
}

#[test]
fn a_dead_socket_is_replaced_but_nothing_else_is() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("s");
    let text = format!("unix:{}", path.display());
    drop(UnixListener::bind(&path).expect("bind"));
    assert!(path.exists());
    let live = open(&text);
    assert_eq!(
        failure(&text),
        format!(
            "listen unix {}: bind: address already in use (another process uses this socket)",
            path.display()
        )
    );
    live.close();
    fs::write(&path, "precious").expect("write");
    assert!(failure(&text).contains("address already in use (a file that is no socket is in the way)"));
    assert_eq!(fs::read_to_string(&path).expect("read"), "precious");
}

#[test]
fn abstract_names_leave_no_file() {
    let name = format!("unix:@ghostunnel-listen-{}", std::process::id());
    assert_eq!(open(&name).address(), name);
    let chosen = open("unix:").address();
    assert!(
        chosen.starts_with("unix:@") && chosen.len() > "unix:@".len(),
        "{chosen}"
    );
}

#[tokio::test]
async fn an_accepted_connection_has_labels_and_options() {
    for text in ["127.0.0.1:0", ":0"] {
        let acceptor = open(text).into_acceptor().expect("acceptor");
        let port = acceptor
            .address()
            .rsplit_once(':')
            .expect("port")
            .1
            .parse()
            .expect("port");
        let client = std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("connect");
        let accepted = acceptor.accept().await.expect("accept");
        assert_eq!(accepted.local().to_string(), format!("tcp:127.0.0.1:{port}"));
        assert_eq!(
            accepted.peer().to_string(),
            format!("tcp:{}", client.local_addr().expect("address"))
        );
        let socket = accepted.socket.try_clone().expect("clone");
        let stream = accepted.into_stream().expect("stream");
        assert_eq!(stream.local().to_string(), format!("tcp:127.0.0.1:{port}"));
        assert!(socket.tcp_nodelay().expect("option"));
        assert!(socket.keepalive().expect("option"));
        assert_eq!(
            socket.tcp_keepalive_time().expect("option"),
            Duration::from_secs(15)
        );
        assert_eq!(
            socket.tcp_keepalive_interval().expect("option"),
            Duration::from_secs(15)
        );
        assert_eq!(socket.tcp_keepalive_retries().expect("option"), 9);
        assert!(socket.nonblocking().expect("option"));
    }
}

#[tokio::test]
async fn unix_peers_are_accepted_and_the_path_goes_with_the_acceptor() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("s");
    let acceptor = open(&format!("unix:{}", path.display()))
        .into_acceptor()
        .expect("acceptor");
    let client = std::os::unix::net::UnixStream::connect(&path).expect("connect");
    let accepted = acceptor.accept().await.expect("accept");
    assert_eq!(accepted.to_string(), format!("unix:@ -> unix:{}", path.display()));
    accepted.into_stream().expect("stream");
    drop(client);
    assert_eq!(
        acceptor.accept_error_text(&Errno::MFILE.into()),
        format!("accept unix {}: accept4: too many open files", path.display())
    );
    acceptor.close();
    assert!(!path.exists());
}

#[test]
fn connections_can_be_handed_to_another_thread_and_stay_small() {
    fn is_send<T: Send>() {}
    is_send::<Listener>();
    is_send::<Accepted>();
    assert!(size_of::<Stream>() <= 128, "{}", size_of::<Stream>());
}

#[tokio::test]
async fn accept_waits_for_the_next_connection() {
    let acceptor = open("127.0.0.1:0").into_acceptor().expect("acceptor");
    let target = acceptor.address();
    for _ in 0..3 {
        let connect = tokio::net::TcpStream::connect(target.clone());
        let (accepted, client) = tokio::join!(acceptor.accept(), connect);
        let client = client.expect("connect").local_addr().expect("address");
        assert_eq!(accepted.expect("accept").peer(), &Label::Tcp(client));
    }
    assert_eq!(
        acceptor.accept_error_text(&Errno::MFILE.into()),
        format!("accept tcp {target}: accept4: too many open files")
    );
}
