//! Certificates from strangers: parsing, identity, and whether a chain of them leads to
//! a trust anchor.
//!
//! Takes bytes and gives values: no I/O, no clock, no configuration. Verdicts are those of
//! Ghostunnel 1.11.1, so that a chain which has been accepted keeps being accepted: see
//! [`validate`]. Revocation is not looked at.
//!
//! `certificate` parses with the help of `der`, `strings`, `time`, `name`, `uri`,
//! `extensions`, `public_key` and `algorithm`; `identity` is what access rules see;
//! `path` builds and checks chains; `hostname` compares server names; `details` describes a
//! certificate in full; `svid` has the rules of SPIFFE.

#![forbid(unsafe_code)]

mod algorithm;
mod certificate;
mod der;
mod details;
mod error;
mod extensions;
mod hostname;
mod identity;
mod name;
mod path;
mod public_key;
mod quote;
mod strings;
mod svid;
mod time;
mod uri;

pub use certificate::Certificate;
pub use details::{
    Attribute, Details, Extension, KeyDetails, Network, PolicyMapping, SignatureKind, Subtrees, UriParts,
    decimal, dotted,
};
pub use error::ParseError;
pub use identity::Identity;
pub use name::Name;
pub use path::{
    Hint, PathError, PathErrorKind, PathRequest, TrustAnchors, Usage, ValidatedPath, validate,
    validate_counting,
};
pub use svid::{
    LeafIdError, OwnSvidError, SpiffeId, SpiffeIdError, SvidError, TrustBundles, TrustDomain, check_own_svid,
    parse_concatenated, validate_svid,
};
pub use time::Time;
pub use uri::UriError;
