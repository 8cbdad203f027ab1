//! Object identifiers, encoded.

macro_rules! under {
    ($name:ident = $arc:tt . $($last:literal)+; $($rest:tt)*) => {
        pub(crate) const $name: &[u8] = under!(@arc $arc $($last)+);
        under!($($rest)*);
    };
    () => {};
    (@arc rsadsi $($last:literal)+) => { &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, $($last),+] };
    (@arc nist $($last:literal)+) => { &[0x60, 0x86, 0x48, 1, 0x65, 3, 4, $($last),+] };
    (@arc root $($last:literal)+) => { &[$($last),+] };
}

under! {
    PBE_MD5_DES = rsadsi . 1 5 3;
    PBKDF2 = rsadsi . 1 5 12;
    PBES2 = rsadsi . 1 5 13;
    PBMAC1 = rsadsi . 1 5 14;
    DATA = rsadsi . 1 7 1;
    SIGNED_DATA = rsadsi . 1 7 2;
    ENCRYPTED_DATA = rsadsi . 1 7 6;
    X509_CERTIFICATE = rsadsi . 1 9 22 1;
    PBE_SHA1_RC4_128 = rsadsi . 1 12 1 1;
    PBE_SHA1_RC4_40 = rsadsi . 1 12 1 2;
    PBE_SHA1_3DES = rsadsi . 1 12 1 3;
    PBE_SHA1_2DES = rsadsi . 1 12 1 4;
    PBE_SHA1_RC2_128 = rsadsi . 1 12 1 5;
    PBE_SHA1_RC2_40 = rsadsi . 1 12 1 6;
    KEY_BAG = rsadsi . 1 12 10 1 1;
    SHROUDED_KEY_BAG = rsadsi . 1 12 10 1 2;
    CERTIFICATE_BAG = rsadsi . 1 12 10 1 3;
    MD5 = rsadsi . 2 5;
    HMAC_SHA1 = rsadsi . 2 7;
    HMAC_SHA256 = rsadsi . 2 9;
    HMAC_SHA384 = rsadsi . 2 10;
    HMAC_SHA512 = rsadsi . 2 11;
    DES_EDE3_CBC = rsadsi . 3 7;
    SHA1 = root . 0x2b 0x0e 3 2 0x1a;
    SCRYPT = root . 0x2b 6 1 4 1 0xda 0x47 4 11;
    AES_128_CBC = nist . 1 2;
    AES_192_CBC = nist . 1 22;
    AES_256_CBC = nist . 1 42;
    SHA256 = nist . 2 1;
    SHA384 = nist . 2 2;
    SHA512 = nist . 2 3;
    // Sun's, for the keys in JCEKS and JKS.
    SUN_JCE_KEY = root . 0x2b 6 1 4 1 42 2 19 1;
    SUN_JKS_KEY = root . 0x2b 6 1 4 1 42 2 17 1 1;
}

/// What operators know algorithms by that are not supported.
pub(super) fn known_name(oid: &[u8]) -> Option<&'static str> {
    Some(match oid {
        PBE_SHA1_RC4_128 => "128-bit RC4",
        PBE_SHA1_RC4_40 => "40-bit RC4",
        PBE_MD5_DES => "PBE-MD5-DES",
        SCRYPT => "scrypt",
        MD5 => "MD5",
        _ => return None,
    })
}
