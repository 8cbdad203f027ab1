//! Which files and ports a configuration needs, and why.
//!
//! The list of places follows Ghostunnel 1.11.1, so that a deployment that works there
//! works here, but grants less in them. TCP sockets are bound before the sandbox is
//! entered: no right to bind is left over.

mod token;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::config::{Config, Mode, Tunnel};
use crate::credentials::{Identity, Password, Trust};
use crate::net::{HostPort, Kind, ListenAddr, ListenKind, TargetAddr, UnixName};
use crate::sandbox::{self, Access, FileRule, Plan, PortRule, Skipped};

/// What a plan depends on beside the configuration.
#[derive(Debug, Clone)]
pub struct Environment<F> {
    /// `SSL_CERT_FILE`: replaces the system's bundle of trust anchors.
    pub ssl_cert_file: Option<OsString>,
    /// `SSL_CERT_DIR`: replaces the system's directories of trust anchors, separated by
    /// colons.
    pub ssl_cert_dir: Option<OsString>,
    /// Variables by which PKCS#11 modules find their files, as far as they are set.
    pub module_variables: Vec<(&'static str, OsString)>,
    /// Where relative paths start.
    pub current_dir: PathBuf,
    /// The program's own file, if it can be told.
    pub executable: Option<PathBuf>,
    /// The file system.
    pub files: F,
}

/// What a plan asks of the file system.
pub trait Files {
    /// The path with all symbolic links resolved, if it exists.
    fn real_path(&self, path: &Path) -> Option<PathBuf>;
    /// The contents of a file, if it is text.
    fn text(&self, path: &Path) -> Option<String>;
    /// What is in a directory, if it can be listed.
    fn entries(&self, directory: &Path) -> Vec<PathBuf>;
}

/// The file system itself.
#[derive(Debug, Clone, Copy)]
pub struct SystemFiles;

impl Files for SystemFiles {
    fn real_path(&self, path: &Path) -> Option<PathBuf> {
        std::fs::canonicalize(path).ok()
    }

    fn text(&self, path: &Path) -> Option<String> {
        /// Configurations of modules are a page long.
        const LIMIT: u64 = 64 * 1024;
        let file = std::fs::File::open(path).ok()?;
        let mut text = String::new();
        file.take(LIMIT).read_to_string(&mut text).ok()?;
        Some(text)
    }

    fn entries(&self, directory: &Path) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(directory).into_iter().flatten();
        entries.flatten().map(|entry| entry.path()).collect()
    }
}

impl Environment<SystemFiles> {
    /// The environment of this process.
    pub fn of_process() -> Self {
        Self {
            ssl_cert_file: std::env::var_os("SSL_CERT_FILE"),
            ssl_cert_dir: std::env::var_os("SSL_CERT_DIR"),
            module_variables: token::VARIABLES
                .iter()
                .filter_map(|name| Some((*name, std::env::var_os(name)?)))
                .collect(),
            current_dir: std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/")),
            executable: std::env::current_exe().ok(),
            files: SystemFiles,
        }
    }
}

/// What this configuration needs, in this environment.
pub fn plan<F: Files>(config: &Config, environment: &Environment<F>) -> Plan {
    let mut draft = Draft {
        environment,
        plan: Plan::default(),
    };
    draft.system();
    draft.trust_variables();
    draft.connect(53, "name service over TCP");
    for tunnel in &config.tunnels {
        draft.listener("--listen", &tunnel.listen);
        draft.target("--target", &tunnel.target);
        draft.identity(&tunnel.credentials.identity);
        draft.trust(&tunnel.credentials.trust);
        draft.target_status(tunnel);
    }
    if let Some(status) = &config.status {
        draft.listener("--status", &status.listen);
        if let (Some(_), Some(executable)) = (&status.profiles, &environment.executable) {
            // Names of functions are read from it. The file, not its directory.
            draft.allow(executable, Access::Read, "--enable-pprof", true);
        }
    }
    if let Some(address) = config.metrics.graphite {
        draft.connect(address.port(), "--metrics-graphite");
    }
    if let Some(url) = &config.metrics.post {
        draft.target("--metrics-url", url.target());
    }
    draft.allowed_by_name(&config.sandbox);
    draft.plan
}

/// Directories that the program and its libraries read and write on any system.
const READ_WRITE: [(&str, &str); 5] = [
    ("/dev", "devices and the system log"),
    ("/run", "sockets of system services"),
    ("/var/run", "sockets of system services"),
    ("/proc", "state of this process"),
    ("/tmp", "temporary files"),
];

/// Directories that the program and its libraries read on any system.
///
/// The C library loads its name service modules when the first name is looked up,
/// which is after the sandbox was entered.
const READ: [(&str, &str); 10] = [
    ("/sys", "state of the system"),
    ("/etc", "system configuration"),
    ("/usr/share/zoneinfo", "time zones"),
    ("/usr/share/ca-certificates", "trust anchors of the system"),
    ("/usr/local/share/ca-certificates", "trust anchors of the system"),
    ("/var/lib/ca-certificates", "trust anchors of the system"),
    ("/lib", "name service modules"),
    ("/lib64", "name service modules"),
    ("/usr/lib", "name service modules"),
    ("/usr/lib64", "name service modules"),
];

/// Where systems keep their bundle of trust anchors. Mostly below `/etc`, but as a
/// symbolic link to somewhere else on some.
const SYSTEM_BUNDLES: [&str; 6] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/tls/cacert.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Where systems keep trust anchors one by one, often as symbolic links.
const SYSTEM_ANCHORS: [&str; 2] = ["/etc/ssl/certs", "/etc/pki/tls/certs"];

struct Draft<'a, F> {
    environment: &'a Environment<F>,
    plan: Plan,
}

impl<F: Files> Draft<'_, F> {
    fn system(&mut self) {
        for (path, why) in READ_WRITE {
            self.allow(Path::new(path), Access::ReadWrite, why, true);
        }
        for (path, why) in READ {
            self.allow(Path::new(path), Access::Read, why, true);
        }
        self.allow(
            Path::new("/var/lib/sss/pipes"),
            Access::Connect,
            "name service of SSSD",
            true,
        );
    }

    fn trust_variables(&mut self) {
        let environment = self.environment;
        if let Some(file) = environment.ssl_cert_file.as_ref().filter(|file| !file.is_empty()) {
            self.file(Path::new(file), "SSL_CERT_FILE", true);
        }
        let directories = environment
            .ssl_cert_dir
            .iter()
            .flat_map(|list| list.as_bytes().split(|b| *b == b':'));
        for directory in directories.filter(|directory| !directory.is_empty()) {
            self.anchors(Path::new(std::ffi::OsStr::from_bytes(directory)), "SSL_CERT_DIR");
        }
    }

    /// What the operator has named.
    fn allowed_by_name(&mut self, settings: &sandbox::Settings) {
        for (paths, access, why) in [
            (&settings.read, Access::Read, "--sandbox-allow-read"),
            (&settings.write, Access::ReadWrite, "--sandbox-allow-write"),
        ] {
            for path in paths {
                let path = self.absolute(path);
                self.allow(&path, access, why, false);
            }
        }
        for port in &settings.connect_ports {
            self.connect(*port, "--sandbox-allow-connect");
        }
    }

    fn identity(&mut self, identity: &Identity) {
        match identity {
            Identity::Pair { cert, key, password } => {
                self.file(cert, "--cert", false);
                self.file(key, "--key", false);
                self.password(password);
            }
            Identity::Keystore { path, password } => {
                self.file(path, "--keystore", false);
                self.password(password);
            }
            Identity::WorkloadApi(settings) => {
                self.target("--use-workload-api-addr", settings.endpoint.target());
            }
            Identity::Pkcs11(settings) => self.token(settings),
            Identity::None => {}
        }
    }

    fn password(&mut self, password: &Password) {
        match password {
            Password::File(path) => self.file(path, "--storepass-file", false),
            Password::None | Password::Given(_) => {}
        }
    }

    fn trust(&mut self, trust: &Trust) {
        match trust {
            Trust::Bundle(path) => self.file(path, "--cacert", false),
            Trust::System => {
                for bundle in SYSTEM_BUNDLES {
                    self.file(Path::new(bundle), "trust anchors of the system", true);
                }
                for directory in SYSTEM_ANCHORS {
                    self.anchors(Path::new(directory), "trust anchors of the system");
                }
            }
        }
    }

    /// The request goes to the target, so the port of its URL is none to connect to.
    fn target_status(&mut self, tunnel: &Tunnel) {
        if let Mode::Server {
            target_status: Some(url),
            ..
        } = &tunnel.mode
            && url.tls_name().is_some()
        {
            self.trust(&Trust::System);
        }
    }

    /// TCP listeners are bound already, and so is what was inherited. A socket file is made and removed later.
    fn listener(&mut self, why: &'static str, address: &ListenAddr) {
        match address.kind() {
            ListenKind::Address(Kind::Unix(UnixName::Path(path))) => {
                let directory = self.directory(path);
                self.allow(&directory, Access::Listen, why, false);
            }
            ListenKind::Address(Kind::Unix(UnixName::Abstract(_) | UnixName::Unnamed) | Kind::Tcp(_))
            | ListenKind::Inherited(_) => {}
        }
    }

    /// A socket's directory rather than the socket, for its server may make it anew.
    fn target(&mut self, why: &'static str, address: &TargetAddr) {
        match address.kind() {
            Kind::Unix(UnixName::Path(path)) => {
                let directory = self.directory(path);
                self.allow(&directory, Access::Connect, why, false);
            }
            Kind::Unix(UnixName::Abstract(_) | UnixName::Unnamed) => {}
            Kind::Tcp(tcp) => match address.proxy() {
                None => self.port(tcp, address.text(), why),
                Some(proxy) => self.port(proxy.address(), &proxy.to_string(), "--proxy"),
            },
        }
    }

    fn port(&mut self, address: &HostPort, text: &str, why: &'static str) {
        match address.port_number() {
            Ok(0) => self.skip(text, why, "nothing can listen on port 0".to_owned()),
            Ok(port) => self.connect(port, why),
            Err(error) => self.skip(text, why, error.to_string()),
        }
    }

    /// A file that is replaced by renaming another one to its name, or that is a
    /// symbolic link: its directory, and the directory it leads to today.
    fn file(&mut self, path: &Path, why: &'static str, is_optional: bool) {
        let directory = self.directory(path);
        self.allow(&directory, Access::Read, why, is_optional);
        let path = self.absolute(path);
        if let Some(real) = self
            .environment
            .files
            .real_path(&path)
            .filter(|real| *real != path)
        {
            let directory = self.directory(&real);
            self.allow(&directory, Access::Read, why, is_optional);
        }
    }

    /// A directory of trust anchors, and the directories its links lead to.
    fn anchors(&mut self, directory: &Path, why: &'static str) {
        let directory = self.absolute(directory);
        self.allow(&directory, Access::Read, why, true);
        let files = &self.environment.files;
        let entries = files.entries(&directory);
        let found = entries.iter().filter_map(|entry| files.real_path(entry));
        let found: BTreeSet<PathBuf> = found.filter_map(|real| Some(real.parent()?.to_owned())).collect();
        for directory in found {
            self.allow(&directory, Access::Read, why, true);
        }
    }

    fn directory(&self, path: &Path) -> PathBuf {
        let path = self.absolute(path);
        path.parent().map_or_else(|| path.clone(), Path::to_owned)
    }

    fn absolute(&self, path: &Path) -> PathBuf {
        self.environment.current_dir.join(path)
    }

    fn allow(&mut self, path: &Path, access: Access, why: &'static str, is_optional: bool) {
        let known = self
            .plan
            .files
            .iter_mut()
            .find(|rule| rule.path == path && rule.access == access);
        match known {
            Some(rule) => rule.is_optional &= is_optional,
            None => self.plan.files.push(FileRule {
                path: path.to_owned(),
                access,
                why,
                is_optional,
            }),
        }
    }

    fn connect(&mut self, port: u16, why: &'static str) {
        if !self.plan.connect_ports.iter().any(|rule| rule.port == port) {
            self.plan.connect_ports.push(PortRule { port, why });
        }
    }

    fn skip(&mut self, what: &str, why: &'static str, reason: String) {
        self.plan.skipped.push(Skipped {
            what: what.to_owned(),
            why,
            reason,
        });
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::config::ClientAuth;
    use crate::credentials::workload_api;
    use crate::net::{ForwardProxy, HttpUrl, Reach, Url};
    use crate::{authorization, credentials, lifecycle, metrics, proxy, status};

    /// Symbolic links and directory listings; every other path exists as it is.
    #[derive(Clone, Default)]
    pub(super) struct Imagined {
        pub(super) links: BTreeMap<&'static str, &'static str>,
        pub(super) texts: BTreeMap<&'static str, &'static str>,
        pub(super) entries: BTreeMap<&'static str, Vec<&'static str>>,
    }

    impl Files for Imagined {
        fn real_path(&self, path: &Path) -> Option<PathBuf> {
            let target = self.links.get(path.to_str()?);
            Some(target.map_or_else(|| path.to_owned(), PathBuf::from))
        }

        fn text(&self, path: &Path) -> Option<String> {
            Some((*self.texts.get(path.to_str()?)?).to_owned())
        }

        fn entries(&self, directory: &Path) -> Vec<PathBuf> {
            let entries = directory
                .to_str()
                .and_then(|directory| self.entries.get(directory));
            entries.into_iter().flatten().map(PathBuf::from).collect()
        }
    }

    pub(super) fn environment(files: Imagined) -> Environment<Imagined> {
        Environment {
            ssl_cert_file: None,
            ssl_cert_dir: None,
            module_variables: Vec::new(),
            current_dir: "/here".into(),
            executable: Some("/bin/ghostunnel".into()),
            files,
        }
    }

    fn config(listen: &str, target: &str, status: Option<&str>) -> Config {
        let listen_addr = |text: &str| ListenAddr::parse(text, Reach::Anywhere).expect("listen");
        let tunnel = Tunnel {
            listen: listen_addr(listen),
            target: TargetAddr::parse(target, Reach::Anywhere).expect("target"),
            resolve_at_start: false,
            mode: Mode::Server {
                client_auth: ClientAuth::Required(authorization::Rules::default()),
                header: None,
                announcers: None,
                target_status: None,
            },
            credentials: credentials::Selection {
                identity: Identity::None,
                trust: Trust::Bundle("/ca/bundle.pem".into()),
            },
            tls: crate::tls::Options::default(),
            limits: proxy::Limits {
                connect_timeout: Duration::ZERO,
                close_timeout: Duration::ZERO,
                max_lifetime: None,
                max_concurrent: None,
            },
        };
        Config {
            tunnels: vec![Arc::new(tunnel)],
            status: status.map(|text| status::Settings {
                listen: listen_addr(text),
                transport: status::Transport::Http,
                enable_shutdown: false,
                profiles: None,
                stays_open: false,
            }),
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

    pub(super) fn with_credentials(identity: Identity, trust: Trust) -> Config {
        let mut config = config("127.0.0.1:1", "127.0.0.1:2", None);
        let mut tunnel = Tunnel::clone(&config.tunnels[0]);
        tunnel.credentials = credentials::Selection { identity, trust };
        config.tunnels = vec![Arc::new(tunnel)];
        config
    }

    /// The rules beyond those that every configuration gets, as `access path`.
    pub(super) fn own_rules(plan: &Plan) -> Vec<String> {
        let own = plan.files.iter().filter(|rule| {
            !READ_WRITE
                .iter()
                .chain(&READ)
                .any(|(path, _)| rule.path == Path::new(path))
                && rule.path != Path::new("/var/lib/sss/pipes")
                && rule.path != Path::new("/ca")
        });
        own.map(|rule| format!("{} {}", rule.access, rule.path.display()))
            .collect()
    }

    fn ports(plan: &Plan) -> Vec<u16> {
        plan.connect_ports.iter().map(|rule| rule.port).collect()
    }

    #[test]
    fn addresses_get_what_they_need_and_no_more() {
        struct Case {
            addresses: (&'static str, &'static str, Option<&'static str>),
            files: &'static [&'static str],
            connect: &'static [u16],
            skipped: &'static [&'static str],
        }
        let cases = [
            Case {
                addresses: ("0.0.0.0:8443", "127.0.0.1:8080", Some("localhost:6060")),
                files: &[],
                connect: &[53, 8080],
                skipped: &[],
            },
            Case {
                addresses: ("localhost:0", "localhost:http", Some("localhost:")),
                files: &[],
                connect: &[53, 80],
                skipped: &[],
            },
            Case {
                addresses: ("localhost:1", "localhost:0", None),
                files: &[],
                connect: &[53],
                skipped: &["localhost:0 (--target): nothing can listen on port 0"],
            },
            Case {
                addresses: ("localhost:1", "localhost:", None),
                files: &[],
                connect: &[53],
                skipped: &["localhost: (--target): nothing can listen on port 0"],
            },
            Case {
                addresses: ("localhost:1", "localhost:nosuch", None),
                files: &[],
                connect: &[53],
                skipped: &["localhost:nosuch (--target): lookup tcp/nosuch: unknown port"],
            },
            Case {
                addresses: ("unix:/srv/in/a.sock", "unix:/srv/out/b.sock", Some("unix:s.sock")),
                files: &["listen /srv/in", "connect /srv/out", "listen /here"],
                connect: &[53],
                skipped: &[],
            },
            Case {
                addresses: ("systemd:in", "unix:@out", Some("systemd:status")),
                files: &[],
                connect: &[53],
                skipped: &[],
            },
            Case {
                addresses: ("unix:@in", "unix:@out", Some("unix:")),
                files: &[],
                connect: &[53],
                skipped: &[],
            },
            Case {
                addresses: ("unix:/srv/a.sock", "[::1]:53", Some("unix:/srv/b.sock")),
                files: &["listen /srv"],
                connect: &[53],
                skipped: &[],
            },
        ];
        for Case {
            addresses: (listen, target, status),
            files,
            connect,
            skipped,
        } in cases
        {
            let plan = plan(&config(listen, target, status), &environment(Imagined::default()));
            assert_eq!(own_rules(&plan), files, "{listen} {target}");
            assert_eq!(ports(&plan), connect, "{listen} {target}");
            assert_eq!(plan.bind_ports, [], "{listen} {target}");
            let told: Vec<String> = plan.skipped.iter().map(ToString::to_string).collect();
            assert_eq!(told, skipped, "{listen} {target}");
        }
    }

    #[test]
    fn receivers_of_metrics_get_their_ports() {
        for (url, expected) in [("http://h/x", 80), ("https://h/x", 443), ("https://h:8443", 8443)] {
            let mut config = config("localhost:1", "localhost:2", None);
            config.metrics.graphite = Some(([127, 0, 0, 1], 2003).into());
            config.metrics.post = Some(HttpUrl::parse(url).expect("a URL"));
            let plan = plan(&config, &environment(Imagined::default()));
            assert_eq!(ports(&plan), [53, 2, 2003, expected], "{url}");
        }
    }

    #[test]
    fn a_forward_proxy_is_reached_instead_of_the_target() {
        for (url, connect, skipped) in [
            ("http://proxy", vec![53, 8080], vec![]),
            ("http://proxy:3128", vec![53, 3128], vec![]),
            ("socks5://proxy", vec![53, 1080], vec![]),
            ("socks5h://proxy:", vec![53, 1080], vec![]),
            (
                "http://u:secret@proxy:0",
                vec![53],
                vec!["http://u:xxxxx@proxy:0 (--proxy): nothing can listen on port 0"],
            ),
            (
                "http://proxy:65536",
                vec![53],
                vec!["http://proxy:65536 (--proxy): address 65536: invalid port"],
            ),
        ] {
            let proxy = ForwardProxy::new(Url::parse(url).expect(url)).expect(url);
            let mut config = config(":1", "example.com:443", None);
            let mut tunnel = Tunnel::clone(&config.tunnels[0]);
            tunnel.target = tunnel.target.through(proxy).expect("TCP");
            config.tunnels = vec![Arc::new(tunnel)];
            let plan = plan(&config, &environment(Imagined::default()));
            assert_eq!(ports(&plan), connect, "{url}");
            let told: Vec<String> = plan.skipped.iter().map(ToString::to_string).collect();
            assert_eq!(told, skipped, "{url}");
        }
    }

    #[test]
    fn credentials_are_read_in_their_directory_and_where_links_lead() {
        let files = Imagined {
            links: BTreeMap::from([
                ("/tls/farm.pem", "/tls/..data/farm.pem"),
                ("/tls/link.key", "/secrets/real.key"),
            ]),
            ..Imagined::default()
        };
        let pair = |cert: &str, key: &str| Identity::Pair {
            cert: cert.into(),
            key: key.into(),
            password: Password::None,
        };
        let keystore = |path: &str| Identity::Keystore {
            path: path.into(),
            password: Password::None,
        };
        for (identity, rules) in [
            (pair("/tls/a.pem", "/tls/a.key"), vec!["read /tls"]),
            (
                pair("/tls/farm.pem", "/keys/a.key"),
                vec!["read /tls", "read /tls/..data", "read /keys"],
            ),
            (
                pair("/tls/a.pem", "/tls/link.key"),
                vec!["read /tls", "read /secrets"],
            ),
            (keystore("server.p12"), vec!["read /here"]),
            (keystore("/root.p12"), vec!["read /"]),
            (
                Identity::Keystore {
                    path: "/tls/a.p12".into(),
                    password: Password::File("/run/credentials/unit/pass".into()),
                },
                vec!["read /tls", "read /run/credentials/unit"],
            ),
            (
                Identity::Pair {
                    cert: "/tls/a.pem".into(),
                    key: "/tls/a.key".into(),
                    password: Password::File("/secrets/pass".into()),
                },
                vec!["read /tls", "read /secrets"],
            ),
            (Identity::None, vec![]),
        ] {
            let config = with_credentials(identity, Trust::Bundle("/ca/bundle.pem".into()));
            let plan = plan(&config, &environment(files.clone()));
            assert_eq!(own_rules(&plan), rules);
            let ca = plan
                .files
                .iter()
                .find(|rule| rule.path == Path::new("/ca"))
                .expect("bundle");
            assert_eq!(
                (ca.access, ca.why, ca.is_optional),
                (Access::Read, "--cacert", false)
            );
        }
    }

    #[test]
    fn agents_of_the_workload_api_can_be_reached() {
        for (address, files, connect) in [
            (
                "unix:///srv/spire/agent.sock",
                vec!["connect /srv/spire"],
                vec![53, 2],
            ),
            ("tcp://127.0.0.1:8081", vec![], vec![53, 2, 8081]),
        ] {
            let settings = workload_api::Settings {
                endpoint: workload_api::Endpoint::parse(address).expect(address),
                first_answer_timeout: None,
                is_presented: true,
            };
            let identity = Identity::WorkloadApi(settings);
            let config = with_credentials(identity, Trust::Bundle("/ca/bundle.pem".into()));
            let plan = plan(&config, &environment(Imagined::default()));
            assert_eq!(own_rules(&plan), files, "{address}");
            assert_eq!(ports(&plan), connect, "{address}");
        }
    }

    #[test]
    fn trust_anchors_of_the_system_may_be_links_to_elsewhere() {
        let files = Imagined {
            links: BTreeMap::from([
                ("/etc/ssl/certs/ca-certificates.crt", "/store/bundle/ca.crt"),
                ("/etc/ssl/certs/one.pem", "/store/anchors/one.pem"),
                ("/etc/ssl/certs/two.pem", "/store/anchors/two.pem"),
            ]),
            entries: BTreeMap::from([(
                "/etc/ssl/certs",
                vec!["/etc/ssl/certs/one.pem", "/etc/ssl/certs/two.pem"],
            )]),
            ..Imagined::default()
        };
        let config = with_credentials(Identity::None, Trust::System);
        let rules = own_rules(&plan(&config, &environment(files)));
        assert!(rules.contains(&"read /store/bundle".to_owned()), "{rules:?}");
        assert_eq!(
            rules.iter().filter(|rule| *rule == "read /store/anchors").count(),
            1,
            "{rules:?}"
        );
    }

    #[test]
    fn what_the_operator_names_is_allowed() {
        let mut config = config("127.0.0.1:1", "127.0.0.1:2", None);
        config.sandbox.read = vec!["/opt/vendor".into(), "conf".into()];
        config.sandbox.write = vec!["/var/lib/vendor".into()];
        config.sandbox.connect_ports = vec![1792];
        let plan = plan(&config, &environment(Imagined::default()));
        assert_eq!(
            own_rules(&plan),
            [
                "read /opt/vendor",
                "read /here/conf",
                "read and write /var/lib/vendor"
            ]
        );
        assert_eq!(ports(&plan), [53, 2, 1792]);
    }

    #[test]
    fn variables_that_replace_the_trust_store_are_followed() {
        let files = Imagined {
            links: BTreeMap::from([("/b/hash.0", "/far/ca.pem")]),
            entries: BTreeMap::from([("/b", vec!["/b/hash.0", "/b/plain.pem"])]),
            ..Imagined::default()
        };
        let mut environment = environment(files);
        environment.ssl_cert_file = Some("/a/bundle.pem".into());
        environment.ssl_cert_dir = Some(":/b::c:".into());
        let plan = plan(&config(":1", "127.0.0.1:2", None), &environment);
        assert_eq!(
            own_rules(&plan),
            ["read /a", "read /b", "read /far", "read /here/c"]
        );
    }

    #[test]
    fn what_every_system_has_differently_is_optional_and_what_was_configured_is_not() {
        let plan = plan(
            &config("unix:/srv/a", "unix:/out/b", None),
            &environment(Imagined::default()),
        );
        for rule in &plan.files {
            let is_configured = rule.why.starts_with("--");
            assert_eq!(rule.is_optional, !is_configured, "{}", rule.path.display());
        }
    }

    #[test]
    fn only_the_defaults_are_written_to() {
        let plan = plan(
            &config("unix:/srv/a", "unix:/out/b", None),
            &environment(Imagined::default()),
        );
        let written = plan.files.iter().filter(|rule| rule.access == Access::ReadWrite);
        let written: Vec<_> = written.map(|rule| rule.path.to_str().expect("text")).collect();
        assert_eq!(written, ["/dev", "/run", "/var/run", "/proc", "/tmp"]);
    }
}
