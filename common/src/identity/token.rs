//! Join tokens: one line that an operator copies to a new node.
//!
//! ```text
//! token = "belfry1_" base64url( seed 32 bytes, SHA-256 of the CA's SPKI 32 bytes, role u8, CRC32C of these u32 LE )
//! ```
//! The seed is an Ed25519 private key. The newcomer's side of the TLS handshake is signed with it, which
//! proves that it holds the token without ever sending it; the collector knows the public key's hash only.
//! The hash pins the collector's CA: a fake collector is refused before anything is said. The role (its place in
//! [`Role::ALL`]) lets a program that is not meant say so before the token is used up; what counts is the collector's record.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, PublicKeyData as _};
use ring::rand::{SecureRandom, SystemRandom};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use thiserror::Error;

use super::{Role, sha256};

const PREFIX: &str = "belfry1_";
const CONTENT_BYTES: usize = 32 + 32 + 1;
/// PKCS #8 (RFC 8410) of an Ed25519 private key, up to the 32 bytes of the key.
const PKCS8_ED25519: [u8; 16] = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];

/// Not a token, or one that was not copied whole.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum TokenError {
    /// It does not begin as tokens do.
    #[error("not a join token: it must begin with `{PREFIX}`")]
    Prefix,
    /// It begins well, but something is missing or changed.
    #[error("join token is damaged or incomplete: copy the whole line that `belfry token create` printed")]
    Damaged,
    /// The system gave no random numbers.
    #[error("failed to draw a random token")]
    Random,
}

/// A secret that lets its holder join, and the CA that it joins.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    seed: [u8; 32],
    authority_sha256: [u8; 32],
    role: Role,
}

impl JoinToken {
    /// Draws a token for the CA with this key.
    ///
    /// # Errors
    /// [`TokenError::Random`] when the system has no random numbers.
    pub fn generate(authority_sha256: [u8; 32], role: Role) -> Result<Self, TokenError> {
        let mut seed = [0; 32];
        SystemRandom::new().fill(&mut seed).map_err(|_| TokenError::Random)?;
        Ok(Self { seed, authority_sha256, role })
    }

    /// Reads a token as it was printed.
    ///
    /// # Errors
    /// [`TokenError`] when it is none or not whole.
    pub fn parse(text: &str) -> Result<Self, TokenError> {
        let body = text.trim().strip_prefix(PREFIX).ok_or(TokenError::Prefix)?;
        let bytes = URL_SAFE_NO_PAD.decode(body).map_err(|_| TokenError::Damaged)?;
        let (content, checksum) = bytes.split_at_checked(CONTENT_BYTES).ok_or(TokenError::Damaged)?;
        if crc32c::crc32c(content).to_le_bytes() != *checksum {
            return Err(TokenError::Damaged);
        }
        let (seed, rest) = content.split_first_chunk().ok_or(TokenError::Damaged)?;
        let (authority_sha256, rest) = rest.split_first_chunk().ok_or(TokenError::Damaged)?;
        let role = rest.first().and_then(|&place| Role::ALL.get(usize::from(place))).ok_or(TokenError::Damaged)?;
        Ok(Self { seed: *seed, authority_sha256: *authority_sha256, role: *role })
    }

    /// The line to print, once.
    #[must_use]
    pub fn reveal(&self) -> String {
        let mut bytes = [self.seed, self.authority_sha256].concat();
        bytes.push(self.role as u8);
        bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
        format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes))
    }

    /// SHA-256 of the public key of the CA that must be at the other end.
    #[must_use]
    pub fn authority_sha256(&self) -> [u8; 32] {
        self.authority_sha256
    }

    /// What its holder becomes.
    #[must_use]
    pub fn role(&self) -> Role {
        self.role
    }

    /// What the collector keeps of the token: SHA-256 of its public key (SPKI).
    ///
    /// # Errors
    /// [`TokenError::Damaged`] when the seed is no key.
    pub fn key_sha256(&self) -> Result<[u8; 32], TokenError> {
        Ok(sha256(&self.key()?.subject_public_key_info()))
    }

    /// The certificate and key with which the holder joins.
    ///
    /// # Errors
    /// [`TokenError::Damaged`] when the seed is no key.
    pub(super) fn identity(&self) -> Result<(CertificateDer<'static>, PrivateKeyDer<'static>), TokenError> {
        let key = self.key()?;
        let mut params = CertificateParams::default();
        let mut name = DistinguishedName::new();
        name.push(DnType::CommonName, "belfry-join");
        params.distinguished_name = name;
        let certificate = params.self_signed(&key).map_err(|_| TokenError::Damaged)?;
        Ok((certificate.der().clone(), self.private_key()))
    }

    fn key(&self) -> Result<KeyPair, TokenError> {
        KeyPair::try_from(&self.private_key()).map_err(|_| TokenError::Damaged)
    }

    fn private_key(&self) -> PrivateKeyDer<'static> {
        PrivatePkcs8KeyDer::from([PKCS8_ED25519.as_slice(), &self.seed].concat()).into()
    }
}

/// Never shows the secret.
impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JoinToken(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_survives_print_and_copy() {
        for role in Role::ALL {
            let token = JoinToken::generate([7; 32], role).unwrap();
            let text = format!("  {}\n", token.reveal());
            let again = JoinToken::parse(&text).unwrap();
            assert_eq!(again, token);
            assert_eq!(again.key_sha256(), token.key_sha256());
            assert_eq!((again.authority_sha256(), again.role()), ([7; 32], role));
        }
    }

    #[test]
    fn a_token_with_one_character_wrong_is_refused() {
        let text = JoinToken::generate([7; 32], Role::Agent).unwrap().reveal();
        for at in PREFIX.len()..text.len() {
            let mut bytes = text.clone().into_bytes();
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(bytes).unwrap();
            assert_eq!(JoinToken::parse(&changed), Err(TokenError::Damaged), "at {at}");
            assert_eq!(JoinToken::parse(&text[..at]), Err(TokenError::Damaged));
        }
        assert_eq!(JoinToken::parse("hunter2"), Err(TokenError::Prefix));
    }

    #[test]
    fn a_token_does_not_show_itself_in_logs() {
        assert_eq!(format!("{:?}", JoinToken::generate([7; 32], Role::Agent).unwrap()), "JoinToken(…)");
    }
}
