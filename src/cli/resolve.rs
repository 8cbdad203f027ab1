//! From values as typed to a configuration: one function per topic.
//!
//! Checks and their order are those of Ghostunnel 1.11.1; what it found only after
//! certificates were loaded (`--max-tls-version`, URI patterns, the shape of `--listen`) is
//! found here, after everything else. Behind that come flags whose work is not done yet.

mod access;
mod sources;
mod unbuilt;

use std::num::NonZeroU32;
use std::sync::Arc;

use super::errors::{ConfigError, GlobalError};
use super::flags::Args;
use super::{Breakage, DemoOptions, ModeWord, Run};
use crate::config::{ClientAuth, Config, Mode, Tunnel};
use crate::net::{AddressError, ForwardProxy, HttpUrl, Kind, ListenAddr, ListenKind, Reach, TargetAddr};
use crate::proxy::{Announcers, HeaderDetail};
use crate::tls::{CipherGroups, Newest};
use crate::{lifecycle, logging, metrics, proxy, sandbox, status, tls};

/// Settings of the process and limits of its tunnel, checked.
pub(super) struct Global {
    metrics: metrics::Settings,
    status: Option<status::Settings>,
    limits: proxy::Limits,
}

/// Checks what does not depend on the command.
pub(super) fn global(args: &Args) -> Result<Global, GlobalError> {
    if given(&args.status).is_none() {
        if args.enable_pprof {
            return Err(GlobalError::PprofWithoutStatus);
        }
        if args.enable_shutdown {
            return Err(GlobalError::ShutdownWithoutStatus);
        }
        if args.drain_status {
            return Err(GlobalError::DrainStatusWithoutStatus);
        }
    }
    let metrics = metrics(args)?;
    if given(&args.target_status).is_some_and(|url| !is_http_url(url)) {
        return Err(GlobalError::TargetStatusScheme);
    }
    let status = status(args)?;
    let limits = limits(args)?;
    if args.workload_api_timeout.is_negative() {
        return Err(GlobalError::NegativeWorkloadApiTimeout);
    }
    Ok(Global {
        metrics,
        status,
        limits,
    })
}

/// Makes a tunnel of the rest.
pub(super) fn run(mode: ModeWord, args: &Args, global: Global) -> Run {
    let tunnel = match mode {
        ModeWord::Server => server(args, global.limits),
        ModeWord::Client => client(args, global.limits),
    };
    let tunnel = tunnel
        .and_then(|tunnel| apart_from_status(tunnel, global.status.as_ref()))
        .and_then(|tunnel| unbuilt::refuse(mode, args).map(|()| tunnel));
    let config = tunnel.map(|tunnel| Config {
        tunnels: vec![Arc::new(tunnel)],
        status: global.status,
        metrics: global.metrics,
        sandbox: sandbox::Settings {
            landlock: !args.disable_landlock,
            read: args.sandbox_allow_read.clone(),
            write: args.sandbox_allow_write.clone(),
            connect_ports: args.sandbox_allow_connect.clone(),
        },
        lifecycle: lifecycle(args),
    });
    Run {
        mode,
        logging: logging(args),
        config,
        warnings: warnings(mode, args),
    }
}

pub(super) fn demo(args: &Args) -> DemoOptions {
    let breakage = args.demo_break.and_then(|word| match word {
        "ca" => Some(Breakage::Ca),
        "byte" => Some(Breakage::Byte),
        "stranger" => Some(Breakage::Stranger),
        _ => None,
    });
    DemoOptions {
        once: args.demo_once,
        breakage,
    }
}

fn server(args: &Args, limits: proxy::Limits) -> Result<Tunnel, ConfigError> {
    let source = sources::choose(ModeWord::Server, args)?;
    access::check_server(args)?;
    let target = server_target(args)?;
    sources::check_acme(args)?;
    access::check_policy("allow", args)?;
    let header = header(args)?;
    let tls = tls(args)?;
    access::check_narrowing("allow", args)?;
    let client_auth = match args.disable_authentication {
        true => ClientAuth::Disabled,
        false => ClientAuth::Required(access::rules("allow", args)?),
    };
    let listen = listen(args, Reach::Anywhere)?;
    let announcers = announcers(args, &listen)?;
    let mode = Mode::Server {
        client_auth,
        header,
        announcers,
        target_status: target_status(args)?,
    };
    Ok(Tunnel {
        listen,
        target,
        resolve_at_start: !args.skip_resolve,
        mode,
        credentials: sources::selection(source, args)?,
        tls,
        limits,
    })
}

fn client(args: &Args, limits: proxy::Limits) -> Result<Tunnel, ConfigError> {
    let source = sources::choose(ModeWord::Client, args)?;
    let listen = listen(
        args,
        if args.unsafe_listen {
            Reach::Anywhere
        } else {
            Reach::LocalOnly
        },
    );
    if let Err(error @ ConfigError::ListenNotLocal) = listen {
        return Err(error);
    }
    let target = client_target(args)?;
    access::check_policy("verify", args)?;
    access::check_client(args)?;
    let tls = tls(args)?;
    let server_name = server_name(args, &target)?;
    access::check_narrowing("verify", args)?;
    let verify = access::rules("verify", args)?;
    let target = through_proxy(args, target)?;
    let mode = Mode::Client { server_name, verify };
    Ok(Tunnel {
        listen: listen?,
        target,
        resolve_at_start: !args.skip_resolve,
        mode,
        credentials: sources::selection(source, args)?,
        tls,
        limits,
    })
}

/// Cipher suites are judged before the version, as they always were.
fn tls(args: &Args) -> Result<tls::Options, ConfigError> {
    let groups = CipherGroups::parse(typed(&args.cipher_suites), args.allow_unsafe_cipher_suites)
        .map_err(ConfigError::CipherSuites)?;
    let newest = match given(&args.max_tls_version) {
        None => Newest::default(),
        Some(text) => Newest::parse(text).map_err(ConfigError::MaxTlsVersion)?,
    };
    Ok(tls::Options { newest, groups })
}

fn server_target(args: &Args) -> Result<TargetAddr, ConfigError> {
    let reach = if args.unsafe_target {
        Reach::Anywhere
    } else {
        Reach::LocalOnly
    };
    TargetAddr::parse(typed(&args.target), reach).map_err(|error| match error {
        AddressError::NotLocal(_) => ConfigError::TargetNotLocal,
        AddressError::UnsupportedNetwork(network) => ConfigError::ServerTargetNetwork(network),
        error => ConfigError::TargetAddress(error),
    })
}

fn header(args: &Args) -> Result<Option<HeaderDetail>, ConfigError> {
    match (args.proxy_protocol, args.proxy_protocol_mode) {
        (true, Some(_)) => Err(ConfigError::SeveralHeaders),
        (true, None) | (false, Some("conn")) => Ok(Some(HeaderDetail::Addresses)),
        (false, Some("tls")) => Ok(Some(HeaderDetail::Tls)),
        // Of the words that the parser lets through, tls-full is left.
        (false, Some(_)) => Ok(Some(HeaderDetail::TlsFull)),
        (false, None) => Ok(None),
    }
}

/// How to ask the target how it is; that the scheme is one of HTTP has been checked.
fn target_status(args: &Args) -> Result<Option<Arc<HttpUrl>>, ConfigError> {
    let url = given(&args.target_status).map(HttpUrl::parse).transpose();
    Ok(url.map_err(ConfigError::TargetStatus)?.map(Arc::new))
}

/// Who may send PROXY protocol headers, among those who can connect at all.
fn announcers(args: &Args, listen: &ListenAddr) -> Result<Option<Arc<Announcers>>, ConfigError> {
    if args.proxy_protocol_accept.is_empty() {
        return Ok(None);
    }
    let announcers = Announcers::parse(&args.proxy_protocol_accept).map_err(ConfigError::Announcers)?;
    match listen.kind() {
        ListenKind::Address(Kind::Unix(_)) if !announcers.include_unix() => {
            Err(ConfigError::AnnouncersNotUnix)
        }
        ListenKind::Address(Kind::Tcp(_)) if !announcers.include_tcp() => Err(ConfigError::AnnouncersNotTcp),
        // Of which kind an inherited socket is shows later.
        ListenKind::Address(_) | ListenKind::Inherited(_) => Ok(Some(Arc::new(announcers))),
    }
}

fn client_target(args: &Args) -> Result<TargetAddr, ConfigError> {
    let text = typed(&args.target);
    if text.starts_with("unix:") && given(&args.override_server_name).is_none() {
        return Err(ConfigError::UnixTargetWithoutName);
    }
    TargetAddr::parse(text, Reach::Anywhere).map_err(client_target_error)
}

fn client_target_error(error: AddressError) -> ConfigError {
    match error {
        AddressError::UnsupportedNetwork(network) => ConfigError::ClientTargetNetwork(network),
        error => ConfigError::TargetAddress(error),
    }
}

fn through_proxy(args: &Args, target: TargetAddr) -> Result<TargetAddr, ConfigError> {
    let Some(url) = args.proxy.clone() else {
        return Ok(target);
    };
    let proxy = ForwardProxy::new(url).map_err(ConfigError::ProxyScheme)?;
    target.through(proxy).map_err(client_target_error)
}

fn listen(args: &Args, reach: Reach) -> Result<ListenAddr, ConfigError> {
    parse_listen(typed(&args.listen), reach).map_err(|error| match error {
        AddressError::NotLocal(_) => ConfigError::ListenNotLocal,
        AddressError::UnsupportedNetwork(_) => ConfigError::ListenLaunchd,
        error => ConfigError::ListenAddress(error),
    })
}

/// One inherited socket can't serve both: which of them got a connection would be chance.
fn apart_from_status(tunnel: Tunnel, status: Option<&status::Settings>) -> Result<Tunnel, ConfigError> {
    match (tunnel.listen.kind(), status.map(|status| status.listen.kind())) {
        (ListenKind::Inherited(name), Some(ListenKind::Inherited(other))) if name == other => {
            Err(ConfigError::OneSocketForBoth(name.clone()))
        }
        _ => Ok(tunnel),
    }
}

/// An address to listen on, with a port that exists: unlike a target's, it is needed
/// right after this.
fn parse_listen(text: &str, reach: Reach) -> Result<ListenAddr, AddressError> {
    let listen = ListenAddr::parse(text, reach)?;
    if let ListenKind::Address(Kind::Tcp(address)) = listen.kind() {
        address.port_number()?;
    }
    Ok(listen)
}

/// The override, else the target's host; without the brackets and the zone that an
/// IPv6 literal has in an address, but not in a certificate.
fn server_name(args: &Args, target: &TargetAddr) -> Result<tls::ServerName, ConfigError> {
    let name = given(&args.override_server_name)
        .or_else(|| target.host())
        .unwrap_or_default();
    let literal = name
        .strip_prefix('[')
        .and_then(|name| name.strip_suffix(']'))
        .unwrap_or(name);
    let name = match literal.split_once('%') {
        Some((address, _)) if address.contains(':') => address,
        _ if literal.contains(':') => literal,
        _ => name,
    };
    // A server that is known by its key needs no name; without one, no SNI is sent. With the
    // Workload API the server proves its SPIFFE ID: a name is only sent.
    match name.is_empty() && args.spki_pins.is_empty() && !sources::uses_workload_api(args) {
        true => Err(ConfigError::NoServerName {
            target: target.text().to_owned(),
        }),
        false => Ok(tls::ServerName {
            text: name.to_owned(),
        }),
    }
}

fn metrics(args: &Args) -> Result<metrics::Settings, GlobalError> {
    let post = match given(&args.metrics_url) {
        None => None,
        Some(text) if is_http_url(text) => Some(HttpUrl::parse(text).map_err(GlobalError::MetricsUrl)?),
        Some(_) => return Err(GlobalError::MetricsUrlScheme),
    };
    Ok(metrics::Settings {
        prefix: args.metrics_prefix.clone().unwrap_or_default(),
        graphite: args.metrics_graphite,
        post,
        interval: args.metrics_interval.positive(),
    })
}

fn is_http_url(text: &str) -> bool {
    text.starts_with("http://") || text.starts_with("https://")
}

fn status(args: &Args) -> Result<Option<status::Settings>, GlobalError> {
    let Some(text) = given(&args.status) else {
        return Ok(None);
    };
    let plain = text.strip_prefix("http://");
    let scheme_free = plain.or_else(|| text.strip_prefix("https://"));
    let listen = parse_listen(scheme_free.unwrap_or(text), Reach::Anywhere).map_err(|error| match error {
        AddressError::UnsupportedNetwork(network) if scheme_free.is_some() => {
            GlobalError::StatusNetwork(network)
        }
        AddressError::UnsupportedNetwork(_) => GlobalError::StatusLaunchd,
        error => GlobalError::StatusAddress(error),
    })?;
    let (network, transport) = match listen.kind() {
        ListenKind::Address(Kind::Tcp(_)) if plain.is_some() => ("tcp", status::Transport::Http),
        ListenKind::Address(Kind::Tcp(_)) if scheme_free.is_some() => ("tcp", status::Transport::Https),
        ListenKind::Address(Kind::Tcp(_)) => ("tcp", status::Transport::PreferHttps),
        ListenKind::Address(Kind::Unix(_)) => ("unix", status::Transport::Http),
        ListenKind::Inherited(_) => ("systemd", status::Transport::Http),
    };
    if scheme_free.is_some() && network != "tcp" {
        return Err(GlobalError::StatusNetwork(network));
    }
    Ok(Some(status::Settings {
        listen,
        transport,
        enable_shutdown: args.enable_shutdown,
        profiles: args.enable_pprof.then(|| args.command_line.clone()),
        stays_open: args.drain_status,
    }))
}

fn limits(args: &Args) -> Result<proxy::Limits, GlobalError> {
    if args.connect_timeout.is_zero() {
        return Err(GlobalError::ZeroConnectTimeout);
    }
    Ok(proxy::Limits {
        connect_timeout: args.connect_timeout.or_zero(),
        close_timeout: args.close_timeout.or_zero(),
        max_lifetime: args.max_conn_lifetime.positive(),
        max_concurrent: NonZeroU32::new(args.max_concurrent_conns),
    })
}

fn lifecycle(args: &Args) -> lifecycle::Settings {
    lifecycle::Settings {
        timed_reload: args.timed_reload.positive(),
        shutdown_timeout: args.shutdown_timeout.or_zero(),
    }
}

fn logging(args: &Args) -> logging::Settings {
    let quiet = |class| args.quiet.contains(&class);
    let destination = match args.syslog {
        true => logging::Destination::Syslog {
            tag: args.program.clone(),
        },
        false => logging::Destination::Stdout,
    };
    logging::Settings {
        destination,
        format: match args.log_format {
            Some("json") => logging::Format::Json,
            _ => logging::Format::Text,
        },
        threshold: match args.log_level {
            Some("error") => logging::Threshold::Error,
            Some("warn") => logging::Threshold::Warn,
            Some("debug") => logging::Threshold::Debug,
            _ => logging::Threshold::Info,
        },
        quiet_all: quiet("all"),
        quiet_conns: quiet("conns"),
        quiet_conn_errs: quiet("conn-errs"),
        quiet_handshake_errs: quiet("handshake-errs"),
    }
}

/// What the program starts with although it is hardly meant.
fn warnings(mode: ModeWord, args: &Args) -> Vec<String> {
    let negative = [
        (
            args.timed_reload,
            "--timed-reload is negative: certificates are reloaded on signal only",
        ),
        (
            args.shutdown_timeout,
            "--shutdown-timeout is negative: a shutdown does not wait for open connections",
        ),
        (
            args.connect_timeout,
            "--connect-timeout is negative: every connection fails at once",
        ),
        (
            args.close_timeout,
            "--close-timeout is negative: connections are cut as soon as one direction has ended",
        ),
        (
            args.max_conn_lifetime,
            "--max-conn-lifetime is negative: the age of connections is not limited",
        ),
        (
            args.metrics_interval,
            "--metrics-interval is negative: it has no effect",
        ),
    ];
    let durations = negative
        .into_iter()
        .filter(|(duration, _)| duration.is_negative())
        .map(|(_, warning)| warning.to_owned());
    let verb = match mode {
        ModeWord::Server => "allow",
        ModeWord::Client => "verify",
    };
    // An empty URI pattern is refused, and an empty text is no IP address.
    let lists = [
        (&args.common_names, verb, "cn"),
        (&args.organizational_units, verb, "ou"),
        (&args.dns_names, verb, "dns"),
        (&args.required.common_names, "require", "cn"),
        (&args.required.organizational_units, "require", "ou"),
        (&args.required.dns_names, "require", "dns"),
    ];
    let empty_rules = lists
        .into_iter()
        .filter(|(list, _, _)| list.iter().any(String::is_empty))
        .map(|(_, verb, name)| format!("--{verb}-{name} with an empty value matches nobody"));
    let names = &args.required.common_names;
    let is_impossible = names.iter().any(|name| Some(name) != names.first());
    let impossible = is_impossible.then(|| {
        "--require-cn names several common names: nobody has more than one, so nobody gets in".to_owned()
    });
    let never_posted = given(&args.metrics_url).is_some() && args.metrics_interval.positive().is_none();
    let unposted = never_posted
        .then(|| "--metrics-interval is not positive: nothing is ever posted to --metrics-url".to_owned());
    // Words that are not understood are told as an error.
    let announcers = Announcers::parse(&args.proxy_protocol_accept).ok();
    let unlimited: Vec<_> = announcers.iter().flat_map(Announcers::unlimited).collect();
    let believed = unlimited.into_iter().map(|range| {
        format!(
            "--proxy-protocol-accept={range} lets every client claim to be any other: name the load balancers"
        )
    });
    let groups = CipherGroups::parse(typed(&args.cipher_suites), args.allow_unsafe_cipher_suites);
    let unsafe_suite = groups.is_ok_and(CipherGroups::has_unsafe).then(|| {
        "--cipher-suites: UNSAFE-AZURE is left out, as suites with CBC are not supported".to_owned()
    });
    let takes_any_server =
        mode == ModeWord::Client && sources::uses_workload_api(args) && !access::has_conditions(args);
    let any_server = takes_any_server.then(|| {
        "--use-workload-api without --verify-uri takes every workload of every trust domain that the agent knows \
         for the right server"
            .to_owned()
    });
    durations
        .chain(any_server)
        .chain(empty_rules)
        .chain(impossible)
        .chain(unposted)
        .chain(unsafe_suite)
        .chain(believed)
        .collect()
}

/// A text that is not empty: for these flags, empty means not given.
fn given(text: &Option<String>) -> Option<&str> {
    text.as_deref().filter(|text| !text.is_empty())
}

/// A required text, which the parser has made sure is there; it may be empty.
fn typed(text: &Option<String>) -> &str {
    text.as_deref().unwrap_or_default()
}

#[cfg(test)]
mod tests;
