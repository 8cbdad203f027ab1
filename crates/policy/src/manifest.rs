//! The manifest of a bundle: what it may hold, and in which version of the language.

use serde_json::Value;

use crate::bundle::BundleError;

/// What `.manifest` says. Unknown members are ignored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Manifest {
    /// Free text of whoever built the bundle.
    pub(crate) revision: String,
    /// Paths in the document `data` below which the bundle may define something; without slashes
    /// around them. An empty one permits everything.
    pub(crate) roots: Vec<String>,
    version: Version,
    /// Patterns for paths of files, and their version.
    exceptions: Vec<(String, Version)>,
}

/// Version of the language.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    V0,
    V1,
}

impl Default for Manifest {
    fn default() -> Self {
        Self {
            revision: String::new(),
            roots: vec![String::new()],
            version: Version::V1,
            exceptions: Vec::new(),
        }
    }
}

impl Manifest {
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, BundleError> {
        let wrong = |what: &str| BundleError::Manifest(what.to_owned());
        let document: Value =
            serde_json::from_slice(bytes).map_err(|error| BundleError::Manifest(error.to_string()))?;
        let members = document.as_object().ok_or_else(|| wrong("it is not an object"))?;
        let mut manifest = Self::default();
        match members.get("revision") {
            None | Some(Value::Null) => {}
            Some(Value::String(revision)) => manifest.revision.clone_from(revision),
            Some(_) => return Err(wrong("revision is not a string")),
        }
        match members.get("roots") {
            None | Some(Value::Null) => {}
            Some(roots) => {
                manifest.roots = parse_roots(roots).ok_or_else(|| wrong("roots are not strings"))?
            }
        }
        manifest.refuse_overlap()?;
        let version_error = || wrong("rego_version is neither 0 nor 1");
        match members.get("rego_version") {
            None | Some(Value::Null) => {}
            Some(version) => manifest.version = parse_version(version).ok_or_else(version_error)?,
        }
        match members.get("file_rego_versions") {
            None | Some(Value::Null) => {}
            Some(Value::Object(files)) => {
                for (pattern, version) in files {
                    let version = parse_version(version).ok_or_else(version_error)?;
                    let pattern = pattern.trim_start_matches('/').to_owned();
                    manifest.exceptions.push((pattern, version));
                }
            }
            Some(_) => return Err(wrong("file_rego_versions is not an object")),
        }
        Ok(manifest)
    }

    fn refuse_overlap(&self) -> Result<(), BundleError> {
        let overlaps = |a: &String, b: &String| is_below(a, b) || is_below(b, a);
        for (index, root) in self.roots.iter().enumerate() {
            if let Some(other) = self
                .roots
                .iter()
                .skip(index + 1)
                .find(|other| overlaps(root, other))
            {
                let reason = format!("manifest has overlapped roots: '{root}' and '{other}'");
                return Err(BundleError::Roots(reason));
            }
        }
        Ok(())
    }

    /// The version of one file: an exact path goes before a pattern.
    pub(crate) fn version_of(&self, path: &str) -> Version {
        let exact = self.exceptions.iter().find(|(pattern, _)| pattern == path);
        let fitting = || self.exceptions.iter().find(|(pattern, _)| fits(pattern, path));
        exact
            .or_else(fitting)
            .map_or(self.version, |(_, version)| *version)
    }

    /// Whether all of `path`, slashes between its components, is the bundle's to define.
    pub(crate) fn permits(&self, path: &str) -> bool {
        self.roots.iter().any(|root| is_below(path, root))
    }

    /// Whether something below `path` is.
    pub(crate) fn leads_to_root(&self, path: &str) -> bool {
        self.roots.iter().any(|root| is_below(root, path))
    }
}

fn parse_roots(roots: &Value) -> Option<Vec<String>> {
    let roots = roots.as_array()?.iter();
    roots
        .map(|root| Some(root.as_str()?.trim_matches('/').to_owned()))
        .collect()
}

fn parse_version(version: &Value) -> Option<Version> {
    match version.as_u64()? {
        0 => Some(Version::V0),
        1 => Some(Version::V1),
        _ => None,
    }
}

/// Whether `path` is `root` or below it.
fn is_below(path: &str, root: &str) -> bool {
    match path.strip_prefix(root) {
        Some(rest) => root.is_empty() || rest.is_empty() || rest.starts_with('/'),
        None => false,
    }
}

/// `*` stands for anything without a slash, `**` for anything.
fn fits(pattern: &str, path: &str) -> bool {
    let Some(star) = pattern.find('*') else {
        return pattern == path;
    };
    let (start, rest) = pattern.split_at_checked(star).unwrap_or((pattern, ""));
    let Some(path) = path.strip_prefix(start) else {
        return false;
    };
    let (rest, crosses) = match rest.strip_prefix("**") {
        Some(rest) => (rest, true),
        None => (rest.strip_prefix('*').unwrap_or(rest), false),
    };
    let reach = if crosses {
        path.len()
    } else {
        path.find('/').unwrap_or(path.len())
    };
    (0..=reach).any(|end| path.get(end..).is_some_and(|path| fits(rest, path)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Manifest, String> {
        Manifest::parse(text.as_bytes()).map_err(|error| error.to_string())
    }

    #[test]
    fn an_empty_manifest_permits_everything_in_version_one() {
        for text in ["{}", r#"{"roots":null,"revision":null,"metadata":{"a":1}}"#] {
            let manifest = parse(text).expect("valid");
            assert_eq!(manifest, Manifest::default());
            assert!(manifest.permits("a/b") && manifest.permits(""));
            assert_eq!(manifest.version_of("a.rego"), Version::V1);
        }
    }

    #[test]
    fn roots_bound_what_a_bundle_defines() {
        let manifest = parse(r#"{"roots":["/policy/","a/b"]}"#).expect("valid");
        for (path, permitted, leads) in [
            ("policy", true, true),
            ("policy/x", true, false),
            ("policyx", false, false),
            ("a", false, true),
            ("a/b/c", true, false),
            ("a/c", false, false),
            ("", false, true),
        ] {
            let found = (manifest.permits(path), manifest.leads_to_root(path));
            assert_eq!(found, (permitted, leads), "{path}");
        }
        let nothing = parse(r#"{"roots":[]}"#).expect("valid");
        assert!(!nothing.permits("") && !nothing.permits("a"));
    }

    #[test]
    fn versions_are_by_file_before_bundle() {
        let text = r#"{"rego_version":0,"file_rego_versions":{"/a.rego":1,"lib/*.rego":1,"deep/**":1}}"#;
        let manifest = parse(text).expect("valid");
        for (path, expected) in [
            ("a.rego", Version::V1),
            ("b.rego", Version::V0),
            ("lib/x.rego", Version::V1),
            ("lib/x/y.rego", Version::V0),
            ("deep/x/y.rego", Version::V1),
        ] {
            assert_eq!(manifest.version_of(path), expected, "{path}");
        }
    }

    #[test]
    fn wrong_manifests_are_refused() {
        for text in [
            "",
            "[]",
            r#"{"roots":"a"}"#,
            r#"{"roots":[1]}"#,
            r#"{"roots":["a","a/b"]}"#,
            r#"{"roots":["","b"]}"#,
            r#"{"rego_version":2}"#,
            r#"{"rego_version":"1"}"#,
            r#"{"file_rego_versions":[]}"#,
            r#"{"file_rego_versions":{"a":7}}"#,
            r#"{"revision":1}"#,
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
