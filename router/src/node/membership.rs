//! The node as a member of the network: where it looks for others, and how it leaves them.

use std::collections::BTreeSet;
use std::sync::Arc;

use control::{ApiError, ConnectRequest, ForgetRequest, Left, Targets};
use mesh::Target;

use super::{Node, lock, silent};
use crate::settings::Endpoint;
use crate::targets::{TargetBook, TargetError};

/// Raised while the node is out of the network because it was told to leave.
pub(super) const LEFT_CONDITION: &str = "left";

impl Node {
    pub(super) async fn connect_targets(
        &self,
        request: ConnectRequest,
    ) -> Result<Targets, ApiError> {
        let wanted = Arc::new(self.read_targets(&request.targets)?);
        let replace = request.replace;
        let mut book = self.targets.lock().await;
        let before = self.dialled().await?;
        let came_back = book.has_left();
        let named = Arc::clone(&wanted);
        *book = written(book.clone(), move |book| book.connect(&named, replace)).await?;
        let mut all = book.targets();
        for target in all.iter().filter(|t| came_back || wanted.contains(*t)) {
            // One that is known already is tried now.
            self.mesh.connect(target.clone()).await;
        }
        for target in before.difference(&all).filter(|_| replace) {
            self.mesh.forget(target.clone()).await;
        }
        if !replace {
            all.extend(before);
        }
        self.clear(LEFT_CONDITION, "");
        tracing::info!(targets = ?wanted, replace, "told to connect");
        Ok(answer(&all, []))
    }

    pub(super) async fn forget_targets(&self, request: ForgetRequest) -> Result<Targets, ApiError> {
        let named = self.read_targets(&request.targets)?;
        let mut book = self.targets.lock().await;
        let before = self.dialled().await?;
        let taken = named.clone();
        *book = written(book.clone(), move |book| book.forget(&taken)).await?;
        for target in &named {
            self.mesh.forget(target.clone()).await;
        }
        let after = before.difference(&named).cloned().collect();
        tracing::info!(targets = ?named, "told to forget");
        Ok(answer(&after, named.difference(&before)))
    }

    pub(super) async fn leave_network(&self) -> Result<Left, ApiError> {
        let mut book = self.targets.lock().await;
        let before = book.clone();
        // First on the disk: a crash on the way leaves a node that stays away, not one that comes back
        // without its space.
        *book = written(before.clone(), TargetBook::leave).await?;
        let left = match self.ipam.hand_over().await {
            Ok(left) => left,
            Err(error) => {
                *book = written(book.clone(), move |book| book.restore(&before)).await?;
                return Err(error.into());
            }
        };
        self.mesh.leave().await;
        self.tell_left();
        Ok(left)
    }

    /// Tells the operator that nothing here reaches other nodes, and why.
    pub(super) fn tell_left(&self) {
        let message = "this node has left the network: its pods reach only each other. \
                       `weft connect ADDRESS` brings it back"
            .to_owned();
        self.raise(LEFT_CONDITION, "", message);
    }

    /// Whether the node was told to leave and has not been told to connect since.
    pub async fn has_left(&self) -> bool {
        self.targets.lock().await.has_left()
    }

    /// Keeps the addresses of nodes that can be reached, for the next run.
    pub async fn remember_peers(&self) {
        let Some(addresses) = self.mesh.addresses().await else {
            return;
        };
        let remembered = Arc::clone(&self.remembered);
        let kept = tokio::task::spawn_blocking(move || lock(&remembered).keep(addresses)).await;
        if let Ok(Err(error)) = kept {
            tracing::warn!(%error, "cannot remember where other nodes are");
        }
    }

    /// What the mesh dials, whoever named it.
    async fn dialled(&self) -> Result<BTreeSet<Target>, ApiError> {
        let view = tokio::time::timeout(super::REPORT_DEADLINE, self.mesh.view()).await;
        let Ok(Some(view)) = view else {
            return Err(silent("mesh"));
        };
        Ok(view.targets.into_iter().map(|view| view.target).collect())
    }

    /// Targets as an operator writes them.
    fn read_targets(&self, texts: &[String]) -> Result<BTreeSet<Target>, ApiError> {
        let read = |text: &String| {
            let bad = |error: &dyn std::fmt::Display| {
                let text: String = text.chars().take(80).collect();
                ApiError::bad_request(format!("{text:?} is not an address: {error}"), "")
            };
            let endpoint =
                Endpoint::parse(text, self.settings.control_port).map_err(|error| bad(&error))?;
            endpoint
                .to_string()
                .parse::<Target>()
                .map_err(|error| bad(&error))
        };
        texts.iter().map(read).collect()
    }
}

/// Changes a copy of the book, and the file with it.
async fn written(
    mut book: TargetBook,
    change: impl FnOnce(&mut TargetBook) -> Result<(), TargetError> + Send + 'static,
) -> Result<TargetBook, ApiError> {
    let changed = tokio::task::spawn_blocking(move || change(&mut book).map(|()| book)).await;
    match changed {
        Ok(Ok(book)) => Ok(book),
        Ok(Err(error @ TargetError::TooMany { .. })) => Err(ApiError::bad_request(
            error.to_string(),
            "one address of one node is enough: name a few",
        )),
        Ok(Err(error @ TargetError::Write { .. })) => Err(ApiError::internal(
            error.to_string(),
            "see that it can be written to; nothing has changed",
        )),
        Err(error) => Err(ApiError::internal(format!("a task failed: {error}"), "")),
    }
}

fn answer<'a>(
    targets: &BTreeSet<Target>,
    unknown: impl IntoIterator<Item = &'a Target>,
) -> Targets {
    let unknown = unknown.into_iter();
    Targets {
        targets: targets.iter().map(ToString::to_string).collect(),
        unknown: unknown.map(ToString::to_string).collect(),
    }
}
