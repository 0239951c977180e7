//! The executables that are measured: those that were built together with this one.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

/// Where `weft` and `weft-cni` are.
#[derive(Debug)]
pub(crate) struct Binaries {
    /// The router.
    pub(crate) weft: PathBuf,
    /// The CNI plugin.
    pub(crate) weft_cni: PathBuf,
}

impl Binaries {
    /// Finds them beside this executable.
    pub(crate) fn find() -> anyhow::Result<Self> {
        let this = env::current_exe().context("cannot tell where weft-bench is")?;
        Self::beside(this.parent().unwrap_or(Path::new("/")))
    }

    /// This executable, which is both when it is called by their names: what needs no plugin of
    /// ordinary size and start-up time can be measured without building anything else.
    pub(crate) fn own() -> anyhow::Result<Self> {
        let this = env::current_exe().context("cannot tell where weft-bench is")?;
        Ok(Self {
            weft: this.clone(),
            weft_cni: this,
        })
    }

    /// An executable that is router and plugin, by the name that it is called by.
    pub(crate) fn one(path: &Path) -> Self {
        Self {
            weft: path.to_owned(),
            weft_cni: path.to_owned(),
        }
    }

    fn beside(directory: &Path) -> anyhow::Result<Self> {
        let debug = directory.file_name().is_some_and(|name| name == "debug");
        let find = |name: &str| {
            let path = directory.join(name);
            if !path.is_file() {
                let release = if debug { "" } else { "--release " };
                bail!(
                    "{name} is not in {}: build it with `cargo build {release}-p router -p cni-shim`",
                    directory.display()
                );
            }
            Ok(path)
        };
        Ok(Self {
            weft: find("weft")?,
            weft_cni: find("weft-cni")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_is_missing_is_named_with_the_command_that_builds_it() {
        let target = tempfile::tempdir().unwrap();
        let release = target.path().join("release");
        fs::create_dir(&release).unwrap();
        fs::write(release.join("weft"), "").unwrap();
        let error = Binaries::beside(&release).unwrap_err().to_string();
        assert!(error.starts_with("weft-cni is not in "), "{error}");
        assert!(
            error.ends_with("`cargo build --release -p router -p cni-shim`"),
            "{error}"
        );
        fs::write(release.join("weft-cni"), "").unwrap();
        let found = Binaries::beside(&release).unwrap();
        assert_eq!(found.weft_cni, release.join("weft-cni"));
    }
}
