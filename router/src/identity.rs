//! Who this node is: a key pair made at first start and kept in the state directory.
//!
//! The file is text with a version, readable by its owner alone. It is written whole or not at
//! all, and checked when read: the public half must follow from the private one.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use ring::digest;
use snow::params::DHChoice;
use snow::resolvers::{CryptoResolver as _, DefaultResolver};
use wire::PeerId;

/// Name of the file in the state directory.
pub const FILE: &str = "identity.key";

const HEADER: &str = "weft identity 1";
/// The handshake that the keys are for; only its curve matters here.
const NOISE: &str = "Noise_XXpsk3_25519_ChaChaPoly_BLAKE2s";
/// A handful of short lines; anything larger is not ours.
const MAX_FILE: u64 = 4096;

/// A node's key pair and what follows from it.
#[derive(Clone, PartialEq, Eq)]
pub struct Identity {
    /// Curve25519 public key.
    pub public: [u8; 32],
    /// Curve25519 private key.
    pub private: [u8; 32],
    /// The identity, by which peers know this node.
    pub id: PeerId,
}

impl fmt::Debug for Identity {
    /// The private half never enters a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// Why there is no identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The file cannot be read or written.
    #[error("cannot {verb} the node's identity {}: {error}", path.display())]
    Io {
        /// `read` or `write`.
        verb: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The file is not what was written.
    #[error(
        "the node's identity {} is damaged ({fault}): restore it from a backup, or remove it and \
         start as a new node",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        fault: &'static str,
    },
    /// The random generator or the curve failed.
    #[error("cannot make a key pair: {0}")]
    Generate(&'static str),
}

impl Identity {
    /// Reads the identity in a state directory, or makes one if there is none.
    ///
    /// # Errors
    /// The file cannot be read, written or understood.
    pub fn load_or_create(state_dir: &Path) -> Result<Self, IdentityError> {
        let path = state_dir.join(FILE);
        match read(&path) {
            Ok(text) => parse(&text).map_err(|fault| IdentityError::Damaged { path, fault }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let identity = Self::generate()?;
                identity.write(&path).map_err(|error| IdentityError::Io {
                    verb: "write",
                    path,
                    error,
                })?;
                Ok(identity)
            }
            Err(error) => Err(IdentityError::Io {
                verb: "read",
                path,
                error,
            }),
        }
    }

    fn generate() -> Result<Self, IdentityError> {
        let params = NOISE
            .parse()
            .map_err(|_| IdentityError::Generate("the handshake is not supported"))?;
        let pair = snow::Builder::new(params)
            .generate_keypair()
            .map_err(|_| IdentityError::Generate("the kernel gave no random bytes"))?;
        let private = pair.private.try_into();
        let private = private.map_err(|_| IdentityError::Generate("the key has a wrong length"))?;
        Self::of_private(private).ok_or(IdentityError::Generate("the curve is not supported"))
    }

    /// Computes the public half and the identity.
    fn of_private(private: [u8; 32]) -> Option<Self> {
        let mut curve = DefaultResolver.resolve_dh(&DHChoice::Curve25519)?;
        curve.set(&private);
        let public: [u8; 32] = curve.pubkey().try_into().ok()?;
        let digest = digest::digest(&digest::SHA256, &public);
        let id = PeerId::from_digest(digest.as_ref().try_into().ok()?);
        Some(Self {
            public,
            private,
            id,
        })
    }

    /// Writes under another name first, so that a crash leaves no half file.
    fn write(&self, path: &Path) -> io::Result<()> {
        let new = path.with_extension("new");
        let _ = fs::remove_file(&new);
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&new)?;
        write!(
            file,
            "{HEADER}\nprivate {}\npublic {}\n",
            hex(&self.private),
            hex(&self.public)
        )?;
        file.sync_all()?;
        fs::rename(&new, path)?;
        match path.parent() {
            Some(dir) => File::open(dir)?.sync_all(),
            None => Ok(()),
        }
    }
}

/// Name of the file that counts starts.
const STARTS: &str = "starts";

/// A number for this start of the node that is larger than at any earlier start with this state
/// directory, whatever the clock says: the time in milliseconds, or one more than the last.
///
/// # Errors
/// It cannot be read or written.
pub fn next_start(state_dir: &Path) -> Result<u64, IdentityError> {
    let path = state_dir.join(STARTS);
    let failed = |verb| {
        let path = path.clone();
        move |error| IdentityError::Io { verb, path, error }
    };
    let last: u64 = match fs::read_to_string(&path) {
        Ok(text) => text.trim().parse().unwrap_or(0),
        Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
        Err(error) => return Err(failed("read")(error)),
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.map_or(0, |now| u64::try_from(now.as_millis()).unwrap_or(0));
    let start = now.max(last.saturating_add(1));
    let new = path.with_extension("new");
    let written = File::create(&new).and_then(|mut file| {
        writeln!(file, "{start}")?;
        file.sync_all()?;
        fs::rename(&new, &path)?;
        File::open(state_dir)?.sync_all()
    });
    written.map_err(failed("write"))?;
    Ok(start)
}

fn read(path: &Path) -> io::Result<String> {
    let metadata = fs::metadata(path)?;
    if metadata.len() > MAX_FILE || !metadata.is_file() {
        // Read as damaged, like any other content that is not ours.
        return Ok(String::new());
    }
    if metadata.permissions().mode() & 0o077 != 0 {
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
        tracing::warn!(path = %path.display(), "the identity was readable by others; closed it");
    }
    match fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Ok(String::new()),
        result => result,
    }
}

fn parse(text: &str) -> Result<Identity, &'static str> {
    let mut lines = text.lines();
    match lines.next() {
        Some(HEADER) => {}
        Some(line) if line.starts_with("weft identity ") => {
            return Err("it is of a version that this weft does not know");
        }
        _ => return Err("it does not begin with \"weft identity\""),
    }
    let mut key = |name| {
        let line = lines.next()?.strip_prefix(name)?;
        unhex(line.trim())
    };
    let private = key("private ").ok_or("its private key is not 64 hexadecimal digits")?;
    let public = key("public ").ok_or("its public key is not 64 hexadecimal digits")?;
    let identity = Identity::of_private(private).ok_or("its curve is not supported")?;
    if identity.public != public {
        return Err("its public key does not belong to its private key");
    }
    Ok(identity)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<[u8; 32]> {
    if text.len() != 64 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn made_once_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        let first = Identity::load_or_create(dir.path()).unwrap();
        assert_eq!(Identity::load_or_create(dir.path()).unwrap(), first);
        let mode = fs::metadata(dir.path().join(FILE))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        let other = tempfile::tempdir().unwrap();
        assert_ne!(Identity::load_or_create(other.path()).unwrap().id, first.id);
        assert!(!format!("{first:?}").contains(&hex(&first.private)));
    }

    /// RFC 7748 §6.1, Alice's pair.
    #[test]
    fn public_half_is_curve25519() {
        let private = "77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a";
        let public = "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a";
        let identity = Identity::of_private(unhex(private).unwrap()).unwrap();
        assert_eq!(hex(&identity.public), public);
    }

    #[test]
    fn damage_is_named_and_nothing_is_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        Identity::load_or_create(dir.path()).unwrap();
        let good = fs::read_to_string(&path).unwrap();
        let public = good.lines().nth(2).unwrap();
        let flipped = if public.ends_with('0') { "1" } else { "0" };
        for (text, fault) in [
            (String::new(), "does not begin"),
            ("weft identity 2\n".to_owned(), "version"),
            (good[..40].to_owned(), "private key"),
            (good[..good.len() - 2].to_owned(), "public key is not"),
            (
                format!("{}{flipped}\n", &good[..good.len() - 2]),
                "does not belong",
            ),
            ("x".repeat(5000), "does not begin"),
        ] {
            fs::write(&path, &text).unwrap();
            let error = Identity::load_or_create(dir.path())
                .unwrap_err()
                .to_string();
            assert!(
                error.contains(fault) && error.contains("restore it"),
                "{error}"
            );
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
        fs::write(&path, [0xff, 0xfe]).unwrap();
        assert!(Identity::load_or_create(dir.path()).is_err());
    }

    #[test]
    fn the_number_of_a_start_only_grows() {
        let dir = tempfile::tempdir().unwrap();
        let first = next_start(dir.path()).unwrap();
        assert!(next_start(dir.path()).unwrap() > first);
        // The clock was set back.
        fs::write(dir.path().join(STARTS), format!("{}\n", u64::MAX - 9)).unwrap();
        assert_eq!(next_start(dir.path()).unwrap(), u64::MAX - 8);
    }

    #[test]
    fn an_open_file_is_closed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        Identity::load_or_create(dir.path()).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        Identity::load_or_create(dir.path()).unwrap();
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
    }
}
