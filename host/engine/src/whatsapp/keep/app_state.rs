//! What is shared with the phone besides messages: keys, versions and MACs of the app state.

use std::collections::HashMap;

use async_trait::async_trait;
use whatsapp_rust::wacore::appstate::hash::HashState;
use whatsapp_rust::wacore::appstate::processor::AppStateMutationMAC;
use whatsapp_rust::wacore::store::error::Result;
use whatsapp_rust::wacore::store::traits::{AppStateSyncKey, AppSyncStore};

use super::DeviceBackend;
use super::kinds::{Kind, ONLY, name};

#[async_trait]
impl AppSyncStore for DeviceBackend {
    async fn get_sync_key(&self, key_id: &[u8]) -> Result<Option<AppStateSyncKey>> {
        self.get_json(Kind::SyncKey, name([key_id])).await
    }

    async fn set_sync_key(&self, key_id: &[u8], key: AppStateSyncKey) -> Result<()> {
        let put = Kind::SyncKey.put_json(name([key_id]), &key)?;
        self.now(vec![put, Kind::LatestSyncKey.put(ONLY.to_vec(), key_id)]).await
    }

    async fn get_version(&self, collection: &str) -> Result<HashState> {
        Ok(self.get_json(Kind::Version, name([collection.as_bytes()])).await?.unwrap_or_default())
    }

    async fn set_version(&self, collection: &str, state: HashState) -> Result<()> {
        self.soon(vec![Kind::Version.put_json(name([collection.as_bytes()]), &state)?]).await
    }

    async fn put_mutation_macs(
        &self,
        collection: &str,
        _version: u64,
        mutations: &[AppStateMutationMAC],
    ) -> Result<()> {
        let put = |mac: &AppStateMutationMAC| {
            Kind::macs_of(collection).put(mac_name(collection, &mac.index_mac), &mac.value_mac[..])
        };
        self.soon(mutations.iter().map(put).collect()).await
    }

    async fn get_mutation_mac(&self, collection: &str, index_mac: &[u8]) -> Result<Option<Vec<u8>>> {
        self.get(Kind::macs_of(collection), mac_name(collection, index_mac)).await
    }

    async fn get_mutation_macs(&self, collection: &str, index_macs: &[[u8; 32]]) -> Result<HashMap<[u8; 32], Vec<u8>>> {
        let names = index_macs.iter().map(|mac| mac_name(collection, mac)).collect();
        let values = self.get_many(Kind::macs_of(collection), names).await?;
        Ok(index_macs.iter().zip(values).filter_map(|(mac, value)| Some((*mac, value?))).collect())
    }

    async fn delete_mutation_macs(&self, collection: &str, index_macs: &[Vec<u8>]) -> Result<()> {
        let remove = |mac: &Vec<u8>| Kind::macs_of(collection).remove(mac_name(collection, mac));
        self.soon(index_macs.iter().map(remove).collect()).await
    }

    async fn clear_mutation_macs(&self, collection: &str) -> Result<()> {
        let kind = Kind::macs_of(collection);
        if kind != Kind::MacsOfOthers {
            return self.soon(vec![kind.remove_all()]).await;
        }
        let beginning = name([collection.as_bytes()]);
        let names = self.pick(kind, move |name, _| name.starts_with(&beginning).then(|| name.to_vec())).await?;
        self.soon(names.into_iter().map(|name| kind.remove(name)).collect()).await
    }

    async fn get_latest_sync_key_id(&self) -> Result<Option<Vec<u8>>> {
        self.get(Kind::LatestSyncKey, ONLY.to_vec()).await
    }
}

fn mac_name(collection: &str, index_mac: &[u8]) -> Vec<u8> {
    name([collection.as_bytes(), index_mac])
}
