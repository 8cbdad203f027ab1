//! From values as typed to a configuration: one function per topic.
//!
//! Checks and their order are those of Ghostunnel 1.11.1, as far as the flags exist;
//! what it found only after certificates were loaded (URI patterns, the shape of
//! `--listen`) is found here, after everything else.

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;

use super::errors::{ConfigError, GlobalError};
use super::flags::Args;
use super::{Breakage, DemoOptions, ModeWord, Run};
use crate::authorization::{Rules, UriPattern};
use crate::config::{ClientAuth, Config, Mode, Tunnel};
use crate::metrics::PostUrl;
use crate::net::{AddressError, ForwardProxy, Kind, ListenAddr, ListenKind, Reach, TargetAddr};
use crate::proxy::HeaderDetail;
use crate::{credentials, lifecycle, logging, metrics, proxy, sandbox, status, tls};

/// Settings of the process and limits of its tunnel, checked.
pub(super) struct Global {
    metrics: metrics::Settings,
    status: Option<status::Settings>,
    limits: proxy::Limits,
}

/// Checks what does not depend on the command.
pub(super) fn global(args: &Args) -> Result<Global, GlobalError> {
    if given(&args.status).is_none() {
        if args.enable_shutdown {
            return Err(GlobalError::ShutdownWithoutStatus);
        }
        if args.drain_status {
            return Err(GlobalError::DrainStatusWithoutStatus);
        }
    }
    Ok(Global {
        metrics: metrics(args)?,
        status: status(args)?,
        limits: limits(args)?,
    })
}

/// Makes a tunnel of the rest.
pub(super) fn run(mode: ModeWord, args: &Args, global: Global) -> Run {
    let tunnel = match mode {
        ModeWord::Server => server(args, global.limits),
        ModeWord::Client => client(args, global.limits),
    };
    let tunnel = tunnel.and_then(|tunnel| apart_from_status(tunnel, global.status.as_ref()));
    let config = tunnel.map(|tunnel| Config {
        tunnels: vec![Arc::new(tunnel)],
        status: global.status,
        metrics: global.metrics,
        sandbox: sandbox::Settings {
            landlock: !args.disable_landlock,
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
    let credentials = credentials(ModeWord::Server, args)?;
    check_access(args)?;
    let target = server_target(args)?;
    let header = header(args)?;
    let client_auth = match args.disable_authentication {
        true => ClientAuth::Disabled,
        false => ClientAuth::Required(Rules {
            all: args.allow_all,
            ..rules("--allow-uri", args)?
        }),
    };
    let listen = listen(args, Reach::Anywhere)?;
    let mode = Mode::Server { client_auth, header };
    Ok(Tunnel {
        listen,
        target,
        resolve_at_start: !args.skip_resolve,
        mode,
        credentials,
        limits,
    })
}

fn client(args: &Args, limits: proxy::Limits) -> Result<Tunnel, ConfigError> {
    let credentials = credentials(ModeWord::Client, args)?;
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
    let server_name = server_name(args, &target)?;
    let verify = Rules {
        all: !has_rules(args),
        ..rules("--verify-uri", args)?
    };
    let target = through_proxy(args, target)?;
    let mode = Mode::Client { server_name, verify };
    Ok(Tunnel {
        listen: listen?,
        target,
        resolve_at_start: !args.skip_resolve,
        mode,
        credentials,
        limits,
    })
}

/// Exactly one source. Half a pair counts as none, so that it is named as such only
/// beside another source.
fn credentials(mode: ModeWord, args: &Args) -> Result<credentials::Selection, ConfigError> {
    let pair = args.cert.clone().zip(args.key.clone());
    let none = mode == ModeWord::Client && args.disable_authentication;
    let count = [args.keystore.is_some(), pair.is_some(), none]
        .into_iter()
        .filter(|given| *given)
        .count();
    let (too_few, too_many) = match mode {
        ModeWord::Server => (
            ConfigError::NoServerCredentials,
            ConfigError::SeveralServerCredentials,
        ),
        ModeWord::Client => (
            ConfigError::NoClientCredentials,
            ConfigError::SeveralClientCredentials,
        ),
    };
    if count > 1 {
        return Err(too_many);
    }
    let identity = match (&args.keystore, pair) {
        (Some(path), _) => keystore(path.clone(), args),
        (None, Some((cert, key))) => credentials::Identity::Pair { cert, key },
        (None, None) if none => credentials::Identity::None,
        (None, None) => return Err(too_few),
    };
    if args.cert.is_some() != args.key.is_some() {
        return Err(ConfigError::HalfPair);
    }
    let trust = args
        .cacert
        .clone()
        .map_or(credentials::Trust::System, credentials::Trust::Bundle);
    Ok(credentials::Selection { identity, trust })
}

fn keystore(path: PathBuf, args: &Args) -> credentials::Identity {
    credentials::Identity::Keystore {
        path,
        password: given(&args.storepass).map(owned),
    }
}

/// A copy, in whatever type guards it.
fn owned<T: From<String>>(text: &str) -> T {
    text.to_owned().into()
}

/// Presence counts here, so an empty name satisfies the check although it admits nobody.
fn check_access(args: &Args) -> Result<(), ConfigError> {
    match (args.disable_authentication, args.allow_all, has_rules(args)) {
        (false, false, false) => Err(ConfigError::NoAccessRule),
        (false, true, true) => Err(ConfigError::AllowAllWithOthers),
        (true, true, _) | (true, _, true) => Err(ConfigError::DisableAuthenticationWithOthers),
        (true, false, false) | (false, true, false) | (false, false, true) => Ok(()),
    }
}

fn has_rules(args: &Args) -> bool {
    !args.ip_addresses.is_empty()
        || [
            &args.common_names,
            &args.organizational_units,
            &args.dns_names,
            &args.uris,
        ]
        .into_iter()
        .any(|list| !list.is_empty())
}

fn rules(uri_flag: &'static str, args: &Args) -> Result<Rules, ConfigError> {
    let uris: Result<Vec<_>, _> = args.uris.iter().map(|uri| UriPattern::parse(uri)).collect();
    Ok(Rules {
        common_names: args.common_names.clone(),
        organizational_units: args.organizational_units.clone(),
        dns_names: args.dns_names.clone(),
        ip_addresses: args.ip_addresses.clone(),
        uris: uris.map_err(|reason| ConfigError::UriPattern {
            flag: uri_flag,
            reason,
        })?,
        ..Rules::default()
    })
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

fn client_target(args: &Args) -> Result<TargetAddr, ConfigError> {
    TargetAddr::parse(typed(&args.target), Reach::Anywhere).map_err(client_target_error)
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
    match name.is_empty() {
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
        Some(text) if text.starts_with("http://") || text.starts_with("https://") => {
            Some(PostUrl::parse(text).map_err(GlobalError::MetricsUrl)?)
        }
        Some(_) => return Err(GlobalError::MetricsUrlScheme),
    };
    Ok(metrics::Settings {
        prefix: args.metrics_prefix.clone().unwrap_or_default(),
        graphite: args.metrics_graphite,
        post,
        interval: args.metrics_interval.positive(),
    })
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
        (&args.common_names, "cn"),
        (&args.organizational_units, "ou"),
        (&args.dns_names, "dns"),
    ];
    let empty_rules = lists
        .into_iter()
        .filter(|(list, _)| list.iter().any(String::is_empty))
        .map(|(_, name)| format!("--{verb}-{name} with an empty value matches nobody"));
    let never_posted = given(&args.metrics_url).is_some() && args.metrics_interval.positive().is_none();
    let unposted = never_posted
        .then(|| "--metrics-interval is not positive: nothing is ever posted to --metrics-url".to_owned());
    durations.chain(empty_rules).chain(unposted).collect()
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
