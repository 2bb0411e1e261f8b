//! Keys of a store whose files are encrypted, and how a file is.
//!
//! Every file has a key of its own, made of a key of the store and of 32 random bytes in the file (HKDF-SHA-256, RFC 5869), so that no key
//! meets a nonce twice: within a file each part has a nonce of its own. Parts are sealed with AES-256-GCM (NIST SP 800-38D): 16 bytes more.
//!
//! A file of keys is text, one key a line as 64 hex digits, the newest first; what is empty or begins with `#` is passed over. The newest is
//! written with, all are read with.

use std::{
    fmt, fs,
    io::{self, Read as _},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use belfry_common::storage::Failure;
use ring::{
    aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey},
    digest::{SHA256, digest},
    hkdf::{HKDF_SHA256, Salt},
    rand::{SecureRandom as _, SystemRandom},
};
use thiserror::Error;

/// What sealing adds to a part.
pub(crate) const TAG_BYTES: usize = 16;
pub(crate) const SALT_BYTES: usize = 32;
const KEY_BYTES: usize = 32;
/// A file of keys beyond this is none.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// The keys of a store, the newest first; none if its files are not encrypted. Clones share them.
#[derive(Clone, Default)]
pub struct Keys(Arc<[Key]>);

/// Says of a key only its number.
impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|key| key.number)).finish()
    }
}

struct Key {
    number: KeyNumber,
    secret: [u8; KEY_BYTES],
}

/// What a file says of the key that it is encrypted with: four bytes of a digest, from which the key cannot be told. Shown as eight
/// hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyNumber(pub(crate) u32);

impl fmt::Display for KeyNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

/// Why keys cannot be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum KeysError {
    /// The file could not be read.
    #[error(transparent)]
    Read(#[from] Failure),
    /// Others can read it.
    #[error("`{}` can be read by others (mode {mode:03o}): keys are for their owner alone, `chmod 600` it", .path.display())]
    Readable {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// A line is no key. What it says is not repeated.
    #[error("`{}`:{line}: a key is 64 hex digits, as `openssl rand -hex 32` makes them", .path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Which, from 1.
        line: usize,
    },
    /// There is no key.
    #[error("`{}` has no key: a key is a line of 64 hex digits, as `openssl rand -hex 32` makes them", .path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
}

impl Keys {
    /// Reads a file of keys: one a line, 64 hexadecimal digits, the newest first; it must be its owner's alone (mode 600).
    ///
    /// # Errors
    /// [`KeysError`]
    pub fn read(path: &Path) -> Result<Self, KeysError> {
        let (text, mode) = read_text(path)?;
        if mode & 0o077 != 0 {
            return Err(KeysError::Readable { path: path.to_owned(), mode: mode & 0o777 });
        }
        Self::parse(&text, path)
    }

    /// As [`Self::read`], of a file in a directory that is the process' alone: its mode says nothing.
    ///
    /// # Errors
    /// [`KeysError`]
    pub fn read_credential(path: &Path) -> Result<Self, KeysError> {
        let (text, _) = read_text(path)?;
        Self::parse(&text, path)
    }

    fn parse(text: &str, path: &Path) -> Result<Self, KeysError> {
        let mut keys = Vec::new();
        for (line, text) in (1..).zip(text.lines().map(str::trim)) {
            if !text.is_empty() && !text.starts_with('#') {
                let secret = secret(text).ok_or_else(|| KeysError::Line { path: path.to_owned(), line })?;
                keys.push(Key::new(secret));
            }
        }
        if keys.is_empty() { Err(KeysError::Empty { path: path.to_owned() }) } else { Ok(Self(keys.into())) }
    }

    /// The key that is written with.
    #[must_use]
    pub fn newest(&self) -> Option<KeyNumber> {
        self.0.first().map(|key| key.number)
    }

    /// What a new file says of its encryption; `None` if there are no keys.
    ///
    /// # Errors
    /// The system has no random bytes.
    pub(crate) fn new_seal(&self) -> io::Result<Option<FileSeal>> {
        let Some(key) = self.newest() else { return Ok(None) };
        let mut salt = [0; SALT_BYTES];
        SystemRandom::new().fill(&mut salt).map_err(|_| io::Error::other("the system has no random bytes"))?;
        Ok(Some(FileSeal { key, salt }))
    }

    /// What seals and opens the parts of a file that says this of its encryption. They are bound to what it is: `what`.
    ///
    /// # Errors
    /// Its key is not among these.
    pub(crate) fn cipher(&self, purpose: Purpose, seal: &FileSeal, what: &[u8]) -> Result<Cipher, KeyNumber> {
        let key = self.0.iter().find(|key| key.number == seal.key).ok_or(seal.key)?;
        Ok(key.cipher(purpose, &seal.salt, what))
    }

    #[cfg(test)]
    pub(crate) fn of(secrets: &[u8]) -> Self {
        Self(secrets.iter().map(|&byte| Key::new([byte; KEY_BYTES])).collect())
    }
}

/// A file's text, and who may read it.
fn read_text(path: &Path) -> Result<(String, u32), Failure> {
    let read = || -> io::Result<(String, u32)> {
        let file = fs::File::open(path)?;
        let mode = file.metadata()?.permissions().mode();
        let mut text = String::new();
        file.take(FILE_BYTES_MAX).read_to_string(&mut text)?;
        Ok((text, mode))
    };
    read().map_err(|source| Failure { operation: "read", path: path.to_owned(), source })
}

fn secret(text: &str) -> Option<[u8; KEY_BYTES]> {
    let digits: &[u8; 2 * KEY_BYTES] = text.as_bytes().try_into().ok()?;
    let mut secret = [0; KEY_BYTES];
    for (byte, pair) in secret.iter_mut().zip(digits.chunks_exact(2)) {
        let pair = std::str::from_utf8(pair).ok().filter(|pair| pair.bytes().all(|digit| digit.is_ascii_hexdigit()))?;
        *byte = u8::from_str_radix(pair, 16).ok()?;
    }
    Some(secret)
}

/// What a file is: a key for one kind opens no other.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Purpose {
    Block,
    Journal,
    Scratch,
}

impl Purpose {
    fn info(self) -> &'static [u8] {
        match self {
            Self::Block => b"belfry block 1",
            Self::Journal => b"belfry journal 1",
            Self::Scratch => b"belfry scratch 1",
        }
    }
}

/// What a file says of its encryption.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileSeal {
    pub(crate) key: KeyNumber,
    pub(crate) salt: [u8; SALT_BYTES],
}

impl FileSeal {
    /// What stands there if there is none.
    pub(crate) const NONE: Self = Self { key: KeyNumber(0), salt: [0; SALT_BYTES] };
}

impl Key {
    fn new(secret: [u8; KEY_BYTES]) -> Self {
        let digest = digest(&SHA256, &[b"belfry key number 1".as_slice(), &secret].concat());
        let number = digest.as_ref().first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes));
        Self { number: KeyNumber(number), secret }
    }

    fn cipher(&self, purpose: Purpose, salt: &[u8; SALT_BYTES], what: &[u8]) -> Cipher {
        let prk = Salt::new(HKDF_SHA256, salt).extract(&self.secret);
        let info = [purpose.info()];
        let okm = prk.expand(&info, &AES_256_GCM).expect("a key is shorter than the 255 digests that there can be");
        Cipher { key: LessSafeKey::new(UnboundKey::from(okm)), what: what.into() }
    }
}

/// Seals and opens the parts of one file.
pub(crate) struct Cipher {
    key: LessSafeKey,
    /// What every part is bound to.
    what: Box<[u8]>,
}

impl fmt::Debug for Cipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cipher").finish_non_exhaustive()
    }
}

/// A part is not what was sealed with this key under this number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("what was encrypted is not what is there")]
pub(crate) struct NotSealed;

impl Cipher {
    /// Seals what `bytes` has from a place on, and appends the tag. A number is used once in a file.
    pub(crate) fn seal(&self, number: u64, bytes: &mut Vec<u8>, from: usize) {
        let part = bytes.get_mut(from..).unwrap_or_default();
        let tag = self.key.seal_in_place_separate_tag(nonce(number), Aad::from(&self.what), part);
        let tag = tag.expect("a part is shorter than the 64 GiB that there can be");
        bytes.extend_from_slice(tag.as_ref());
    }

    /// Opens what was sealed, and takes the tag from it.
    ///
    /// # Errors
    /// [`NotSealed`]
    pub(crate) fn open(&self, number: u64, bytes: &mut Vec<u8>) -> Result<(), NotSealed> {
        let opened = self.key.open_in_place(nonce(number), Aad::from(&self.what), bytes);
        let length = opened.map_err(|_| NotSealed)?.len();
        bytes.truncate(length);
        Ok(())
    }
}

fn nonce(number: u64) -> Nonce {
    let mut nonce = [0; 12];
    if let Some(place) = nonce.first_chunk_mut() {
        *place = number.to_le_bytes();
    }
    Nonce::assume_unique_for_key(nonce)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_is_opened_in_its_place_of_its_file_alone() {
        let keys = Keys::of(&[7, 8]);
        let seal = keys.new_seal().unwrap().unwrap();
        let cipher = keys.cipher(Purpose::Block, &seal, b"head").unwrap();
        let mut bytes = b"beforesecret".to_vec();
        cipher.seal(64, &mut bytes, 6);
        assert_eq!((&bytes[..6], bytes.len()), (b"before".as_slice(), 12 + TAG_BYTES));
        let sealed = bytes.split_off(6);
        let open = |keys: &Keys, purpose, seal: &FileSeal, what: &[u8], number, sealed: &[u8]| {
            let mut bytes = sealed.to_vec();
            keys.cipher(purpose, seal, what).ok().map(|cipher| cipher.open(number, &mut bytes).map(|()| bytes))
        };
        assert_eq!(open(&keys, Purpose::Block, &seal, b"head", 64, &sealed), Some(Ok(b"secret".to_vec())));
        let rotated = Keys::of(&[9, 7]);
        assert_eq!(open(&rotated, Purpose::Block, &seal, b"head", 64, &sealed), Some(Ok(b"secret".to_vec())));
        assert_eq!(open(&keys, Purpose::Block, &seal, b"head", 65, &sealed), Some(Err(NotSealed)));
        assert_eq!(open(&keys, Purpose::Block, &seal, b"Head", 64, &sealed), Some(Err(NotSealed)));
        assert_eq!(open(&keys, Purpose::Journal, &seal, b"head", 64, &sealed), Some(Err(NotSealed)));
        let other = FileSeal { salt: [1; SALT_BYTES], ..seal };
        assert_eq!(open(&keys, Purpose::Block, &other, b"head", 64, &sealed), Some(Err(NotSealed)));
        assert_eq!(open(&Keys::of(&[8]), Purpose::Block, &seal, b"head", 64, &sealed), None);
        for bit in 0..sealed.len() * 8 {
            let mut flipped = sealed.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(open(&keys, Purpose::Block, &seal, b"head", 64, &flipped), Some(Err(NotSealed)));
        }
    }

    #[test]
    fn keys_are_read_from_a_file_that_is_theirs_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keys");
        let write = |text: &str, mode| {
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            Keys::read(&path).map_err(|error| error.to_string().replace(&path.display().to_string(), "keys"))
        };
        let (old, new) = ("0a".repeat(32), "fB".repeat(32));
        let keys = write(&format!("# rotated in May\n{new}\n\n  {old}\n"), 0o600).unwrap();
        assert_eq!(keys.newest(), Some(Key::new([0xFB; 32]).number));
        assert_eq!(keys.0[1].secret, [10; 32]);
        assert!(!format!("{keys:?}").contains("10"), "{keys:?}");
        let failed = |text: &str, mode| write(text, mode).unwrap_err();
        assert_eq!(
            failed(&new, 0o640),
            "`keys` can be read by others (mode 640): keys are for their owner alone, `chmod 600` it"
        );
        assert!(failed(&format!("{old}\n{}", &new[1..]), 0o600).starts_with("`keys`:2: a key is 64 hex digits"));
        assert!(failed(&format!("+{}", &new[1..]), 0o600).starts_with("`keys`:1: "));
        assert!(failed("# none\n", 0o600).starts_with("`keys` has no key"));
        assert!(!failed("secret", 0o600).contains("secret"));
    }
}
