//! Passwords and PINs: never printed, wiped on drop.

use std::fmt;

use zeroize::Zeroizing;

/// A password or PIN.
#[derive(Clone)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// The secret itself. Keep the borrow short, and copy it only into memory that is wiped.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(Zeroizing::new(text))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_output_shows_no_secret() {
        let secret = Secret::from("hunter2".to_owned());
        assert_eq!(
            format!("{secret:?} {:?}", Some(&secret)),
            "Secret(..) Some(Secret(..))"
        );
        assert_eq!(secret.expose(), "hunter2");
    }
}
