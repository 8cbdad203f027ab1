//! Where a tunnel listens, where it leads, and whose name it expects there.

use super::*;

#[test]
fn a_servers_target_stays_on_the_machine_unless_told_otherwise() {
    let local = "--target must be unix:PATH or localhost:PORT (unless --unsafe-target is set)";
    let server = |rest: &str| format!("server --listen=localhost:1 --keystore=s --allow-all {rest}");
    for target in [
        "example.com:1",
        "127.0.0.2:1",
        "LOCALHOST:1",
        ":1",
        "0.0.0.0:1",
        "[::]:1",
        "::1:1",
        "foo",
        "",
    ] {
        assert_refused(&server(""), &[(&format!("--target={target}"), local)]);
    }
    for target in [
        "localhost:1",
        "localhost:http",
        "127.0.0.1:1",
        "[::1]:1",
        "unix:/x",
        "unix:@x",
    ] {
        assert_eq!(
            tunnel(&server(&format!("--target={target}"))).target.text(),
            target
        );
    }
    assert_eq!(
        tunnel(&server("--unsafe-target --target=example.com:1"))
            .target
            .text(),
        "example.com:1"
    );
    let network = |word| {
        format!(
            "invalid --target network {word:?}: only tcp and unix targets are supported (systemd:/launchd: cannot be \
             dialed)"
        )
    };
    assert_refused(
        &server(""),
        &[
            ("--target=systemd:x", &network("systemd")),
            ("--target=launchd:x --unsafe-target", &network("launchd")),
            (
                "--unsafe-target --target=example.com",
                "invalid --target address: address example.com: missing port in address",
            ),
            (
                "--unsafe-target --target=a:b:c",
                "invalid --target address: address a:b:c: too many colons in address",
            ),
            (
                "--unsafe-target --target=",
                "invalid --target address: missing port in address",
            ),
        ],
    );
}

#[test]
fn a_client_listens_on_the_machine_unless_told_otherwise() {
    let local = "--listen must be unix:PATH, localhost:PORT, systemd:NAME or launchd:NAME (unless --unsafe-listen is \
                 set)";
    let client = |rest: &str| format!("client --target=example.com:2 --keystore=s {rest}");
    for listen in ["0.0.0.0:1", ":1", "LOCALHOST:1", "127.0.0.2:1", "foo", ""] {
        assert_refused(&client(""), &[(&format!("--listen={listen}"), local)]);
    }
    assert_eq!(tunnel(&client("--unsafe-listen --listen=:1")).listen.text(), ":1");
    for listen in ["unix:/x", "systemd:x"] {
        assert_eq!(
            tunnel(&client(&format!("--listen={listen}"))).listen.text(),
            listen
        );
    }
}

#[test]
fn listen_addresses_are_checked_for_shape_and_port() {
    let server = "server --target=localhost:2 --keystore=s --allow-all";
    assert_refused(
        server,
        &[
            (
                "--listen=foo",
                "invalid --listen address: address foo: missing port in address",
            ),
            ("--listen=", "invalid --listen address: missing port in address"),
            (
                "--listen=::1:5",
                "invalid --listen address: address ::1:5: too many colons in address",
            ),
            (
                "--listen=localhost:99999",
                "invalid --listen address: address 99999: invalid port",
            ),
            (
                "--listen=localhost:nosuch",
                "invalid --listen address: lookup tcp/nosuch: unknown port",
            ),
            (
                "--listen=launchd:x",
                "launchd socket activation is only supported on darwin",
            ),
            (
                "--listen=systemd:x --status=systemd:x",
                "--listen and --status cannot both use systemd:x: give the sockets different names \
                 (FileDescriptorName=)",
            ),
        ],
    );
    for listen in [
        ":1",
        "localhost:",
        "[::]:https",
        "0.0.0.0:443",
        "unix:",
        "unix:/x",
        "systemd:x",
        "systemd:",
        "systemd:x --status=systemd:y",
    ] {
        let (listen, more) = listen.split_once(' ').unwrap_or((listen, ""));
        assert_eq!(
            tunnel(&format!("{server} --listen={listen} {more}"))
                .listen
                .text(),
            listen
        );
    }
    assert_refused(
        "client --target=example.com:2 --keystore=s",
        &[
            (
                "--listen=localhost:99999",
                "invalid --listen address: address 99999: invalid port",
            ),
            (
                "--listen=launchd:x",
                "launchd socket activation is only supported on darwin",
            ),
        ],
    );
}

#[test]
fn a_clients_target_is_any_host_or_a_unix_socket() {
    let client = "client --listen=localhost:1 --keystore=s --override-server-name=x";
    assert_refused(
        client,
        &[
            (
                "--target=foo",
                "invalid --target address: address foo: missing port in address",
            ),
            (
                "--target=a:b:c",
                "invalid --target address: address a:b:c: too many colons in address",
            ),
            (
                "--target=systemd:x",
                "invalid --target network \"systemd\": client mode requires a HOST:PORT TCP target",
            ),
        ],
    );
    assert_eq!(
        tunnel(&format!("{client} --target=unix:/x")).target.text(),
        "unix:/x"
    );
}

#[test]
fn the_server_name_is_the_targets_host_unless_overridden() {
    let name = |words: &str| match &tunnel(&format!("client --listen=localhost:1 --keystore=s {words}")).mode
    {
        Mode::Client { server_name, .. } => server_name.text.clone(),
        Mode::Server { .. } => panic!("{words}: a server"),
    };
    for (words, expected) in [
        ("--target=Example.com:443", "Example.com"),
        ("--target=127.0.0.1:443", "127.0.0.1"),
        ("--target=[::1]:443", "::1"),
        ("--target=[fe80::1%eth0]:443", "fe80::1"),
        ("--target=example.com:443 --override-server-name=", "example.com"),
        ("--target=example.com:443 --override-server-name=Other", "Other"),
        ("--target=example.com:443 --override-server-name=[::1]", "::1"),
        ("--target=:443 --override-server-name=a", "a"),
        ("--target=unix:x --override-server-name=a", "a"),
    ] {
        assert_eq!(name(words), expected, "{words}");
    }
    let text = |target| {
        format!(
            "--target {target} does not name the server: give the name in its certificate with --override-server-name"
        )
    };
    assert_refused(
        "client --listen=localhost:1 --keystore=s",
        &[
            ("--target=:443", &text(":443")),
            (
                "--target=unix:/x",
                "invalid --target network \"unix\": client mode requires a HOST:PORT TCP target (or, with unix:PATH, \
                 --override-server-name and the name in the server's certificate)",
            ),
        ],
    );
}

#[test]
fn a_clients_target_may_be_reached_through_a_proxy() {
    let proxy = |words: &str| {
        let tunnel = tunnel(&format!("{CLIENT} --keystore=s {words}"));
        let proxy = tunnel.target.proxy()?;
        Some((proxy.to_string(), proxy.address().to_string()))
    };
    assert_eq!(proxy(""), None);
    for (words, url, address) in [
        ("--proxy=http://p", "http://p", "p:8080"),
        ("--proxy HTTP://p:1/x", "HTTP://p:1/x", "p:1"),
        ("--connect-proxy=socks5h://p", "socks5h://p", "p:1080"),
        (
            "--proxy=http://p --connect-proxy=socks5://q",
            "socks5://q",
            "q:1080",
        ),
        (
            "--connect-proxy=socks5://q --proxy=http://p",
            "http://p",
            "p:8080",
        ),
        ("--proxy=http://u:secret@p", "http://u:xxxxx@p", "p:8080"),
    ] {
        assert_eq!(
            proxy(words),
            Some((url.to_owned(), address.to_owned())),
            "{words}"
        );
    }
    assert_eq!(
        run(&format!("{CLIENT} --keystore=s --connect-proxy=http://p")).warnings,
        ["--connect-proxy is deprecated: use --proxy"]
    );
    let scheme = |scheme| format!("error configuring proxy: proxy: unknown scheme: {scheme}");
    assert_refused(
        &format!("{CLIENT} --keystore=s"),
        &[
            ("--proxy=", &scheme("")),
            ("--proxy=foo", &scheme("")),
            ("--proxy=https://p", &scheme("https")),
            ("--proxy=SOCKS4://p", &scheme("socks4")),
            ("--proxy=localhost:3128", &scheme("localhost")),
            (
                "--proxy=https://p --verify-uri=",
                "invalid URI pattern in --verify-uri flag (input pattern was empty string)",
            ),
        ],
    );
    assert_refused(
        "client --listen=localhost:1 --target=unix:/x --override-server-name=x --keystore=s",
        &[(
            "--proxy=http://p",
            "invalid --target network \"unix\": client mode requires a HOST:PORT TCP target",
        )],
    );
    for (words, text) in [
        (
            "--proxy=127.0.0.1:3128",
            "--proxy: invalid URL: parse \"127.0.0.1:3128\": first path segment in URL cannot contain colon",
        ),
        (
            "--connect-proxy=http://u:secret@p:x",
            "--connect-proxy: invalid URL: parse \"http://u:xxxxx@p:x\": invalid port \":x\" after host",
        ),
        (
            "--proxy=http://p --proxy=http://p",
            "flag 'proxy' cannot be repeated",
        ),
    ] {
        assert_eq!(
            parse_words(&format!("{CLIENT} {words}")).map(|_| ()),
            Err(format!("ghostunnel: error: {text}, try --help")),
            "{words}"
        );
    }
}
