//! The control socket as a file: who may open it, and what to do with one that is there already.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use tokio::net::UnixListener;

/// Why the control socket cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Another process answers there.
    #[error(
        "another process listens on the control socket {}: stop it, or choose another with --socket",
        .0.display()
    )]
    Live(PathBuf),
    /// Something that is no socket has the name.
    #[error(
        "{} is there and is not a socket: remove it, or choose another path with --socket",
        .0.display()
    )]
    NotSocket(PathBuf),
    /// The directory or the socket cannot be made.
    #[error("cannot make the control socket {}: {error}: choose another with --socket", path.display())]
    Io {
        /// The socket.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

/// Listens on a control socket, for its owner and group. A socket that a crashed router left is
/// replaced, a live one is not. To be called by the one that holds the socket's lock.
///
/// # Errors
/// Another process listens there, or the socket cannot be made.
pub fn bind(path: &Path) -> Result<UnixListener, SocketError> {
    let io = |error| SocketError::Io {
        path: path.to_owned(),
        error,
    };
    if let Some(dir) = path.parent() {
        make_dir(dir).map_err(io)?;
    }
    match fs::symlink_metadata(path) {
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(SocketError::NotSocket(path.to_owned()));
        }
        Ok(_) => match UnixStream::connect(path) {
            Ok(_) => return Err(SocketError::Live(path.to_owned())),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                fs::remove_file(path).map_err(io)?;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(io(error)),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(io(error)),
    }
    let listener = UnixListener::bind(path).map_err(io)?;
    fs::set_permissions(path, Permissions::from_mode(0o660)).map_err(io)?;
    Ok(listener)
}

/// Makes a directory that all may enter; one that is there stays as it is.
pub fn make_dir(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o755).create(dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn stale_is_replaced_live_and_foreign_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/weft.sock");
        let first = bind(&path).unwrap();
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o660
        );
        assert!(matches!(bind(&path), Err(SocketError::Live(_))));
        drop(first);
        drop(bind(&path).unwrap());

        let file = dir.path().join("file");
        fs::write(&file, "mine").unwrap();
        assert!(matches!(bind(&file), Err(SocketError::NotSocket(_))));
        assert_eq!(fs::read(&file).unwrap(), b"mine");
    }
}
