//! From a request to its answer. The only place here that looks at what strangers wrote.

use hyper::Method;

use super::pprof::{self, Page};

/// What a request asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Route {
    /// `/_status`, with any method.
    Status,
    /// `/_metrics` or `/_metrics/json`, with any method.
    Metrics,
    /// `/_metrics/prometheus` or `/_metrics?format=prometheus`, with any method.
    Prometheus,
    /// `POST /_shutdown`, where it is enabled.
    Shutdown,
    /// `/_shutdown` with another method.
    ShutdownByOtherMethod,
    /// `/debug/pprof/` and what is below it, where that is enabled.
    Profile(Page),
    /// A path with empty, `.` or `..` parts, and where it leads.
    Unclean(String),
    /// Anything else.
    Unknown,
}

/// Finds out what `path` means, exactly as typed.
pub(super) fn route(method: &Method, path: &str, query: Option<&str>, has_shutdown: bool) -> Route {
    match path {
        "/_status" => Route::Status,
        "/_metrics" if wants_prometheus(query) => Route::Prometheus,
        "/_metrics" | "/_metrics/json" => Route::Metrics,
        "/_metrics/prometheus" => Route::Prometheus,
        "/_shutdown" if has_shutdown && *method == Method::POST => Route::Shutdown,
        "/_shutdown" if has_shutdown => Route::ShutdownByOtherMethod,
        _ => match clean(path) {
            Some(clean) if clean != path => Route::Unclean(location(&clean, query)),
            Some(_) | None => Route::Unknown,
        },
    }
}

/// Finds out what a path of profiles means; `None` for all other paths.
pub(super) fn profile(path: &str, query: Option<&str>) -> Option<Route> {
    let name = path.strip_prefix("/debug/pprof")?;
    match name.strip_prefix('/') {
        None if name.is_empty() => Some(Route::Unclean(location("/debug/pprof/", query))),
        None => None,
        Some(name) if clean(path).is_some_and(|clean| clean == path) => {
            Some(Route::Profile(pprof::page(name, |key| first_value(query, key))))
        }
        Some(_) => None,
    }
}

/// Whether the first value of `format` is exactly `prometheus`.
fn wants_prometheus(query: Option<&str>) -> bool {
    first_value(query, "format").is_some_and(|value| value == "prometheus")
}

/// The first value of `name`; what is no text is malformed.
fn first_value(query: Option<&str>, name: &str) -> Option<String> {
    let pairs = query.unwrap_or_default().split('&');
    let mut values = pairs.filter_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decode(key)? == name.as_bytes()).then(|| decode(value))?
    });
    String::from_utf8(values.next()?).ok()
}

/// A part of a query without its escapes. `None` for what is malformed, which counts as absent.
fn decode(part: &str) -> Option<Vec<u8>> {
    let mut decoded = Vec::with_capacity(part.len());
    let mut bytes = part.bytes();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b';' => return None,
            b'+' => b' ',
            b'%' => hexadecimal_digit(bytes.next()?)? * 16 + hexadecimal_digit(bytes.next()?)?,
            byte => byte,
        });
    }
    Some(decoded)
}

fn hexadecimal_digit(byte: u8) -> Option<u8> {
    let digit = char::from(byte).to_digit(16)?;
    u8::try_from(digit).ok()
}

/// The path without empty, `.` and `..` parts; a slash at the end stays. `None` for what
/// is no path, as in `OPTIONS *` and `CONNECT host:port`.
fn clean(path: &str) -> Option<String> {
    let mut parts = Vec::new();
    for part in path.strip_prefix('/')?.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    let end = if path.ends_with('/') && !parts.is_empty() {
        "/"
    } else {
        ""
    };
    Some(format!("/{}{end}", parts.join("/")))
}

/// The value of a `Location` header. It begins with exactly one slash, and browsers take
/// a backslash for another: escaped, it cannot lead to a foreign host.
fn location(path: &str, query: Option<&str>) -> String {
    let path = path.replace('\\', "%5C");
    match query {
        Some(query) => format!("{path}?{query}"),
        None => path,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn unclean(target: &str) -> Route {
        Route::Unclean(target.to_owned())
    }

    #[test]
    fn paths_match_exactly() {
        let cases = [
            ("/_status", Route::Status),
            ("/_metrics", Route::Metrics),
            ("/_metrics/json", Route::Metrics),
            ("/_metrics/prometheus", Route::Prometheus),
            ("/_metrics/prometheus/", Route::Unknown),
            ("/", Route::Unknown),
            ("/_status/", Route::Unknown),
            ("/_STATUS", Route::Unknown),
            ("/_metrics/", Route::Unknown),
            ("/_status.json", Route::Unknown),
            ("/%5fstatus", Route::Unknown),
            ("*", Route::Unknown),
            ("", Route::Unknown),
            ("//_status", unclean("/_status")),
            ("/x/../_status", unclean("/_status")),
            ("/./_metrics//json/", unclean("/_metrics/json/")),
            ("/../..", unclean("/")),
            ("//", unclean("/")),
            ("//\\evil.example/", unclean("/%5Cevil.example/")),
        ];
        for (path, expected) in cases {
            for method in [Method::GET, Method::POST, Method::HEAD, Method::DELETE] {
                assert_eq!(route(&method, path, None, false), expected, "{method} {path}");
            }
        }
        assert_eq!(
            route(&Method::GET, "//_status", Some("a=b"), false),
            unclean("/_status?a=b")
        );
    }

    #[test]
    fn the_first_format_of_the_query_decides() {
        let cases = [
            (None, Route::Metrics),
            (Some(""), Route::Metrics),
            (Some("format=json"), Route::Metrics),
            (Some("format"), Route::Metrics),
            (Some("format=Prometheus"), Route::Metrics),
            (Some("Format=prometheus"), Route::Metrics),
            (Some("format=prometheus;"), Route::Metrics),
            (Some("format=json&format=prometheus"), Route::Metrics),
            (Some("format=&format=prometheus"), Route::Metrics),
            (Some("format=prometheus%"), Route::Metrics),
            (Some("format=prometheus%2"), Route::Metrics),
            (Some("format=prometheus+"), Route::Metrics),
            (Some("format=prometheus"), Route::Prometheus),
            (Some("a=b&&format=prometheus&format=json"), Route::Prometheus),
            (Some("%66ormat=p%72ometheus"), Route::Prometheus),
            (Some("format=%zz&format=prometheus"), Route::Prometheus),
        ];
        for (query, expected) in cases {
            assert_eq!(
                route(&Method::GET, "/_metrics", query, false),
                expected,
                "{query:?}"
            );
        }
        let json = route(&Method::GET, "/_metrics/json", Some("format=prometheus"), false);
        assert_eq!(json, Route::Metrics);
    }

    #[test]
    fn shutdown_exists_only_when_enabled_and_takes_only_post() {
        let cases = [
            (Method::POST, true, Route::Shutdown),
            (Method::GET, true, Route::ShutdownByOtherMethod),
            (Method::HEAD, true, Route::ShutdownByOtherMethod),
            (Method::POST, false, Route::Unknown),
            (Method::GET, false, Route::Unknown),
        ];
        for (method, is_enabled, expected) in cases {
            assert_eq!(
                route(&method, "/_shutdown", None, is_enabled),
                expected,
                "{method}"
            );
        }
    }

    #[test]
    fn profiles_are_below_one_path() {
        for (path, expected) in [
            ("/debug/pprof", Some(unclean("/debug/pprof/?debug=1"))),
            ("/debug/pprof/", Some(Route::Profile(Page::Index))),
            (
                "/debug/pprof/goroutine",
                Some(Route::Profile(Page::Tasks { as_text: true })),
            ),
            ("/debug/pprof/x/y", Some(Route::Profile(Page::Unknown))),
            ("/debug/pprof/../pprof/", None),
            ("/debug/pprofx", None),
            ("/debug/", None),
            ("/", None),
        ] {
            assert_eq!(profile(path, Some("debug=1")), expected, "{path}");
        }
    }

    proptest! {
        #[test]
        fn any_query_is_read(query in "[&=;%+0-9a-f\\PC]{0,20}") {
            let _ = wants_prometheus(Some(&query));
            let _ = profile("/debug/pprof/profile", Some(&query));
        }

        #[test]
        fn a_redirect_stays_on_this_host_and_leads_to_a_clean_path(path in "[/.\\\\a-z]{0,12}") {
            if let Route::Unclean(target) = route(&Method::GET, &path, None, true) {
                prop_assert!(target.starts_with('/'));
                prop_assert!(!target.starts_with("//") && !target.contains('\\'));
                prop_assert_eq!(clean(&target), Some(target));
            }
        }
    }
}
