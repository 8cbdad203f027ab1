//! The one definition of every flag, as data: parser, help and whatever is generated
//! for users read this table.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use super::values::SignedDuration;
use crate::net;

/// The words that choose what to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CommandWord {
    Help,
    Server,
    Client,
    Demo,
}

impl CommandWord {
    /// In the order in which help shows them.
    pub(super) const ALL: [Self; 4] = [Self::Help, Self::Server, Self::Client, Self::Demo];

    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Help => "help",
            Self::Server => "server",
            Self::Client => "client",
            Self::Demo => "demo",
        }
    }

    pub(super) fn help(self) -> &'static str {
        match self {
            Self::Help => "Show this help, or that of one command.",
            Self::Server => "Accept TLS connections and pass the plaintext to a TCP or UNIX socket target.",
            Self::Client => "Accept plaintext connections on a TCP or UNIX socket and pass them on over TLS.",
            Self::Demo => {
                "Watch a tunnel at work with throw-away certificates: who gets in, and who does not."
            }
        }
    }
}

/// Where a flag is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    /// Before and after every command.
    Global,
    /// After `server`.
    Server,
    /// After `client`.
    Client,
    /// After `demo`.
    Demo,
}

impl Scope {
    /// Whether a flag of this scope is known while `command` (if any yet) is in force.
    pub(super) fn covers(self, command: Option<CommandWord>) -> bool {
        match self {
            Self::Global => true,
            Self::Server => command == Some(CommandWord::Server),
            Self::Client => command == Some(CommandWord::Client),
            Self::Demo => command == Some(CommandWord::Demo),
        }
    }
}

/// Type of a flag's value and the field it goes to. Lists are the repeatable flags.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    /// `--name` and `--no-name`.
    Bool(fn(&mut Args) -> &mut bool),
    /// Any UTF-8 text, also an empty one.
    Text(fn(&mut Args) -> &mut Option<String>),
    /// Repeatable text.
    Texts(fn(&mut Args) -> &mut Vec<String>),
    /// A file name of any bytes; an empty one counts as none.
    Path(fn(&mut Args) -> &mut Option<PathBuf>),
    /// A duration, possibly negative.
    Duration(fn(&mut Args) -> &mut SignedDuration),
    /// An unsigned 32-bit number.
    Number(fn(&mut Args) -> &mut u32),
    /// `HOST:PORT`, looked up at once.
    TcpAddress(fn(&mut Args) -> &mut Option<SocketAddr>),
    /// Repeatable IP addresses.
    IpAddresses(fn(&mut Args) -> &mut Vec<IpAddr>),
    /// A URL.
    Url(fn(&mut Args) -> &mut Option<net::Url>),
    /// One word from a list.
    Choice(
        &'static [&'static str],
        fn(&mut Args) -> &mut Option<&'static str>,
    ),
    /// Repeatable words from a list.
    Choices(&'static [&'static str], fn(&mut Args) -> &mut Vec<&'static str>),
    /// Acts instead of setting anything.
    Immediate(Immediate),
}

impl Kind {
    pub(super) fn is_bool(self) -> bool {
        matches!(self, Self::Bool(_) | Self::Immediate(_))
    }

    pub(super) fn is_repeatable(self) -> bool {
        matches!(self, Self::Texts(_) | Self::IpAddresses(_) | Self::Choices(..))
    }
}

/// What a flag of kind [`Kind::Immediate`] does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Immediate {
    Help,
    LongHelp,
    Version,
}

/// One row of the table.
#[derive(Clone, Copy)]
pub(super) struct Flag {
    /// Without the leading dashes.
    pub(super) name: &'static str,
    /// Older names that still work, with a warning.
    pub(super) aliases: &'static [&'static str],
    /// Environment variable that gives the value when the flag is not typed.
    pub(super) variable: Option<&'static str>,
    pub(super) kind: Kind,
    pub(super) scope: Scope,
    /// Parsed like a typed value when neither flag nor variable is given.
    pub(super) default: Option<&'static str>,
    /// What stands for the value in help.
    pub(super) placeholder: Option<&'static str>,
    pub(super) required: bool,
    pub(super) hidden: bool,
    /// Why not to use it any more; warned about when typed.
    pub(super) deprecated: Option<&'static str>,
    pub(super) help: &'static str,
}

const fn flag(scope: Scope, name: &'static str, kind: Kind, help: &'static str) -> Flag {
    Flag {
        name,
        aliases: &[],
        variable: None,
        kind,
        scope,
        default: None,
        placeholder: None,
        required: false,
        hidden: false,
        deprecated: None,
        help,
    }
}

impl Flag {
    const fn alias(mut self, aliases: &'static [&'static str]) -> Self {
        self.aliases = aliases;
        self
    }

    const fn variable(mut self, variable: &'static str) -> Self {
        self.variable = Some(variable);
        self
    }

    const fn default(mut self, default: &'static str) -> Self {
        self.default = Some(default);
        self
    }

    const fn placeholder(mut self, placeholder: &'static str) -> Self {
        self.placeholder = Some(placeholder);
        self
    }

    const fn required(mut self) -> Self {
        self.required = true;
        self
    }

    const fn hidden(mut self) -> Self {
        self.hidden = true;
        self
    }

    const fn deprecated(mut self, reason: &'static str) -> Self {
        self.deprecated = Some(reason);
        self
    }
}

/// Values as typed, taken from the environment, or by default; not yet judged.
///
/// No `Debug`: it holds a password.
#[derive(Default)]
pub(super) struct Args {
    /// argv\[0\] as typed.
    pub(super) program: String,
    pub(super) keystore: Option<PathBuf>,
    pub(super) cert: Option<PathBuf>,
    pub(super) key: Option<PathBuf>,
    pub(super) storepass: Option<String>,
    pub(super) cacert: Option<PathBuf>,
    pub(super) timed_reload: SignedDuration,
    pub(super) shutdown_timeout: SignedDuration,
    pub(super) connect_timeout: SignedDuration,
    pub(super) close_timeout: SignedDuration,
    pub(super) max_conn_lifetime: SignedDuration,
    pub(super) max_concurrent_conns: u32,
    pub(super) metrics_graphite: Option<SocketAddr>,
    pub(super) metrics_url: Option<String>,
    pub(super) metrics_prefix: Option<String>,
    pub(super) metrics_interval: SignedDuration,
    pub(super) status: Option<String>,
    pub(super) enable_shutdown: bool,
    pub(super) drain_status: bool,
    pub(super) quiet: Vec<&'static str>,
    pub(super) syslog: bool,
    pub(super) log_format: Option<&'static str>,
    pub(super) log_level: Option<&'static str>,
    pub(super) skip_resolve: bool,
    pub(super) disable_landlock: bool,
    pub(super) use_landlock: bool,
    pub(super) listen: Option<String>,
    pub(super) target: Option<String>,
    pub(super) unsafe_listen: bool,
    pub(super) unsafe_target: bool,
    pub(super) proxy_protocol: bool,
    pub(super) proxy_protocol_mode: Option<&'static str>,
    pub(super) proxy_protocol_accept: Vec<String>,
    pub(super) override_server_name: Option<String>,
    pub(super) proxy: Option<net::Url>,
    pub(super) allow_all: bool,
    pub(super) common_names: Vec<String>,
    pub(super) organizational_units: Vec<String>,
    pub(super) dns_names: Vec<String>,
    pub(super) ip_addresses: Vec<IpAddr>,
    pub(super) uris: Vec<String>,
    pub(super) disable_authentication: bool,
    pub(super) demo_once: bool,
    pub(super) demo_break: Option<&'static str>,
}

use Immediate::{Help, LongHelp, Version};
use Kind::{
    Bool, Choice, Choices, Duration, Immediate as Acts, IpAddresses, Number, Path, TcpAddress, Text, Texts,
    Url,
};
use Scope::{Client, Demo, Global, Server};

/// Every flag, in the order in which help shows them.
pub(super) static FLAGS: &[Flag] = &[
    flag(Global, "help", Acts(Help), "Show help and exit; after a command, the help of that command."),
    flag(Global, "help-long", Acts(LongHelp), "Show the whole help and exit.").hidden(),
    flag(Global, "version", Acts(Version), "Show the version and exit."),
    // Certificates and trust.
    flag(
        Global,
        "keystore",
        Path(|args| &mut args.keystore),
        "PEM file that holds both certificate chain and private key.",
    )
    .placeholder("PATH")
    .variable("KEYSTORE_PATH"),
    flag(Global, "cert", Path(|args| &mut args.cert), "PEM file with the certificate chain, leaf first.")
        .placeholder("PATH")
        .variable("CERT_PATH"),
    flag(Global, "key", Path(|args| &mut args.key), "PEM file with the private key that belongs to --cert.")
        .placeholder("PATH")
        .variable("KEY_PATH"),
    flag(Global, "storepass", Text(|args| &mut args.storepass), "Password of the keystore; PEM needs none.")
        .placeholder("PASS")
        .variable("KEYSTORE_PASS"),
    flag(
        Global,
        "cacert",
        Path(|args| &mut args.cacert),
        "PEM file with the authorities to trust. Default: the trust store of the system.",
    )
    .placeholder("PATH")
    .variable("CACERT_PATH"),
    // Time and number.
    flag(
        Global,
        "timed-reload",
        Duration(|args| &mut args.timed_reload),
        "Read certificates and trust again this often. Zero: on signal only.",
    )
    .placeholder("DURATION")
    .default("0s"),
    flag(
        Global,
        "shutdown-timeout",
        Duration(|args| &mut args.shutdown_timeout),
        "How long open connections may go on after a shutdown was asked for.",
    )
    .default("5m"),
    flag(
        Global,
        "connect-timeout",
        Duration(|args| &mut args.connect_timeout),
        "How long TLS handshake and connect to the target may take together.",
    )
    .default("10s"),
    flag(
        Global,
        "close-timeout",
        Duration(|args| &mut args.close_timeout),
        "How long one direction of a connection may go on after the other has ended. Zero: not at all.",
    )
    .default("60s"),
    flag(
        Global,
        "max-conn-lifetime",
        Duration(|args| &mut args.max_conn_lifetime),
        "Cut connections that are older than this. Zero: never.",
    )
    .default("0s"),
    flag(
        Global,
        "max-concurrent-conns",
        Number(|args| &mut args.max_concurrent_conns),
        "Connections to hold at once; further ones wait to be accepted. Zero: no limit.",
    )
    .default("0"),
    // Operation.
    flag(
        Global,
        "metrics-graphite",
        TcpAddress(|args| &mut args.metrics_graphite),
        "Send metrics to Graphite at this address, every second. A name is looked up once, at start.",
    )
    .placeholder("ADDR"),
    flag(
        Global,
        "metrics-url",
        Text(|args| &mut args.metrics_url),
        "Post metrics as JSON to this http:// or https:// URL, every --metrics-interval.",
    )
    .placeholder("URL"),
    flag(
        Global,
        "metrics-prefix",
        Text(|args| &mut args.metrics_prefix),
        "First part of the names of metrics. May be empty.",
    )
    .default("ghostunnel"),
    flag(
        Global,
        "metrics-interval",
        Duration(|args| &mut args.metrics_interval),
        "How often to post metrics to --metrics-url. Zero: never.",
    )
    .default("30s"),
    flag(
        Global,
        "status",
        Text(|args| &mut args.status),
        "Serve status and metrics on [http(s)://]HOST:PORT, unix:PATH or systemd:NAME; over TLS with the tunnel's \
         own certificate unless http://, a UNIX socket or systemd: is given, or there is none and https:// is not \
         given.",
    )
    .placeholder("ADDR"),
    flag(
        Global,
        "enable-shutdown",
        Bool(|args| &mut args.enable_shutdown),
        "Let a POST to /_shutdown on the status port shut the process down.",
    ),
    flag(
        Global,
        "drain-status",
        Bool(|args| &mut args.drain_status),
        "Keep the status port open during the drain: it then answers 503 and \"stopping\" until the exit.",
    ),
    flag(
        Global,
        "quiet",
        Choices(QUIET, |args| &mut args.quiet),
        "Log less: conns (opened and closed), conn-errs (accept, connect and copy errors), handshake-errs, or \
         all, which silences the log altogether.",
    )
    .placeholder("CLASS"),
    flag(
        Global,
        "syslog",
        Bool(|args| &mut args.syslog),
        "Log to the local syslog instead of standard output.",
    ),
    flag(
        Global,
        "log-format",
        Choice(LOG_FORMATS, |args| &mut args.log_format),
        "What log lines look like: text, or json with one object for each event.",
    )
    .default("text"),
    flag(
        Global,
        "log-level",
        Choice(LOG_LEVELS, |args| &mut args.log_level),
        "The least important events to log: error, warn, info or debug.",
    )
    .default("info"),
    flag(
        Global,
        "skip-resolve",
        Bool(|args| &mut args.skip_resolve),
        "Start without checking that the name of the target resolves.",
    ),
    flag(
        Global,
        "disable-landlock",
        Bool(|args| &mut args.disable_landlock),
        "Run without the Landlock sandbox, which limits files and ports to those configured.",
    ),
    flag(Global, "use-landlock", Bool(|args| &mut args.use_landlock), "No longer needed.")
        .hidden()
        .deprecated("is ignored: the Landlock sandbox is on unless --disable-landlock is given"),
    // server
    flag(
        Server,
        "listen",
        Text(|args| &mut args.listen),
        "Where to accept TLS connections: HOST:PORT, unix:PATH, or systemd:NAME for a socket that systemd has opened.",
    )
    .placeholder("ADDR")
    .required(),
    flag(
        Server,
        "target",
        Text(|args| &mut args.target),
        "Where to pass plaintext to: HOST:PORT or unix:PATH; must be local unless --unsafe-target is given.",
    )
    .placeholder("ADDR")
    .required(),
    flag(
        Server,
        "unsafe-target",
        Bool(|args| &mut args.unsafe_target),
        "Allow a target on another machine, which plaintext then travels to.",
    ),
    flag(
        Server,
        "proxy-protocol",
        Bool(|args| &mut args.proxy_protocol),
        "Tell the target who has connected, by a PROXY protocol v2 header in front of each connection.",
    ),
    flag(
        Server,
        "proxy-protocol-mode",
        Choice(HEADER_DETAILS, |args| &mut args.proxy_protocol_mode),
        "Tell the target more: conn is --proxy-protocol, tls adds version and SNI of the TLS session, tls-full \
         also the certificate of the client.",
    )
    .placeholder("MODE"),
    flag(
        Server,
        "proxy-protocol-accept",
        Texts(|args| &mut args.proxy_protocol_accept),
        "Expect a PROXY protocol header (v1 or v2) in front of each connection, and believe it from these peers: \
         an IP address, a range such as 10.0.0.0/8, or unix for all peers on a UNIX socket. Nobody else may \
         connect then.",
    )
    .placeholder("PEER"),
    flag(
        Server,
        "allow-all",
        Bool(|args| &mut args.allow_all),
        "Admit every client whose certificate a trusted authority has issued.",
    ),
    flag(
        Server,
        "allow-cn",
        Texts(|args| &mut args.common_names),
        "Admit clients with this common name in the subject.",
    )
    .placeholder("CN"),
    flag(
        Server,
        "allow-ou",
        Texts(|args| &mut args.organizational_units),
        "Admit clients with this organizational unit in the subject.",
    )
    .placeholder("OU"),
    flag(Server, "allow-dns", Texts(|args| &mut args.dns_names), "Admit clients with this DNS alternative name.")
        .placeholder("DNS")
        .alias(&["allow-dns-san"]),
    flag(
        Server,
        "allow-ip",
        IpAddresses(|args| &mut args.ip_addresses),
        "Admit clients with this IP address as alternative name.",
    )
    .placeholder("IP")
    .alias(&["allow-ip-san"])
    .hidden(),
    flag(
        Server,
        "allow-uri",
        Texts(|args| &mut args.uris),
        "Admit clients with a URI alternative name that matches: * stands for one segment, ** at the end for \
         all that follow.",
    )
    .placeholder("URI")
    .alias(&["allow-uri-san"]),
    flag(
        Server,
        "disable-authentication",
        Bool(|args| &mut args.disable_authentication),
        "Ask clients for no certificate and admit everybody.",
    ),
    // client
    flag(
        Client,
        "listen",
        Text(|args| &mut args.listen),
        "Where to accept plaintext connections: HOST:PORT, unix:PATH, or systemd:NAME for a socket that systemd \
         has opened; must be local unless --unsafe-listen is given.",
    )
    .placeholder("ADDR")
    .required(),
    flag(
        Client,
        "target",
        Text(|args| &mut args.target),
        "Where the TLS server is: HOST:PORT, or unix:PATH together with --override-server-name.",
    )
    .placeholder("ADDR")
    .required(),
    flag(
        Client,
        "unsafe-listen",
        Bool(|args| &mut args.unsafe_listen),
        "Allow other machines to connect, and thus to use the certificate of this one.",
    ),
    flag(
        Client,
        "override-server-name",
        Text(|args| &mut args.override_server_name),
        "Name the server must prove, sent as SNI too. Default: the host of --target.",
    )
    .placeholder("NAME"),
    flag(
        Client,
        "proxy",
        Url(|args| &mut args.proxy),
        "Reach the target through a forward proxy, which looks the target's name up: http://HOST:PORT (by \
         CONNECT) or socks5://HOST:PORT. NAME:PASSWORD@ may stand in front of the host.",
    )
    .placeholder("URL"),
    flag(Client, "connect-proxy", Url(|args| &mut args.proxy), "Older name of --proxy.")
        .placeholder("URL")
        .hidden()
        .deprecated("is deprecated: use --proxy"),
    flag(
        Client,
        "verify-cn",
        Texts(|args| &mut args.common_names),
        "Accept servers with this common name in the subject.",
    )
    .placeholder("CN"),
    flag(
        Client,
        "verify-ou",
        Texts(|args| &mut args.organizational_units),
        "Accept servers with this organizational unit in the subject.",
    )
    .placeholder("OU"),
    flag(Client, "verify-dns", Texts(|args| &mut args.dns_names), "Accept servers with this DNS alternative name.")
        .placeholder("DNS")
        .alias(&["verify-dns-san"]),
    flag(
        Client,
        "verify-ip",
        IpAddresses(|args| &mut args.ip_addresses),
        "Accept servers with this IP address as alternative name.",
    )
    .placeholder("IP")
    .alias(&["verify-ip-san"])
    .hidden(),
    flag(
        Client,
        "verify-uri",
        Texts(|args| &mut args.uris),
        "Accept servers with a URI alternative name that matches, as for the server's --allow-uri.",
    )
    .placeholder("URI")
    .alias(&["verify-uri-san"]),
    flag(
        Client,
        "disable-authentication",
        Bool(|args| &mut args.disable_authentication),
        "Present no certificate; the server's is checked all the same.",
    ),
    // demo
    flag(Demo, "once", Bool(|args| &mut args.demo_once), "Exit as soon as every check has run."),
    flag(
        Demo,
        "break",
        Choice(BREAKAGES, |args| &mut args.demo_break),
        "Break one thing on purpose, to see that the demo notices: the authority (ca), a byte on its way (byte), \
         or the refusal of a stranger (stranger).",
    )
    .placeholder("WHAT"),
];

/// What `--quiet` takes. The empty word silences nothing.
const QUIET: &[&str] = &["", "all", "conns", "handshake-errs", "conn-errs"];

/// What `--proxy-protocol-mode` takes.
const HEADER_DETAILS: &[&str] = &["conn", "tls", "tls-full"];

/// What `--log-format` takes.
const LOG_FORMATS: &[&str] = &["text", "json"];

/// What `--log-level` takes.
const LOG_LEVELS: &[&str] = &["error", "warn", "info", "debug"];

/// What `--break` takes.
pub(super) const BREAKAGES: &[&str] = &["ca", "byte", "stranger"];

/// The flag of this name, or with this alias, that is known while `command` is in force.
pub(super) fn find(name: &str, command: Option<CommandWord>) -> Option<&'static Flag> {
    FLAGS
        .iter()
        .filter(|flag| flag.scope.covers(command))
        .find(|flag| flag.name == name || flag.aliases.contains(&name))
}

/// The visible flag that `name` was most likely meant to be, if it is a slip or two away.
pub(super) fn most_similar(name: &str, command: Option<CommandWord>) -> Option<&'static Flag> {
    const SLIPS: usize = 2;
    // Short names are two slips away from anything.
    const SHORTEST: usize = 4;
    // What nobody typed by hand is not worth comparing.
    const LONGEST: usize = 64;
    if !(SHORTEST..=LONGEST).contains(&name.len()) {
        return None;
    }
    FLAGS
        .iter()
        .filter(|flag| !flag.hidden && flag.scope.covers(command))
        .map(|flag| (distance(name, flag.name), flag))
        .filter(|(distance, _)| *distance <= SLIPS)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, flag)| flag)
}

/// How many letters must be put in, taken out or exchanged to make one text of the other
/// (the Levenshtein distance), row by row of the usual table.
fn distance(one: &str, other: &str) -> usize {
    let mut row: Vec<usize> = (0..=other.chars().count()).collect();
    for (line, letter) in one.chars().enumerate() {
        let mut diagonal = line;
        let mut left = line.saturating_add(1);
        let mut next = vec![left];
        for (above, other) in row.iter().skip(1).zip(other.chars()) {
            let exchanged = diagonal.saturating_add(usize::from(letter != other));
            left = exchanged.min(left.saturating_add(1)).min(above.saturating_add(1));
            next.push(left);
            diagonal = *above;
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}

/// A flag of Ghostunnel 1.11.1 that this version does not have yet.
pub(super) struct Unbuilt {
    pub(super) name: &'static str,
    pub(super) scope: Scope,
    /// Whether `--no-NAME` exists.
    pub(super) is_bool: bool,
}

const fn unbuilt(scope: Scope, name: &'static str) -> Unbuilt {
    Unbuilt {
        name,
        scope,
        is_bool: false,
    }
}

const fn unbuilt_bool(scope: Scope, name: &'static str) -> Unbuilt {
    Unbuilt {
        name,
        scope,
        is_bool: true,
    }
}

/// Flags that get an answer of their own instead of `unknown long flag`.
static UNBUILT: &[Unbuilt] = &[
    unbuilt_bool(Global, "use-workload-api"),
    unbuilt(Global, "use-workload-api-addr"),
    unbuilt(Global, "use-workload-api-timeout"),
    unbuilt(Global, "pkcs11-module"),
    unbuilt(Global, "pkcs11-token-label"),
    unbuilt(Global, "pkcs11-pin"),
    unbuilt(Global, "cipher-suites"),
    unbuilt_bool(Global, "allow-unsafe-cipher-suites"),
    unbuilt(Global, "max-tls-version"),
    unbuilt_bool(Global, "enable-pprof"),
    unbuilt_bool(Global, "help-man"),
    unbuilt_bool(Global, "help-custom-man"),
    unbuilt_bool(Global, "completion-bash"),
    unbuilt_bool(Global, "completion-script-bash"),
    unbuilt_bool(Global, "completion-script-zsh"),
    unbuilt(Server, "target-status"),
    unbuilt(Server, "allow-spki-pin"),
    unbuilt(Server, "allow-policy"),
    unbuilt(Server, "allow-query"),
    unbuilt(Server, "auto-acme-cert"),
    unbuilt(Server, "auto-acme-email"),
    unbuilt_bool(Server, "auto-acme-agree-to-tos"),
    unbuilt(Server, "auto-acme-ca"),
    unbuilt(Server, "auto-acme-testca"),
    unbuilt(Server, "auto-acme-renew-check-interval"),
    unbuilt(Server, "auto-acme-alt-tls-alpn-port"),
    unbuilt(Client, "verify-spki-pin"),
    unbuilt(Client, "verify-policy"),
    unbuilt(Client, "verify-query"),
];

/// Environment variables of such flags.
pub(super) static UNBUILT_VARIABLES: &[(&str, &str)] = &[
    ("SPIFFE_ENDPOINT_SOCKET", "use-workload-api-addr"),
    ("PKCS11_MODULE", "pkcs11-module"),
    ("PKCS11_TOKEN_LABEL", "pkcs11-token-label"),
    ("PKCS11_PIN", "pkcs11-pin"),
];

/// The unbuilt flag of this name, if `command` would know it.
pub(super) fn find_unbuilt(name: &str, command: Option<CommandWord>) -> Option<&'static Unbuilt> {
    UNBUILT
        .iter()
        .find(|flag| flag.name == name && flag.scope.covers(command))
}
