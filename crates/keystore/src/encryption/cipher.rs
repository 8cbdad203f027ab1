//! Ciphers in CBC mode, for decryption. Each takes the padding off.

use aws_lc_rs::cipher::{
    AES_128, AES_192, AES_256, Algorithm as Aes, DecryptionContext, PaddedBlockDecryptingKey,
    UnboundCipherKey,
};
use aws_lc_rs::iv::FixedLength;
use cbc::Decryptor;
use cbc::cipher::{BlockModeDecrypt, InnerIvInit, KeyInit, array::Array};
use des::{TdesEde2, TdesEde3};
use rc2::Rc2;
use zeroize::Zeroizing;

use super::EncryptionError;

/// Ciphers of PKCS#12's PBES1. All have blocks of eight bytes and are used in CBC mode.
#[derive(Debug, Clone, Copy)]
pub(crate) enum OldCipher {
    TripleDes,
    TripleDesTwoKeys,
    Rc2Bits128,
    Rc2Bits40,
}

/// Ciphers of PBES2, in CBC mode.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Cipher {
    Aes128,
    Aes192,
    Aes256,
    TripleDes,
}

impl OldCipher {
    pub(super) fn key_length(self) -> usize {
        match self {
            Self::TripleDes => 24,
            Self::TripleDesTwoKeys | Self::Rc2Bits128 => 16,
            Self::Rc2Bits40 => 5,
        }
    }

    pub(super) fn decrypt(
        self,
        key: &[u8],
        iv: &[u8],
        text: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, EncryptionError> {
        match self {
            Self::TripleDes => decrypt_triple_des(key, iv, text),
            Self::TripleDesTwoKeys => {
                let cipher = TdesEde2::new_from_slice(key).map_err(|_| EncryptionError::Malformed)?;
                decrypt_cbc(cipher, iv, text)
            }
            Self::Rc2Bits128 => decrypt_cbc(Rc2::new_with_eff_key_len(key, 128), iv, text),
            Self::Rc2Bits40 => decrypt_cbc(Rc2::new_with_eff_key_len(key, 40), iv, text),
        }
    }
}

impl Cipher {
    pub(super) fn key_length(self) -> usize {
        match self {
            Self::Aes128 => 16,
            Self::Aes192 | Self::TripleDes => 24,
            Self::Aes256 => 32,
        }
    }

    pub(super) fn decrypt(
        self,
        key: &[u8],
        iv: &[u8],
        text: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, EncryptionError> {
        match self {
            Self::Aes128 => decrypt_aes(&AES_128, key, iv, text),
            Self::Aes192 => decrypt_aes(&AES_192, key, iv, text),
            Self::Aes256 => decrypt_aes(&AES_256, key, iv, text),
            Self::TripleDes => decrypt_triple_des(key, iv, text),
        }
    }
}

fn decrypt_aes(
    algorithm: &'static Aes,
    key: &[u8],
    iv: &[u8],
    text: &[u8],
) -> Result<Zeroizing<Vec<u8>>, EncryptionError> {
    const AES_BLOCK: usize = 16;
    let iv: [u8; AES_BLOCK] = iv.try_into().map_err(|_| EncryptionError::Malformed)?;
    if text.is_empty() || !text.len().is_multiple_of(AES_BLOCK) {
        return Err(EncryptionError::WrongPassword);
    }
    let key = UnboundCipherKey::new(algorithm, key).map_err(|_| EncryptionError::Malformed)?;
    let key = PaddedBlockDecryptingKey::cbc_pkcs7(key).map_err(|_| EncryptionError::Malformed)?;
    let mut buffer = Zeroizing::new(text.to_vec());
    let context = DecryptionContext::Iv128(FixedLength::from(iv));
    let length = key
        .decrypt(&mut buffer, context)
        .map_err(|_| EncryptionError::WrongPassword)?
        .len();
    buffer.truncate(length);
    Ok(buffer)
}

pub(crate) fn decrypt_triple_des(
    key: &[u8],
    iv: &[u8],
    text: &[u8],
) -> Result<Zeroizing<Vec<u8>>, EncryptionError> {
    let cipher = TdesEde3::new_from_slice(key).map_err(|_| EncryptionError::Malformed)?;
    decrypt_cbc(cipher, iv, text)
}

/// The block of the older ciphers.
pub(super) const BLOCK: usize = 8;

fn decrypt_cbc<C>(cipher: C, iv: &[u8], text: &[u8]) -> Result<Zeroizing<Vec<u8>>, EncryptionError>
where
    Decryptor<C>: InnerIvInit<Inner = C> + BlockModeDecrypt,
    C: cbc::cipher::BlockCipherDecrypt,
{
    let mut decryptor = Decryptor::inner_iv_slice_init(cipher, iv).map_err(|_| EncryptionError::Malformed)?;
    if text.is_empty() || !text.len().is_multiple_of(BLOCK) {
        return Err(EncryptionError::WrongPassword);
    }
    let mut buffer = Zeroizing::new(text.to_vec());
    for chunk in buffer.chunks_exact_mut(BLOCK) {
        let block = <&mut Array<u8, _>>::try_from(chunk).map_err(|_| EncryptionError::Malformed)?;
        decryptor.decrypt_block(block);
    }
    let length = unpadded(&buffer).ok_or(EncryptionError::WrongPassword)?;
    buffer.truncate(length);
    Ok(buffer)
}

/// The length without padding (RFC 8018, section 6.1.1, step 4).
fn unpadded(text: &[u8]) -> Option<usize> {
    let padding = *text.last()?;
    let length = text.len().checked_sub(usize::from(padding))?;
    let is_padding = text.get(length..)?.iter().all(|byte| *byte == padding);
    (is_padding && (1..=BLOCK).contains(&usize::from(padding))).then_some(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_must_be_whole() {
        for (text, expected) in [
            (&[1, 2, 3, 4, 5, 6, 7, 1][..], Some(7)),
            (&[8; 8], Some(0)),
            (&[1, 2, 3, 4, 5, 3, 3, 3], Some(5)),
            (&[1, 2, 3, 4, 5, 2, 3, 3], None),
            (&[1, 2, 3, 4, 5, 6, 7, 0], None),
            (&[9; 16], None),
            (&[8; 4], None),
            (&[], None),
        ] {
            assert_eq!(unpadded(text), expected, "{text:?}");
        }
    }
}
