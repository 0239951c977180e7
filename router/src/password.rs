//! The cluster's password: where it comes from, and the key that handshakes use.
//!
//! A file with one password a line, or the variable `WEFT_PASSWORD`. The first is used; a second is
//! accepted from others, so that a cluster can pass from one to the next without an outage. What is
//! kept is not the password but the key that Argon2id (RFC 9106) makes of it: who records a handshake
//! with a node that he pretends to be must spend that work on every guess.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use argon2::{Algorithm, Argon2, Params, Version};
use mesh::Psk;
use zeroize::{Zeroize as _, Zeroizing};

/// The variable that may hold it.
pub const VARIABLE: &str = "WEFT_PASSWORD";

/// RFC 9106 §4's second recommended choice, for one thread: 64 MiB, three passes. A tenth of a second
/// at each start.
const MEMORY_KIB: u32 = 64 << 10;
const PASSES: u32 = 3;
/// The same for all clusters, so that nodes need to agree on nothing but the password. Guesses can
/// therefore be prepared for all clusters at once: passwords should be long.
const SALT: &[u8] = b"weft cluster password, version 1";
/// Passwords accepted at once: the present one and the one before or after it.
const MOST: usize = 2;
/// Longest password in bytes.
const LONGEST: usize = 1024;
/// Below this many bytes a password can be guessed; it is taken, with a warning.
const SHORT: usize = 16;

/// Why there is no password.
#[derive(Debug, thiserror::Error)]
pub enum PasswordError {
    /// The file cannot be read.
    #[error("cannot read the password file {}: {error}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// There is nothing in it.
    #[error("{0} holds no password: write one line, or leave the setting out for a plain network")]
    Empty(String),
    /// More than are accepted.
    #[error("{0} holds more than {MOST} passwords: the first is used, a second is accepted too")]
    TooMany(String),
    /// A line that is too long.
    #[error("{0} holds a password of more than {LONGEST} bytes")]
    TooLong(String),
    /// Both places are used.
    #[error("{VARIABLE} and --password-file are both given: choose one")]
    Twice,
    /// The memory is not to be had.
    #[error("cannot stretch the password: {0}")]
    Stretch(String),
}

/// Reads and stretches the passwords of a file.
///
/// # Errors
/// There are none, or too many.
pub fn read(path: &Path) -> Result<Vec<Psk>, PasswordError> {
    let failed = |error| PasswordError::Read {
        path: path.to_owned(),
        error,
    };
    let mode = fs::metadata(path).map_err(failed)?.mode();
    if mode & 0o004 != 0 {
        tracing::warn!(path = %path.display(), "the password file can be read by everybody: chmod 600");
    }
    let text = Zeroizing::new(fs::read_to_string(path).map_err(failed)?);
    stretch_all(&text, &format!("the password file {}", path.display()))
}

/// Stretches the passwords of a text, one a line.
///
/// # Errors
/// There are none, or too many.
pub fn stretch_all(text: &str, place: &str) -> Result<Vec<Psk>, PasswordError> {
    let lines = text.lines().map(|line| line.trim_end_matches('\r'));
    let passwords: Vec<_> = lines.filter(|line| !line.trim().is_empty()).collect();
    if passwords.is_empty() {
        return Err(PasswordError::Empty(place.to_owned()));
    }
    if passwords.len() > MOST {
        return Err(PasswordError::TooMany(place.to_owned()));
    }
    if passwords.iter().any(|password| password.len() > LONGEST) {
        return Err(PasswordError::TooLong(place.to_owned()));
    }
    if passwords.iter().any(|password| password.len() < SHORT) {
        tracing::warn!(
            place,
            "the password is short and may be guessed: 16 random letters are better"
        );
    }
    passwords.into_iter().map(stretch).collect()
}

fn stretch(password: &str) -> Result<Psk, PasswordError> {
    let failed = |error: argon2::Error| PasswordError::Stretch(error.to_string());
    let params = Params::new(MEMORY_KIB, PASSES, 1, Some(32)).map_err(failed)?;
    let mut key = [0; 32];
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into(password.as_bytes(), SALT, &mut key)
        .map_err(failed)?;
    let psk = Psk::new(key);
    key.zeroize();
    Ok(psk)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(text: &str) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("password");
        fs::write(&path, text).unwrap();
        (dir, path)
    }

    #[test]
    fn one_password_or_two() {
        let (_dir, path) = write("correct horse battery\n");
        let one = read(&path).unwrap();
        assert_eq!(one.len(), 1);
        let (_dir, path) = write("another long password\r\n\ncorrect horse battery");
        let two = read(&path).unwrap();
        assert_eq!(two.len(), 2);
        assert_eq!(two[1], one[0]);
        assert_ne!(two[0], two[1]);
    }

    #[test]
    fn faults_name_the_file_and_the_remedy() {
        for (text, fault) in [
            ("\n \n", "holds no password"),
            ("a\nb\nc\n", "more than 2"),
            (&"x".repeat(1025), "1024 bytes"),
        ] {
            let (_dir, path) = write(text);
            let error = read(&path).unwrap_err().to_string();
            assert!(
                error.contains("/password") && error.contains(fault),
                "{error}"
            );
        }
        let missing = read(Path::new("/nonexistent/password")).unwrap_err();
        assert!(missing.to_string().contains("/nonexistent/password"));
    }
}
