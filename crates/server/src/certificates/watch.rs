//! Certificates that were renewed on disk are shown from then on, without a reload and without ending a stream.
//!
//! Whoever renews them (certbot, by links that lead to new files; or any other program) need not know of waft. Once a day
//! all are read again, so that one that ends soon is said, and a self-signed one that does is made anew.

use super::{Certificates, certified, paths};
use crate::config::Config;
use crate::house::House;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// How often they are read although nothing has changed.
const READ_EVERY: Duration = Duration::from_secs(24 * 3_600);

/// What tells that a file is another one: path, inode, size, when it was written.
type Stamp = (PathBuf, Option<(u64, u64, i64, i64)>);

/// Looks until the task is ended.
pub async fn carry(house: Arc<House>, certificates: Arc<Certificates>) {
    let config = house.config.read().clone();
    let mut seen = look(config).await;
    // What could not be used: said once.
    let mut failed = None;
    let mut read = Instant::now();
    loop {
        sleep(LOOK_EVERY).await;
        let config = house.config.read().clone();
        let found = look(config.clone()).await;
        let renewed = found != seen;
        if failed.as_ref() == Some(&found) || (!renewed && read.elapsed() < READ_EVERY) {
            continue;
        }
        let certificates = certificates.clone();
        match tokio::task::spawn_blocking(move || certificates.reload(&config)).await {
            Ok(Ok(())) => {
                if renewed {
                    tracing::info!("renewed certificates are shown from now on");
                }
                (seen, failed, read) = (found, None, Instant::now());
            }
            // Perhaps only one of chain and key was written yet.
            Ok(Err(error)) => {
                tracing::warn!(%error, "the certificates on disk cannot be used; those from before are still shown");
                failed = Some(found);
            }
            Err(error) => tracing::error!(%error, "certificates could not be read"),
        }
    }
}

async fn look(config: Arc<Config>) -> Vec<Stamp> {
    // A task that is cancelled has seen nothing.
    tokio::task::spawn_blocking(move || stamps(&config)).await.unwrap_or_default()
}

fn stamps(config: &Config) -> Vec<Stamp> {
    let files = certified(config).into_iter().flat_map(|host| {
        let (certificate, key) = paths(config, &host);
        [Some(certificate), Some(key), host.options.client_ca]
    });
    let stamp = |path: PathBuf| {
        let found = std::fs::metadata(&path).ok();
        let stamp = found.map(|it| (it.ino(), it.size(), it.mtime(), it.mtime_nsec()));
        (path, stamp)
    };
    files.flatten().map(stamp).collect()
}
