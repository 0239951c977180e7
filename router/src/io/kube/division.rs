//! The first division of the range, decided by who makes the cluster's record: the API server lets
//! exactly one node do that. The division is then kept on this node's disk, so that only its very
//! first start needs the API server.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write as _};
use std::path::Path;
use std::time::Duration;

use ipnet::IpNet;
use wire::PeerName;

use super::RECORD;
use super::api::{ApiFailure, Cluster};

/// Who divides the range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Division {
    /// The nodes among which it is first split.
    pub seeds: Vec<PeerName>,
    /// Whether other nodes may have been given space already.
    pub others: bool,
}

/// Name of the file in the state directory.
const FILE: &str = "cluster-seeds";
/// Between attempts, at first and at most.
const PAUSES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(30)];

/// Learns of the first division, from the disk or from the cluster; makes it, if nobody has. Waits for
/// the API server for as long as it takes, and says so in the log.
///
/// # Errors
/// The cluster has divided another range, or the state directory cannot be written.
pub async fn first_division(
    cluster: &Cluster,
    me: &PeerName,
    range: IpNet,
    state_dir: &Path,
) -> Result<Division, ApiFailure> {
    let file = state_dir.join(FILE);
    if let Some(seeds) = read(&file)? {
        return Ok(Division {
            seeds,
            others: true,
        });
    }
    let [mut pause, longest] = PAUSES;
    loop {
        match learn(cluster, me, range).await {
            Ok(division) => {
                write(&file, &division.seeds).map_err(|error| {
                    ApiFailure::Unusable(format!("cannot write {}: {error}", file.display()))
                })?;
                return Ok(division);
            }
            Err(error @ ApiFailure::Unusable(_)) => return Err(error),
            // Made between a look and an attempt: look again.
            Err(ApiFailure::Conflict) => {}
            Err(error) => {
                tracing::warn!(
                    reason = %error,
                    "waiting for the cluster to say who divides the range"
                );
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(longest);
            }
        }
    }
}

async fn learn(cluster: &Cluster, me: &PeerName, range: IpNet) -> Result<Division, ApiFailure> {
    let Some(record) = cluster.record().await? else {
        let data = BTreeMap::from([
            ("range".to_owned(), range.to_string()),
            ("seeds".to_owned(), me.to_string()),
        ]);
        cluster.create_record(data).await?;
        tracing::info!("this node divides the range: it is the cluster's first");
        return Ok(Division {
            seeds: vec![me.clone()],
            others: false,
        });
    };
    let unusable =
        |why: String| ApiFailure::Unusable(format!("the ConfigMap {RECORD} cannot be used: {why}"));
    let field = |key: &str| {
        let value = record.data.get(key);
        value.ok_or_else(|| {
            unusable(format!(
                "it has no {key}; delete it if no node of the cluster has started"
            ))
        })
    };
    let divided = field("range")?;
    if *divided != range.to_string() {
        return Err(unusable(format!(
            "the cluster has divided {divided}, and this node's --range is {range}: give all nodes \
             the same"
        )));
    }
    let seeds = parse(field("seeds")?).map_err(unusable)?;
    let others = record
        .data
        .keys()
        .filter_map(|key| key.strip_prefix("node."))
        .any(|name| name != me.as_str());
    Ok(Division { seeds, others })
}

fn parse(text: &str) -> Result<Vec<PeerName>, String> {
    let names = text.split(',').map(|name| name.trim().parse());
    let names: Vec<PeerName> = names
        .collect::<Result<_, _>>()
        .map_err(|error: wire::peer::ParsePeerNameError| error.to_string())?;
    Ok(names)
}

fn read(file: &Path) -> Result<Option<Vec<PeerName>>, ApiFailure> {
    let unusable =
        |why: String| ApiFailure::Unusable(format!("{} cannot be used: {why}", file.display()));
    match fs::read_to_string(file) {
        Ok(text) => parse(text.trim()).map(Some).map_err(unusable),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(unusable(error.to_string())),
    }
}

/// Whole or not at all, and there after a power failure.
fn write(file: &Path, seeds: &[PeerName]) -> io::Result<()> {
    let names: Vec<_> = seeds.iter().map(PeerName::as_str).collect();
    let draft = file.with_extension("new");
    let mut out = fs::File::create(&draft)?;
    out.write_all(names.join(",").as_bytes())?;
    out.sync_all()?;
    fs::rename(&draft, file)?;
    match file.parent() {
        Some(dir) => fs::File::open(dir)?.sync_all(),
        None => Ok(()),
    }
}
