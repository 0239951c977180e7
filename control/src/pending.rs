//! Releases that could not be told to the router: written by the CNI plugin when a `DEL` finds no
//! router, read by the router.
//!
//! One small file for each attachment, in the directory `pending-detach` beside the control
//! socket, holding a [`DetachRequest`] as JSON. A file appears complete or not at all.
//!
//! The router reads the directory when it starts, before it answers anything, and again from time
//! to time, because a `DEL` may also have given up on a router that was merely slow. It carries
//! out a request and forgets it under the same lock as `attach`, and an `attach` first carries
//! out what is pending for the same attachment: otherwise an old release could take the address
//! of a container that was added again.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::{fs, process};

use crate::{AttachmentRef, DetachRequest};

/// A release that is waiting for the router.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pending {
    /// Where it is written.
    pub file: PathBuf,
    /// What to release.
    pub request: DetachRequest,
}

/// What [`list`] found.
#[derive(Debug, Default)]
pub struct Listing {
    /// The releases, in the order of their files' names.
    pub pending: Vec<Pending>,
    /// Files that cannot be read, with the reason.
    pub unreadable: Vec<(PathBuf, io::Error)>,
}

/// The directory of the releases for the router at `socket`.
pub fn directory(socket: &Path) -> PathBuf {
    socket
        .parent()
        .unwrap_or(Path::new("/"))
        .join("pending-detach")
}

/// Notes a release for the router at `socket`. Noting it again changes nothing.
pub fn note(socket: &Path, request: &DetachRequest) -> io::Result<PathBuf> {
    let directory = directory(socket);
    fs::create_dir_all(&directory)?;
    let file = file_of(socket, request);
    let draft = file.with_extension(format!("draft-{}", process::id()));
    let written = fs::File::create(&draft)
        .and_then(|mut out| {
            out.write_all(&serde_json::to_vec(request)?)?;
            out.sync_all()
        })
        .and_then(|()| fs::rename(&draft, &file))
        .and_then(|()| fs::File::open(&directory)?.sync_all());
    if written.is_err() {
        // What failed is reported; a draft that stays is ignored by the reader.
        let _ = fs::remove_file(&draft);
    }
    written.map(|()| file)
}

/// What is pending for one attachment.
pub fn find(socket: &Path, request: &DetachRequest) -> io::Result<Option<Pending>> {
    let file = file_of(socket, request);
    match read(&file) {
        Ok(found) if found == *request => Ok(Some(Pending {
            file,
            request: found,
        })),
        // Another attachment whose digest is the same.
        Ok(_) => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// All that is pending. An absent directory is an empty one.
pub fn list(socket: &Path) -> io::Result<Listing> {
    let entries = match fs::read_dir(directory(socket)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Ok(Listing::default());
        }
        entries => entries?,
    };
    let mut files = entries
        .map(|entry| Ok(entry?.path()))
        .collect::<io::Result<Vec<_>>>()?;
    files.retain(|file| {
        file.extension()
            .is_some_and(|extension| extension == EXTENSION)
    });
    files.sort();
    let mut listing = Listing::default();
    for file in files {
        match read(&file) {
            Ok(request) => listing.pending.push(Pending { file, request }),
            // Carried out by someone else meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => listing.unreadable.push((file, error)),
        }
    }
    Ok(listing)
}

/// Forgets a release that was carried out. One that is gone already is no error.
pub fn forget(pending: &Pending) -> io::Result<()> {
    match fs::remove_file(&pending.file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

const EXTENSION: &str = "json";

fn file_of(socket: &Path, request: &DetachRequest) -> PathBuf {
    let digest = AttachmentRef::from(request.clone()).digest();
    directory(socket).join(format!("{digest:016x}.{EXTENSION}"))
}

fn read(file: &Path) -> io::Result<DetachRequest> {
    Ok(serde_json::from_slice(&fs::read(file)?)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(container_id: &str) -> DetachRequest {
        AttachmentRef::new(container_id, "eth0").into()
    }

    #[test]
    fn noted_found_and_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("run/weft.sock");
        assert_eq!(list(&socket).unwrap().pending, []);
        assert_eq!(find(&socket, &request("a")).unwrap(), None);

        note(&socket, &request("a")).unwrap();
        note(&socket, &request("a")).unwrap();
        note(&socket, &request("b")).unwrap();
        let Listing {
            pending,
            unreadable,
        } = list(&socket).unwrap();
        assert_eq!((pending.len(), unreadable.len()), (2, 0));
        let found = find(&socket, &request("a")).unwrap().unwrap();
        assert_eq!(found.request, request("a"));

        forget(&found).unwrap();
        forget(&found).unwrap();
        let left: Vec<_> = list(&socket)
            .unwrap()
            .pending
            .into_iter()
            .map(|p| p.request)
            .collect();
        assert_eq!(left, [request("b")]);
    }

    #[test]
    fn drafts_are_ignored_and_broken_files_named() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("weft.sock");
        note(&socket, &request("a")).unwrap();
        fs::write(directory(&socket).join("0000000000000000.draft-1"), "{").unwrap();
        let broken = directory(&socket).join("0000000000000000.json");
        fs::write(&broken, "{").unwrap();
        let Listing {
            pending,
            unreadable,
        } = list(&socket).unwrap();
        assert_eq!(pending.len(), 1);
        assert_eq!(unreadable[0].0, broken);
    }
}
