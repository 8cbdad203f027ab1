//! Which files make up a policy, and what a bundle may hold.

use std::collections::BTreeMap;

use regorus::Value;

use crate::archive::{self, ArchiveError};
use crate::error::LoadError;
use crate::json::{self, JsonError};
use crate::manifest::{Manifest, Version};
use crate::report::Faults;

/// One file: its name and its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Path below the bundle with slashes between its components, or the path as typed of a
    /// policy file that is no bundle.
    pub name: String,
    /// Its content.
    pub content: Vec<u8>,
}

/// The files that a policy is loaded from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Files {
    /// Policy files in version 0 of the language.
    Rego(Vec<File>),
    /// A bundle.
    Bundle {
        /// Its path, for messages.
        name: String,
        /// Its files, those that [`Files::is_wanted`].
        files: Vec<File>,
    },
}

/// Why a bundle was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BundleError {
    /// Not an archive.
    #[error("bundle read failed: archive read failed: {0}")]
    Archive(#[from] ArchiveError),
    /// The manifest can't be read.
    #[error("bundle load failed on manifest: {0}")]
    Manifest(String),
    /// The manifest does not permit what the bundle holds, or contradicts itself.
    #[error("{0}")]
    Roots(String),
    /// A data file can't be read.
    #[error("bundle load failed on {file}: {reason}")]
    Data {
        /// Its name.
        file: String,
        /// What is wrong.
        reason: String,
    },
    /// It is signed.
    #[error("verification key not provided (signed bundles are not supported: build it without signatures)")]
    Signed,
    /// It changes another bundle.
    #[error("delta bundles are not supported")]
    Delta,
    /// A policy file is not text of the language.
    #[error("{0}")]
    Parse(Faults),
}

const MANIFEST: &str = ".manifest";
const SIGNATURES: &str = ".signatures.json";
const PATCH: &str = "patch.json";

impl Files {
    /// Unpacks a bundle that is a gzip-compressed tar archive.
    pub fn from_archive(name: &str, archive: &[u8]) -> Result<Self, LoadError> {
        let files = archive::unpack(archive, Self::is_wanted).map_err(|error| LoadError::Bundle {
            name: name.to_owned(),
            reason: error.into(),
        })?;
        let files = files.into_iter().map(|(name, content)| File { name, content });
        Ok(Self::Bundle {
            name: name.to_owned(),
            files: files.collect(),
        })
    }

    /// Whether a file of this name, below a bundle, is part of it.
    pub fn is_wanted(name: &str) -> bool {
        let file = name.rsplit('/').next().unwrap_or(name);
        file.ends_with(".rego")
            || matches!(file, "data.json" | "data.yaml" | "data.yml")
            || matches!(name, MANIFEST | SIGNATURES | PATCH)
    }
}

/// A bundle taken apart.
#[derive(Debug)]
pub(crate) struct Bundle<'a> {
    pub(crate) manifest: Manifest,
    /// Policy files and their version.
    pub(crate) policies: Vec<(&'a File, Version)>,
    /// Each a part of the document `data`.
    pub(crate) data: Vec<Value>,
}

impl<'a> Bundle<'a> {
    pub(crate) fn read(files: &'a [File]) -> Result<Self, BundleError> {
        let find = |name| files.iter().find(|file| file.name == name);
        if find(PATCH).is_some() {
            return Err(BundleError::Delta);
        }
        if let Some(signatures) = find(SIGNATURES) {
            refuse_signatures(&signatures.content)?;
        }
        let manifest =
            find(MANIFEST).map_or_else(|| Ok(Manifest::default()), |file| Manifest::parse(&file.content))?;
        let mut policies = Vec::new();
        let mut data = Vec::new();
        for file in files {
            if file.name.ends_with(".rego") {
                policies.push((file, manifest.version_of(&file.name)));
            } else if let Some(document) = read_data(file)? {
                refuse_beyond_roots(&manifest, &document, "")?;
                data.push(document);
            }
        }
        Ok(Self {
            manifest,
            policies,
            data,
        })
    }
}

/// Signatures can't be verified, since there is no way to name a key, so they must not be
/// ignored either. An empty list signs nothing.
fn refuse_signatures(content: &[u8]) -> Result<(), BundleError> {
    let document: serde_json::Value = serde_json::from_slice(content).map_err(|error| BundleError::Data {
        file: SIGNATURES.to_owned(),
        reason: error.to_string(),
    })?;
    match document.get("signatures") {
        None | Some(serde_json::Value::Null) => Ok(()),
        Some(serde_json::Value::Array(list)) if list.is_empty() => Ok(()),
        Some(_) => Err(BundleError::Signed),
    }
}

/// A data file's document, below the objects that its directories are.
fn read_data(file: &File) -> Result<Option<Value>, BundleError> {
    let wrong = |reason: String| BundleError::Data {
        file: file.name.clone(),
        reason,
    };
    let (directory, base) = file.name.rsplit_once('/').unwrap_or(("", &file.name));
    let text = || std::str::from_utf8(&file.content).map_err(|error| wrong(error.to_string()));
    let document = match base {
        "data.json" => json::parse(text()?).map_err(|error: JsonError| wrong(error.to_string()))?,
        "data.yaml" | "data.yml" => read_yaml(text()?).map_err(wrong)?,
        _ => return Ok(None),
    };
    let components = directory.rsplit('/').filter(|component| !component.is_empty());
    let document = components.fold(document, |document, component| {
        Value::from(BTreeMap::from([(Value::from(component), document)]))
    });
    match document.as_object() {
        Ok(_) => Ok(Some(document)),
        Err(_) => Err(wrong("it is not an object".to_owned())),
    }
}

/// Numbers that YAML's reader can't keep exactly are refused rather than rounded.
fn read_yaml(text: &str) -> Result<Value, String> {
    /// Aliases let a small text become a large document.
    const LARGEST: usize = 16 * 1024 * 1024;
    if text.len() > LARGEST {
        return Err("YAML of more than 16 MiB (use data.json)".to_owned());
    }
    if text.trim().is_empty() {
        return Ok(Value::new_object());
    }
    let document = Value::from_yaml_str(text).map_err(|error| error.to_string())?;
    match has_rounded_number(&document) {
        true => Err("a number that YAML can't keep exactly (use data.json)".to_owned()),
        false => Ok(document),
    }
}

fn has_rounded_number(value: &Value) -> bool {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    match value {
        Value::Number(_) if value.as_i128().is_err() && value.as_u128().is_err() => {
            value.as_f64().map_or(true, |number| number.abs() >= EXACT)
        }
        Value::Array(items) => items.iter().any(has_rounded_number),
        Value::Object(members) => members.iter().any(|(_, value)| has_rounded_number(value)),
        _ => false,
    }
}

fn refuse_beyond_roots(manifest: &Manifest, value: &Value, path: &str) -> Result<(), BundleError> {
    if manifest.permits(path) {
        return Ok(());
    }
    match value {
        Value::Object(members) if manifest.leads_to_root(path) => {
            members.iter().try_for_each(|(name, value)| {
                let name = name.as_string().map(|name| name.to_string()).unwrap_or_default();
                let path = if path.is_empty() {
                    name
                } else {
                    format!("{path}/{name}")
                };
                refuse_beyond_roots(manifest, value, &path)
            })
        }
        _ => Err(BundleError::Roots(format!(
            "manifest roots [{}] do not permit data at path '/{path}' (hint: check bundle directory structure)",
            manifest.roots.join(" ")
        ))),
    }
}

#[cfg(test)]
mod tests;
