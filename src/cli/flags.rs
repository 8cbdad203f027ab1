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
    /// After `server` and after `client`.
    Tunnel,
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
            Self::Tunnel => matches!(command, Some(CommandWord::Server | CommandWord::Client)),
            Self::Demo => command == Some(CommandWord::Demo),
        }
    }

    /// Whether its flags are known after this command and after others, but not everywhere.
    pub(super) fn is_shared_by(self, command: CommandWord) -> bool {
        self == Self::Tunnel && self.covers(Some(command))
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
    /// Repeatable file names.
    Paths(fn(&mut Args) -> &mut Vec<PathBuf>),
    /// A file that must be there at once; an empty name is a mistake.
    ExistingFile(fn(&mut Args) -> &mut Option<PathBuf>),
    /// A duration, possibly negative.
    Duration(fn(&mut Args) -> &mut SignedDuration),
    /// An unsigned 32-bit number.
    Number(fn(&mut Args) -> &mut u32),
    /// A whole number that may be written with a point or an exponent.
    Integer(fn(&mut Args) -> &mut i64),
    /// Repeatable TCP ports.
    Ports(fn(&mut Args) -> &mut Vec<u16>),
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
        matches!(
            self,
            Self::Texts(_) | Self::Paths(_) | Self::Ports(_) | Self::IpAddresses(_) | Self::Choices(..)
        )
    }
}

/// What a flag of kind [`Kind::Immediate`] does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Immediate {
    Help,
    LongHelp,
    Version,
    ManPage(ManPage),
    CompletionScript(Shell),
    /// Candidates for the last of the words that follow.
    Completion,
}

/// How much a man page tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ManPage {
    /// Commands and flags.
    Short,
    /// Also addresses, certificates, signals, examples.
    Long,
}

/// Shells whose command lines can be completed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shell {
    Bash,
    Zsh,
    Fish,
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
    /// All of argv as it may be shown.
    pub(super) command_line: Vec<u8>,
    /// Environment variables that gave a value.
    pub(super) variables: Vec<&'static str>,
    pub(super) keystore: Option<PathBuf>,
    pub(super) cert: Option<PathBuf>,
    pub(super) key: Option<PathBuf>,
    pub(super) storepass: Option<String>,
    pub(super) storepass_file: Option<String>,
    /// `CREDENTIALS_DIRECTORY`, which stands for no flag.
    pub(super) credentials_directory: Option<PathBuf>,
    pub(super) cacert: Option<PathBuf>,
    pub(super) use_workload_api: bool,
    pub(super) workload_api_addr: Option<String>,
    pub(super) workload_api_timeout: SignedDuration,
    pub(super) pkcs11_module: Option<PathBuf>,
    pub(super) pkcs11_token_label: Option<String>,
    pub(super) pkcs11_pin: Option<String>,
    pub(super) cipher_suites: Option<String>,
    pub(super) allow_unsafe_cipher_suites: bool,
    pub(super) max_tls_version: Option<String>,
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
    pub(super) enable_pprof: bool,
    pub(super) enable_shutdown: bool,
    pub(super) drain_status: bool,
    pub(super) quiet: Vec<&'static str>,
    pub(super) syslog: bool,
    pub(super) log_format: Option<&'static str>,
    pub(super) log_level: Option<&'static str>,
    pub(super) skip_resolve: bool,
    pub(super) disable_landlock: bool,
    pub(super) use_landlock: bool,
    pub(super) sandbox_allow_read: Vec<PathBuf>,
    pub(super) sandbox_allow_write: Vec<PathBuf>,
    pub(super) sandbox_allow_connect: Vec<u16>,
    pub(super) listen: Option<String>,
    pub(super) target: Option<String>,
    pub(super) target_status: Option<String>,
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
    pub(super) spki_pins: Vec<String>,
    pub(super) policy: Option<PathBuf>,
    pub(super) query: Option<String>,
    pub(super) required: Names,
    pub(super) denied: Names,
    pub(super) disable_authentication: bool,
    pub(super) acme_name: Option<String>,
    pub(super) acme_email: Option<String>,
    pub(super) acme_agree_to_tos: bool,
    pub(super) acme_ca: Option<String>,
    pub(super) acme_test_ca: Option<String>,
    pub(super) acme_renew_check_interval: SignedDuration,
    pub(super) acme_alt_port: i64,
    pub(super) demo_once: bool,
    pub(super) demo_break: Option<&'static str>,
}

/// What `--require-*` or `--deny-*` name, list by list.
#[derive(Default)]
pub(super) struct Names {
    pub(super) common_names: Vec<String>,
    pub(super) organizational_units: Vec<String>,
    pub(super) dns_names: Vec<String>,
    pub(super) ip_addresses: Vec<IpAddr>,
    pub(super) uris: Vec<String>,
    pub(super) spki_pins: Vec<String>,
    pub(super) serials: Vec<String>,
}

use Immediate::{Completion, CompletionScript, Help, LongHelp, Version};
use Kind::{
    Bool, Choice, Choices, Duration, ExistingFile, Immediate as Acts, Integer, IpAddresses, Number, Path,
    Paths, Ports, TcpAddress, Text, Texts, Url,
};
use Scope::{Client, Demo, Global, Server, Tunnel};

/// Every flag, in the order in which help shows them.
pub(super) static FLAGS: &[Flag] = &[
    flag(Global, "help", Acts(Help), "Show help and exit; after a command, the help of that command."),
    flag(Global, "help-long", Acts(LongHelp), "Show the whole help and exit.").hidden(),
    flag(Global, "version", Acts(Version), "Show the version and exit."),
    flag(
        Global,
        "help-man",
        Acts(Immediate::ManPage(ManPage::Short)),
        "Write a man page with commands and flags, and exit.",
    )
    .hidden(),
    flag(
        Global,
        "help-custom-man",
        Acts(Immediate::ManPage(ManPage::Long)),
        "Write the whole man page and exit.",
    )
    .hidden(),
    flag(
        Global,
        "completion-bash",
        Acts(Completion),
        "Write what the last of the words that follow may become, and exit.",
    )
    .hidden(),
    flag(
        Global,
        "completion-script-bash",
        Acts(CompletionScript(Shell::Bash)),
        "Write a script by which bash completes command lines, and exit.",
    )
    .hidden(),
    flag(
        Global,
        "completion-script-zsh",
        Acts(CompletionScript(Shell::Zsh)),
        "Write a script by which zsh completes command lines, and exit.",
    )
    .hidden(),
    flag(
        Global,
        "completion-script-fish",
        Acts(CompletionScript(Shell::Fish)),
        "Write a script by which fish completes command lines, and exit.",
    )
    .hidden(),
    // Certificates and trust.
    flag(
        Global,
        "keystore",
        Path(|args| &mut args.keystore),
        "File that holds both certificate chain and private key: PEM, PKCS#12, JCEKS or JKS.",
    )
    .placeholder("PATH")
    .variable("KEYSTORE_PATH"),
    flag(Global, "cert", Path(|args| &mut args.cert), "PEM file with the certificate chain, leaf first.")
        .placeholder("PATH")
        .variable("CERT_PATH"),
    flag(Global, "key", Path(|args| &mut args.key), "PEM file with the private key that belongs to --cert.")
        .placeholder("PATH")
        .variable("KEY_PATH"),
    flag(
        Global,
        "storepass",
        Text(|args| &mut args.storepass),
        "Password of the keystore, or of an encrypted private key in PEM.",
    )
    .placeholder("PASS")
    .variable("KEYSTORE_PASS"),
    flag(
        Global,
        "storepass-file",
        Text(|args| &mut args.storepass_file),
        "File with that password. credential:NAME is a credential of systemd.",
    )
    .placeholder("PATH")
    .variable("KEYSTORE_PASS_FILE"),
    flag(
        Global,
        "cacert",
        Path(|args| &mut args.cacert),
        "PEM file with the authorities to trust. Default: the trust store of the system.",
    )
    .placeholder("PATH")
    .variable("CACERT_PATH"),
    flag(
        Global,
        "use-workload-api",
        Bool(|args| &mut args.use_workload_api),
        "Take certificate, key and trust from the SPIFFE Workload API.",
    ),
    flag(
        Global,
        "use-workload-api-addr",
        Text(|args| &mut args.workload_api_addr),
        "Address of the SPIFFE Workload API; turns --use-workload-api on.",
    )
    .placeholder("ADDR")
    .variable("SPIFFE_ENDPOINT_SOCKET"),
    flag(
        Global,
        "use-workload-api-timeout",
        Duration(|args| &mut args.workload_api_timeout),
        "How long to wait at start for the first answer of the SPIFFE Workload API. Zero: for ever.",
    )
    .default("10m"),
    flag(
        Global,
        "pkcs11-module",
        ExistingFile(|args| &mut args.pkcs11_module),
        "Shared library of the PKCS#11 token that holds the private key of --cert or --keystore.",
    )
    .placeholder("PATH")
    .variable("PKCS11_MODULE"),
    flag(
        Global,
        "pkcs11-token-label",
        Text(|args| &mut args.pkcs11_token_label),
        "Label of the PKCS#11 token to use.",
    )
    .placeholder("LABEL")
    .variable("PKCS11_TOKEN_LABEL"),
    flag(Global, "pkcs11-pin", Text(|args| &mut args.pkcs11_pin), "PIN of the PKCS#11 token.")
        .placeholder("PIN")
        .variable("PKCS11_PIN"),
    // TLS.
    flag(
        Global,
        "cipher-suites",
        Text(|args| &mut args.cipher_suites),
        "Groups of TLS 1.2 cipher suites to allow, separated by commas: AES, CHACHA.",
    )
    .placeholder("GROUPS")
    .default("AES,CHACHA")
    .hidden()
    .deprecated("is deprecated: every suite on offer is safe, and those of TLS 1.3 are not affected"),
    flag(
        Global,
        "allow-unsafe-cipher-suites",
        Bool(|args| &mut args.allow_unsafe_cipher_suites),
        "Let --cipher-suites name UNSAFE-AZURE, a suite with CBC that is never used.",
    )
    .hidden()
    .deprecated("is deprecated and has no effect: there are no unsafe cipher suites"),
    flag(
        Global,
        "max-tls-version",
        Text(|args| &mut args.max_tls_version),
        "Newest version of TLS to speak: TLS1.2 or TLS1.3.",
    )
    .placeholder("VERSION")
    .hidden()
    .deprecated("is deprecated: it is meant for peers that break on TLS 1.3"),
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
        "enable-pprof",
        Bool(|args| &mut args.enable_pprof),
        "Serve profiles of the process on the status port, under /debug/pprof/.",
    ),
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
    flag(
        Global,
        "sandbox-allow-read",
        Paths(|args| &mut args.sandbox_allow_read),
        "Let the sandboxed process also read this file, or this directory with all that is in it; what a PKCS#11 module \
         needs, for example. Repeatable.",
    )
    .placeholder("PATH"),
    flag(
        Global,
        "sandbox-allow-write",
        Paths(|args| &mut args.sandbox_allow_write),
        "Let the sandboxed process also read and write this file, or this directory with all that is in it. Repeatable.",
    )
    .placeholder("PATH"),
    flag(
        Global,
        "sandbox-allow-connect",
        Ports(|args| &mut args.sandbox_allow_connect),
        "Let the sandboxed process also connect to this TCP port, on any host; that of an HSM, for example. Repeatable.",
    )
    .placeholder("PORT"),
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
        "target-status",
        Text(|args| &mut args.target_status),
        "Judge the health of the target by a GET of this http:// or https:// URL instead of a bare connect.",
    )
    .placeholder("URL"),
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
        "allow-spki-pin",
        Texts(|args| &mut args.spki_pins),
        "Admit clients with this public key, whoever has issued their certificate: sha256, sha384 or sha512, a \
         colon, and the digest of the key in base64.",
    )
    .placeholder("PIN"),
    flag(
        Server,
        "allow-policy",
        Path(|args| &mut args.policy),
        "Admit clients by this OPA policy: a bundle or a .rego file. Needs --allow-query.",
    )
    .placeholder("BUNDLE"),
    flag(
        Server,
        "allow-query",
        Text(|args| &mut args.query),
        "Rego query that decides about a client by --allow-policy.",
    )
    .placeholder("QUERY"),
    flag(
        Server,
        "disable-authentication",
        Bool(|args| &mut args.disable_authentication),
        "Ask clients for no certificate and admit everybody.",
    ),
    flag(
        Server,
        "auto-acme-cert",
        Text(|args| &mut args.acme_name),
        "Obtain and renew a certificate for this host name by ACME. Port 443 must lead to --listen.",
    )
    .placeholder("NAME"),
    flag(
        Server,
        "auto-acme-email",
        Text(|args| &mut args.acme_email),
        "Address at which the ACME authority can reach you.",
    )
    .placeholder("EMAIL"),
    flag(
        Server,
        "auto-acme-agree-to-tos",
        Bool(|args| &mut args.acme_agree_to_tos),
        "Agree to the terms of service of the ACME authority.",
    ),
    flag(
        Server,
        "auto-acme-ca",
        Text(|args| &mut args.acme_ca),
        "Directory URL of the ACME authority. Default: Let's Encrypt.",
    )
    .placeholder("URL"),
    flag(
        Server,
        "auto-acme-testca",
        Text(|args| &mut args.acme_test_ca),
        "Directory URL of an ACME authority to try things with; used instead of --auto-acme-ca.",
    )
    .placeholder("URL"),
    flag(
        Server,
        "auto-acme-renew-check-interval",
        Duration(|args| &mut args.acme_renew_check_interval),
        "How often to see whether the certificate is to be renewed. For tests.",
    )
    .placeholder("DURATION")
    .default("0s")
    .hidden(),
    flag(
        Server,
        "auto-acme-alt-tls-alpn-port",
        Integer(|args| &mut args.acme_alt_port),
        "Port to answer challenges on instead of 443. For tests.",
    )
    .placeholder("PORT")
    .default("0")
    .hidden(),
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
        "verify-spki-pin",
        Texts(|args| &mut args.spki_pins),
        "Accept servers with this public key, whoever has issued their certificate and whatever its name: as for \
         the server's --allow-spki-pin.",
    )
    .placeholder("PIN"),
    flag(
        Client,
        "verify-policy",
        Path(|args| &mut args.policy),
        "Accept servers by this OPA policy: a bundle or a .rego file. Needs --verify-query.",
    )
    .placeholder("BUNDLE"),
    flag(
        Client,
        "verify-query",
        Text(|args| &mut args.query),
        "Rego query that decides about a server by --verify-policy.",
    )
    .placeholder("QUERY"),
    flag(
        Client,
        "disable-authentication",
        Bool(|args| &mut args.disable_authentication),
        "Present no certificate; the server's is checked all the same.",
    ),
    // Of both modes: whom access rules leave in.
    flag(
        Tunnel,
        "require-cn",
        Texts(|args| &mut args.required.common_names),
        "Whatever else admits a peer, refuse it unless it has this common name. Of several --require flags all must hold.",
    )
    .placeholder("CN"),
    flag(
        Tunnel,
        "require-ou",
        Texts(|args| &mut args.required.organizational_units),
        "The same by organizational unit.",
    )
    .placeholder("OU"),
    flag(
        Tunnel,
        "require-dns",
        Texts(|args| &mut args.required.dns_names),
        "The same by DNS alternative name.",
    )
    .placeholder("DNS"),
    flag(
        Tunnel,
        "require-ip",
        IpAddresses(|args| &mut args.required.ip_addresses),
        "The same by IP alternative name.",
    )
    .placeholder("IP"),
    flag(
        Tunnel,
        "require-uri",
        Texts(|args| &mut args.required.uris),
        "The same by a pattern for URI alternative names.",
    )
    .placeholder("URI"),
    flag(
        Tunnel,
        "deny-cn",
        Texts(|args| &mut args.denied.common_names),
        "Refuse peers with this common name, whatever else admits them. Of several --deny flags any is enough.",
    )
    .placeholder("CN"),
    flag(
        Tunnel,
        "deny-ou",
        Texts(|args| &mut args.denied.organizational_units),
        "The same by organizational unit.",
    )
    .placeholder("OU"),
    flag(
        Tunnel,
        "deny-dns",
        Texts(|args| &mut args.denied.dns_names),
        "The same by DNS alternative name, in any letter case.",
    )
    .placeholder("DNS"),
    flag(
        Tunnel,
        "deny-ip",
        IpAddresses(|args| &mut args.denied.ip_addresses),
        "The same by IP alternative name.",
    )
    .placeholder("IP"),
    flag(
        Tunnel,
        "deny-uri",
        Texts(|args| &mut args.denied.uris),
        "The same by a pattern for URI alternative names, in any letter case.",
    )
    .placeholder("URI"),
    flag(
        Tunnel,
        "deny-spki-pin",
        Texts(|args| &mut args.denied.spki_pins),
        "The same by public key, written as for --allow-spki-pin.",
    )
    .placeholder("PIN"),
    flag(
        Tunnel,
        "deny-serial",
        Texts(|args| &mut args.denied.serials),
        "The same by the serial number of the certificate, in hexadecimal digits, whoever issued it.",
    )
    .placeholder("HEX"),
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
