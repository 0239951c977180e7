//! The plugin and the network's configuration where a container runtime looks for them.
//!
//! A runtime takes the first file of its configuration directory for the network of all pods, so the
//! file is only there once pods can be attached, and it is there whole or not at all. The plugin comes
//! before the file that names it, and leaves after it.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

/// Name of the plugin's executable.
pub const PLUGIN: &str = "weft-cni";
/// Name of the configuration: before those of most others, of which the first counts.
pub const CONFLIST: &str = "10-weft.conflist";
/// Plugins of others that follow in the list, if they are installed, with their capability.
const CHAINED: [(&str, &str); 2] = [("portmap", "portMappings"), ("bandwidth", "bandwidth")];

/// Where to install.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CniDirs {
    /// Of plugins, usually `/opt/cni/bin`.
    pub bin: PathBuf,
    /// Of configurations, usually `/etc/cni/net.d`.
    pub conf: PathBuf,
}

/// Why something could not be installed or removed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {}", path.display())]
pub struct InstallError {
    action: &'static str,
    path: PathBuf,
    source: io::Error,
}

impl CniDirs {
    /// Installs the plugin, which lies beside this executable or is this executable, and the
    /// configuration that names it, for the router at `socket`. Says whether anything changed.
    ///
    /// # Errors
    /// A directory is missing or cannot be written.
    pub fn install(&self, socket: &Path) -> Result<bool, InstallError> {
        let plugin = plugin().map_err(error("find", Path::new("/proc/self/exe")))?;
        let bytes = fs::read(&plugin).map_err(error("read", &plugin))?;
        let changed = replace(&self.bin.join(PLUGIN), &bytes, 0o755)?;
        let conflist = self.conflist(socket).to_string() + "\n";
        // Whoever reads it calls the plugin, and so must be root.
        Ok(replace(&self.conf.join(CONFLIST), conflist.as_bytes(), 0o600)? || changed)
    }

    /// Removes both; what is gone already is no error.
    ///
    /// # Errors
    /// A file cannot be removed.
    pub fn uninstall(&self) -> Result<(), InstallError> {
        for file in [self.conf.join(CONFLIST), self.bin.join(PLUGIN)] {
            match fs::remove_file(&file) {
                Err(cause) if cause.kind() != io::ErrorKind::NotFound => {
                    return Err(error("remove", &file)(cause));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The network's configuration.
    fn conflist(&self, socket: &Path) -> Value {
        let mut ours = json!({ "type": PLUGIN });
        if socket != Path::new(control::DEFAULT_SOCKET) {
            ours["socket"] = json!(socket);
        }
        let mut plugins = vec![ours];
        for (name, capability) in CHAINED {
            if self.bin.join(name).is_file() {
                plugins.push(json!({ "type": name, "capabilities": { capability: true } }));
            }
        }
        // STATUS and GC came with 1.1.0; a runtime that does not know it takes what both do.
        json!({
            "cniVersion": "1.0.0", "cniVersions": ["0.4.0", "1.0.0", "1.1.0"],
            "name": "weft", "plugins": plugins,
        })
    }
}

/// The plugin's executable: alone it is smaller.
fn plugin() -> io::Result<PathBuf> {
    let own = std::env::current_exe()?;
    let beside = own.with_file_name(PLUGIN);
    Ok(if beside.is_file() { beside } else { own })
}

/// Puts a file in place of whatever is there, at once; says whether it was another. A program that
/// runs goes on with what it was.
fn replace(file: &Path, bytes: &[u8], mode: u32) -> Result<bool, InstallError> {
    if fs::read(file).is_ok_and(|has| has == bytes) {
        return Ok(false);
    }
    let draft = file.with_extension("weft-new");
    let written = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(&draft)
        .and_then(|mut out| {
            out.write_all(bytes)?;
            out.set_permissions(Permissions::from_mode(mode))?;
            out.sync_all()
        })
        .and_then(|()| fs::rename(&draft, file))
        .and_then(|()| match file.parent() {
            Some(dir) => File::open(dir)?.sync_all(),
            None => Ok(()),
        });
    if let Err(cause) = written {
        // What failed is reported; runtimes do not look at a draft.
        let _ = fs::remove_file(&draft);
        return Err(error("write", file)(cause));
    }
    Ok(true)
}

fn error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> InstallError {
    let path = path.to_owned();
    move |source| InstallError {
        action,
        path,
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dirs() -> (tempfile::TempDir, CniDirs) {
        let dir = tempfile::tempdir().unwrap();
        let dirs = CniDirs {
            bin: dir.path().join("bin"),
            conf: dir.path().join("conf"),
        };
        fs::create_dir(&dirs.bin).unwrap();
        fs::create_dir(&dirs.conf).unwrap();
        (dir, dirs)
    }

    #[test]
    fn installed_once_and_removed() {
        let (_dir, dirs) = dirs();
        let socket = Path::new(control::DEFAULT_SOCKET);
        assert!(dirs.install(socket).unwrap());
        assert!(!dirs.install(socket).unwrap(), "nothing is to be done");
        let plugin = fs::metadata(dirs.bin.join(PLUGIN)).unwrap();
        assert_eq!(plugin.permissions().mode() & 0o777, 0o755);
        let names = |dir: &Path| {
            let entries = fs::read_dir(dir).unwrap();
            entries.map(|e| e.unwrap().file_name()).collect::<Vec<_>>()
        };
        assert_eq!(names(&dirs.conf), [CONFLIST], "no draft is left");
        fs::write(dirs.conf.join(CONFLIST), "{").unwrap();
        assert!(dirs.install(socket).unwrap(), "it is mended");
        dirs.uninstall().unwrap();
        dirs.uninstall().unwrap();
        assert!(names(&dirs.conf).is_empty() && names(&dirs.bin).is_empty());
    }

    #[test]
    fn only_plugins_that_are_there_are_chained() {
        let (_dir, dirs) = dirs();
        let types = |list: &Value| {
            let plugins = list["plugins"].as_array().unwrap().iter();
            plugins
                .map(|plugin| plugin["type"].as_str().unwrap().to_owned())
                .collect::<Vec<_>>()
        };
        let list = dirs.conflist(Path::new("/run/other.sock"));
        assert_eq!(types(&list), ["weft-cni"]);
        assert_eq!(list["plugins"][0]["socket"], "/run/other.sock");
        fs::write(dirs.bin.join("portmap"), "").unwrap();
        let list = dirs.conflist(Path::new(control::DEFAULT_SOCKET));
        assert_eq!(types(&list), ["weft-cni", "portmap"]);
        assert!(list["plugins"][0].get("socket").is_none());
        assert_eq!(list["plugins"][1]["capabilities"]["portMappings"], true);
    }

    #[test]
    fn a_directory_that_is_missing_is_named() {
        let (_dir, mut dirs) = dirs();
        dirs.conf = dirs.conf.join("missing");
        let error = dirs.install(Path::new("/s")).unwrap_err();
        assert!(
            error.to_string().contains("missing/10-weft.conflist"),
            "{error}"
        );
    }
}
