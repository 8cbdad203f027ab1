//! Why things fail, as far as it matters to whoever watches. Labels of metrics.

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
    /// client mode.
    HandshakeFailure {
        /// The peer left, or the network did.
        Closed = "closed",
        /// The connect timeout passed.
        TimedOut = "timeout",
        /// The process is shutting down.
        Canceled = "canceled",
        /// The PROXY protocol header was missing, malformed, or from a peer that may send none.
        ProxyHeader = "proxy_header",
        /// The first bytes were not TLS.
        NotTls = "not_tls",
        /// No version, cipher suite or key exchange in common.
        Incompatible = "incompatible",
        /// The peer does not keep to the protocol.
        Protocol = "protocol",
        /// The peer refused this side: it sent an alert.
        RefusedByPeer = "refused_by_peer",
        /// The peer showed no certificate.
        NoCertificate = "no_certificate",
        /// The peer's certificate leads to no authority that is trusted.
        UnknownAuthority = "unknown_authority",
        /// A certificate of the peer's chain has expired, or is not valid yet.
        Expired = "expired",
        /// The server's certificate is for another name.
        WrongName = "wrong_name",
        /// The peer's certificate, its chain or its signature is no good in another way.
        InvalidCertificate = "invalid_certificate",
        /// The certificate is good, but no access rule admits the peer.
        NotAllowed = "not_allowed",
        /// Something went wrong on this side.
        Internal = "internal",
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
        HeaderNotBuilt = "header_not_built",
        /// The PROXY protocol header could not be sent.
        HeaderNotSent = "header_not_sent",
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
