//! What keeps artifacts from `triad gc`: pins, and the records of runs going on.

use std::time::Duration;

use chrono::{DateTime, Utc};
use object_store::ObjectStoreExt;
use serde::{Deserialize, Serialize};

use super::record::{parse, seal};
use super::{Key, Store};
use crate::id::ArtifactId;
use crate::{Result, entropy};

/// The content of a pin.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Pin {
    id: ArtifactId,
}

/// What a run going on reads and makes.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RunRecord {
    pub artifacts: Vec<ArtifactId>,
}

/// A run writes its record again that often, so that it is young while its process lives.
const RENEWAL: Duration = Duration::from_secs(3600);

/// The artifacts of a run going on, kept until it is released or its process has been dead for a
/// day. Hold first and look for commits after: what is found then stays.
pub struct Hold {
    store: Store,
    key: Key,
    renewal: tokio::task::JoinHandle<()>,
}

impl Store {
    /// Keeps `artifacts` from garbage collection.
    pub async fn hold(&self, artifacts: Vec<ArtifactId>) -> Result<Hold> {
        let key = Key::Run(entropy::attempt_name());
        let record = seal(&RunRecord { artifacts })?;
        self.put(&key, record.clone()).await?;
        let (store, renewed) = (self.clone(), key.clone());
        let renewal = tokio::spawn(async move {
            loop {
                tokio::time::sleep(RENEWAL).await;
                if let Err(e) = store.put(&renewed, record.clone()).await {
                    tracing::warn!("cannot renew what keeps this run from garbage collection: {e}");
                }
            }
        });
        Ok(Hold { store: self.clone(), key, renewal })
    }

    /// The store's own clock: it says how old objects are, whatever this machine's clock says.
    pub(super) async fn clock(&self) -> Result<DateTime<Utc>> {
        let hold = self.hold(Vec::new()).await?;
        let found = self.client.head(&self.path(&hold.key)).await;
        let found = found.map_err(|e| self.failure(&hold.key, &e));
        hold.release().await;
        Ok(found?.last_modified)
    }

    /// Keeps artifact `id` until it is unpinned.
    pub async fn pin(&self, id: &ArtifactId) -> Result<()> {
        self.put(&Key::Pin(id.clone()), seal(&Pin { id: id.clone() })?).await
    }

    /// `false` when it was not pinned.
    pub async fn unpin(&self, id: &ArtifactId) -> Result<bool> {
        let key = Key::Pin(id.clone());
        let pinned = self.record(&key, parse::<Pin>).await?.is_some();
        self.delete([key.to_string()]).await?;
        Ok(pinned)
    }

    /// Every pinned artifact.
    pub async fn pins(&self) -> Result<Vec<ArtifactId>> {
        let listed = self.list(Key::PINS).await?;
        let pinned = listed.into_iter().filter_map(|object| match object.key {
            Some(Key::Pin(id)) => Some(id),
            _ => None,
        });
        Ok(pinned.collect())
    }
}

impl Hold {
    /// Lets go. A failure is no error: the record is void in a day.
    pub async fn release(self) {
        self.renewal.abort();
        if let Err(e) = self.store.delete([self.key.to_string()]).await {
            tracing::debug!("the record of this run stays for a day: {e}");
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.renewal.abort();
    }
}
