//! Passwords in the encodings that keystores use.

use zeroize::Zeroizing;

/// A password in both encodings that are in use. It has no `Debug`, so that no log can hold it.
pub(crate) struct Password<'a> {
    text: &'a str,
    /// What PKCS#12's own key derivation takes: a BMPString that ends in a zero (RFC 7292,
    /// appendix B.1).
    pub(super) bmp: Zeroizing<Vec<u8>>,
}

impl<'a> Password<'a> {
    /// `None`: a BMPString can't hold it.
    pub(crate) fn terminated(text: &'a str) -> Option<Self> {
        let bmp = utf16(text)?;
        let mut terminated = Zeroizing::new(Vec::with_capacity(bmp.len().saturating_add(2)));
        terminated.extend_from_slice(&bmp);
        terminated.extend_from_slice(&[0, 0]);
        Some(Self {
            text,
            bmp: terminated,
        })
    }

    /// No password at all, not even the zero at its end. Some programs mean this by an empty
    /// password.
    pub(crate) fn absent() -> Self {
        Self {
            text: "",
            bmp: Zeroizing::default(),
        }
    }

    /// As it was typed.
    pub(crate) fn text(&self) -> &str {
        self.text
    }

    /// The password where PKCS#12's key derivation is not used.
    pub(crate) fn text_only(text: &'a str) -> Self {
        Self {
            bmp: Self::terminated(text)
                .map(|password| password.bmp)
                .unwrap_or_default(),
            text,
        }
    }
}

/// UTF-16 with the higher byte first. `None` if there is a character beyond U+FFFF.
pub(crate) fn utf16(text: &str) -> Option<Zeroizing<Vec<u8>>> {
    // A byte of UTF-8 never becomes more than two.
    let mut encoded = Zeroizing::new(Vec::with_capacity(text.len().saturating_mul(2)));
    for character in text.chars() {
        let unit = u16::try_from(u32::from(character)).ok()?;
        encoded.extend_from_slice(&unit.to_be_bytes());
    }
    Some(encoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_encoded_unless_they_do_not_fit() {
        assert_eq!(utf16("aß€").as_deref(), Some(&vec![0, 0x61, 0, 0xdf, 0x20, 0xac]));
        assert_eq!(utf16("\u{1f511}"), None);
        let terminated = Password::terminated("a").expect("fits");
        assert_eq!(*terminated.bmp, [0, 0x61, 0, 0]);
        assert!(Password::absent().bmp.is_empty());
    }
}
