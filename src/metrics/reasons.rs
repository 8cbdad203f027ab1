//! Why things fail, as far as it matters to whoever watches: labels of metrics, and the
//! `reason` that the log tells beside its phrases.

use super::instruments::Reason;

/// Declares an enumeration whose variants are [`Reason`]s.
macro_rules! reasons {
    ($(#[$about:meta])* $name:ident { $($(#[$meaning:meta])* $variant:ident = $label:literal,)+ }) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name {
            $($(#[$meaning])* $variant,)+
        }

        impl Reason for $name {
            const ALL: &'static [Self] = &[$(Self::$variant),+];

            fn label(self) -> &'static str {
                match self {
                    $(Self::$variant => $label,)+
                }
            }

            fn index(self) -> usize {
                self as usize
            }
        }
    };
}

reasons! {
    /// Why a TLS handshake failed: with an accepted peer in server mode, with the target in
    /// client mode. The labels are one vocabulary for metrics and log, described for operators
    /// in `docs/refusals.md`: they are never given another meaning.
    HandshakeFailure {
        /// The peer showed no certificate.
        NoCertificate = "no-certificate",
        /// A certificate that the peer sent can't be parsed.
        MalformedCertificate = "malformed-certificate",
        /// The peer's certificate leads to no authority that is trusted.
        UnknownAuthority = "unknown-ca",
        /// A certificate of the peer's chain has expired.
        Expired = "expired",
        /// A certificate of the peer's chain is not valid yet.
        NotYetValid = "not-yet-valid",
        /// The peer's certificate, or an authority of its chain, is for other purposes.
        BadUsage = "bad-usage",
        /// An authority of the chain must not vouch for a name in it.
        NameConstraint = "name-constraint",
        /// The server's certificate is for another name.
        WrongName = "wrong-name",
        /// The chain does not hold in another respect.
        InvalidChain = "invalid-chain",
        /// The peer does not prove that it has the key of its certificate.
        BadSignature = "bad-signature",
        /// The chain holds, but no access rule admits the peer.
        NotAllowed = "acl-no-match",
        /// An access rule excludes the peer, whatever else admits it.
        Denied = "denied",
        /// The peer lacks something that everybody must have.
        RequirementUnmet = "requirement-unmet",
        /// The peer's public key is not among the pinned ones.
        WrongPin = "pin-mismatch",
        /// No access rule matches, and the access policy says no.
        PolicyDenied = "policy-denied",
        /// The access policy came to no verdict.
        PolicyError = "policy-error",
        /// The peer refused this side: it sent an alert.
        RefusedByPeer = "refused-by-peer",
        /// No version, cipher suite or key exchange in common.
        Incompatible = "no-common-parameters",
        /// The PROXY protocol header was missing, malformed, or from a peer that may send none.
        ProxyHeader = "proxy-header",
        /// The first bytes were not TLS.
        NotTls = "not-tls",
        /// The peer does not keep to the protocol.
        Protocol = "protocol-error",
        /// The peer left, or the network did.
        Closed = "closed",
        /// The connect timeout passed.
        TimedOut = "handshake-timeout",
        /// The process is shutting down.
        Canceled = "canceled",
        /// Something went wrong on this side.
        Internal = "internal-error",
    }
}

reasons! {
    /// How an accepted peer's handshake went that did not fail.
    HandshakeKind {
        /// Certificates and signatures on both sides.
        Full = "full",
        /// An earlier session went on; the peer was judged again.
        Resumed = "resumed",
    }
}

reasons! {
    /// Why the target of an accepted connection was not reached.
    DialFailure {
        /// Its name has no address.
        Lookup = "lookup",
        /// The connect timeout passed.
        TimedOut = "timeout",
        /// The system or the target refused the connection.
        Refused = "refused",
        /// The forward proxy was not reached, or did not reach the target.
        Proxy = "proxy",
        /// The TLS handshake with it failed; counted there with its reason too.
        Tls = "tls",
        /// The PROXY protocol header could not be built.
        HeaderNotBuilt = "header-not-built",
        /// The PROXY protocol header could not be sent.
        HeaderNotSent = "header-not-sent",
        /// The process is shutting down.
        Canceled = "canceled",
    }
}

reasons! {
    /// How a reload ended.
    ReloadResult {
        /// What was read is in force.
        Success = "success",
        /// What was in force before still is.
        Failure = "failure",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_own_place_and_label() {
        fn check<R: Reason>() {
            for (index, reason) in R::ALL.iter().enumerate() {
                assert_eq!(reason.index(), index, "{}", reason.label());
                let same = R::ALL.iter().filter(|other| other.label() == reason.label());
                assert_eq!(same.count(), 1, "{}", reason.label());
            }
        }
        check::<HandshakeFailure>();
        check::<HandshakeKind>();
        check::<DialFailure>();
        check::<ReloadResult>();
    }
}
