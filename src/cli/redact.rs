//! The command line as it may be shown: without passwords.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;

use crate::net;

/// Flags whose values are secrets.
const SECRETS: [&str; 2] = ["storepass", "pkcs11-pin"];

/// What stands for a secret.
const MASK: &str = "xxxxx";

/// The program's name and the words, with zero bytes between them. What came from response files
/// is not in it, only their names.
pub(super) fn command_line(program: &str, words: &[OsString]) -> Vec<u8> {
    let mut line = program.as_bytes().to_vec();
    let mut is_secret = false;
    for word in words {
        line.push(0);
        let bytes = word.as_bytes();
        let equals = bytes.iter().position(|byte| *byte == b'=');
        let (flag, value) = match equals.and_then(|place| bytes.split_at_checked(place)) {
            Some((flag, value)) if flag.starts_with(b"--") => (flag, value),
            _ => (bytes, &[][..]),
        };
        if is_secret {
            // The word behind a flag is its value, whatever it looks like.
            line.extend_from_slice(MASK.as_bytes());
            is_secret = false;
        } else if SECRETS
            .iter()
            .any(|name| flag.strip_prefix(b"--") == Some(name.as_bytes()))
        {
            line.extend_from_slice(flag);
            match value.is_empty() {
                true => is_secret = true,
                false => line.extend_from_slice(format!("={MASK}").as_bytes()),
            }
        } else {
            let (start, text) = match value.split_first() {
                Some((_, text)) => ([flag, b"="].concat(), text),
                None => (Vec::new(), bytes),
            };
            line.extend_from_slice(&start);
            line.extend_from_slice(&without_password(text));
        }
    }
    line
}

/// Any URL may hold one, whichever flag it is for.
fn without_password(text: &[u8]) -> Vec<u8> {
    if !text.contains(&b'@') || !text.windows(2).any(|pair| pair == b"//") {
        return text.to_vec();
    }
    let url = str::from_utf8(text)
        .ok()
        .and_then(|text| net::Url::parse(text).ok());
    url.map_or_else(|| MASK.into(), |url| url.to_string().into_bytes())
}

#[cfg(test)]
mod tests {
    use super::super::flags::FLAGS;
    use super::*;

    fn shown(words: &str) -> String {
        let words: Vec<OsString> = words.split(' ').map(OsString::from).collect();
        let line = command_line("ghostunnel", &words);
        String::from_utf8(line).expect("text").replace('\0', " ")
    }

    #[test]
    fn secrets_are_masked_and_nothing_else() {
        for (words, expected) in [
            ("server --listen=:1", "ghostunnel server --listen=:1"),
            ("--storepass=a=b server", "ghostunnel --storepass=xxxxx server"),
            ("--storepass= server", "ghostunnel --storepass=xxxxx server"),
            ("--storepass secret server", "ghostunnel --storepass xxxxx server"),
            ("--storepass --storepass=secret", "ghostunnel --storepass xxxxx"),
            ("--pkcs11-pin 1234", "ghostunnel --pkcs11-pin xxxxx"),
            ("--pkcs11-pin=1234", "ghostunnel --pkcs11-pin=xxxxx"),
            ("--proxy=http://u:p@h:1", "ghostunnel --proxy=http://u:xxxxx@h:1"),
            ("--proxy http://u:p@h:1", "ghostunnel --proxy http://u:xxxxx@h:1"),
            ("--metrics-url http://u:p@h:x/", "ghostunnel --metrics-url xxxxx"),
            (
                "--allow-uri=spiffe://a/b?c=d",
                "ghostunnel --allow-uri=spiffe://a/b?c=d",
            ),
            (
                "@/etc/flags --storepass @/etc/pass",
                "ghostunnel @/etc/flags --storepass xxxxx",
            ),
            ("--target=unix:@x=y", "ghostunnel --target=unix:@x=y"),
        ] {
            assert_eq!(shown(words), expected, "{words}");
        }
    }

    #[test]
    fn every_flag_that_sounds_like_a_secret_is_one() {
        for flag in FLAGS {
            let sounds = ["pass", "pin", "secret"];
            let is_pin_of_keys = flag.name.ends_with("spki-pin");
            let sounds_secret = sounds.iter().any(|part| flag.name.ends_with(part)) && !is_pin_of_keys;
            assert_eq!(sounds_secret, SECRETS.contains(&flag.name), "{}", flag.name);
        }
    }
}
