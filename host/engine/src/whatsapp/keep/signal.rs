//! Keys of the Signal protocol.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use portcullis_core::DeviceChange;
use whatsapp_rust::wacore::store::error::Result;
use whatsapp_rust::wacore::store::traits::SignalStore;

use super::DeviceBackend;
use super::kinds::{Kind, name, number, numbered, unreadable};

impl DeviceBackend {
    /// With these rows, those that tell that their users have had some, where they are not there yet.
    async fn with_users(&self, mut changes: Vec<DeviceChange>, mut users: Vec<Vec<u8>>) -> Result<Vec<DeviceChange>> {
        users.sort_unstable();
        users.dedup();
        let known = self.get_many(Kind::SignalUser, users.clone()).await?;
        let unknown = users.into_iter().zip(known).filter(|(_, known)| known.is_none());
        changes.extend(unknown.map(|(user, _)| Kind::SignalUser.put(user, [])));
        Ok(changes)
    }
}

#[async_trait]
impl SignalStore for DeviceBackend {
    async fn put_identity(&self, address: &str, key: [u8; 32]) -> Result<()> {
        self.put_identities_batch(&[(Arc::from(address), key)]).await
    }

    async fn put_identities_batch(&self, identities: &[(Arc<str>, [u8; 32])]) -> Result<()> {
        let put = |(address, key): &(Arc<str>, [u8; 32])| Kind::Identity.put(name([address.as_bytes()]), *key);
        let users = identities.iter().map(|(address, _)| user_of(address)).collect();
        let changes = self.with_users(identities.iter().map(put).collect(), users).await?;
        self.soon(changes).await
    }

    async fn load_identity(&self, address: &str) -> Result<Option<[u8; 32]>> {
        let key = self.get(Kind::Identity, name([address.as_bytes()])).await?;
        key.map(|key| key.try_into().map_err(|_| unreadable("an identity has 32 bytes"))).transpose()
    }

    async fn delete_identity(&self, address: &str) -> Result<()> {
        self.soon(vec![Kind::Identity.remove(name([address.as_bytes()]))]).await
    }

    async fn get_session(&self, address: &str) -> Result<Option<Bytes>> {
        Ok(self.get(Kind::Session, name([address.as_bytes()])).await?.map(Bytes::from))
    }

    async fn put_session(&self, address: &str, session: &[u8]) -> Result<()> {
        self.put_sessions_batch(&[(Arc::from(address), Bytes::copy_from_slice(session))]).await
    }

    async fn put_sessions_batch(&self, sessions: &[(Arc<str>, Bytes)]) -> Result<()> {
        let put = |(address, session): &(Arc<str>, Bytes)| Kind::Session.put(name([address.as_bytes()]), &session[..]);
        let users = sessions.iter().map(|(address, _)| user_of(address)).collect();
        let changes = self.with_users(sessions.iter().map(put).collect(), users).await?;
        self.now(changes).await
    }

    async fn delete_session(&self, address: &str) -> Result<()> {
        self.soon(vec![Kind::Session.remove(name([address.as_bytes()]))]).await
    }

    /// May say so still when the last of them is gone; the client then looks at each of the user's devices.
    async fn has_signal_state_for_user(&self, user: &str) -> Result<bool> {
        Ok(self.get(Kind::SignalUser, name([user.as_bytes()])).await?.is_some())
    }

    async fn store_prekey(&self, id: u32, record: &[u8], _uploaded: bool) -> Result<()> {
        self.now(vec![Kind::PreKey.put(number(id), record)]).await
    }

    async fn store_prekeys_batch(&self, keys: &[(u32, Bytes)], _uploaded: bool) -> Result<()> {
        self.now(keys.iter().map(|(id, record)| Kind::PreKey.put(number(*id), &record[..])).collect()).await
    }

    async fn load_prekey(&self, id: u32) -> Result<Option<Bytes>> {
        Ok(self.get(Kind::PreKey, number(id)).await?.map(Bytes::from))
    }

    async fn load_prekeys_batch(&self, ids: &[u32]) -> Result<Vec<(u32, Bytes)>> {
        let records = self.get_many(Kind::PreKey, ids.iter().copied().map(number).collect()).await?;
        let found = |(id, record): (&u32, Option<Vec<u8>>)| Some((*id, Bytes::from(record?)));
        Ok(ids.iter().zip(records).filter_map(found).collect())
    }

    /// Nothing asks whether a pre-key was uploaded: the device's own numbers say so. So nothing is written, and nothing that is
    /// gone comes back.
    async fn mark_prekeys_uploaded(&self, _ids: &[u32]) -> Result<()> {
        Ok(())
    }

    async fn remove_prekey(&self, id: u32) -> Result<()> {
        self.soon(vec![Kind::PreKey.remove(number(id))]).await
    }

    async fn get_max_prekey_id(&self) -> Result<u32> {
        let ids = self.pick(Kind::PreKey, |name, _| numbered(name)).await?;
        Ok(ids.into_iter().max().unwrap_or_default())
    }

    async fn store_signed_prekey(&self, id: u32, record: &[u8]) -> Result<()> {
        self.now(vec![Kind::SignedPreKey.put(number(id), record)]).await
    }

    async fn load_signed_prekey(&self, id: u32) -> Result<Option<Vec<u8>>> {
        self.get(Kind::SignedPreKey, number(id)).await
    }

    async fn load_all_signed_prekeys(&self) -> Result<Vec<(u32, Vec<u8>)>> {
        self.pick(Kind::SignedPreKey, |name, record| Some((numbered(name)?, record.to_vec()))).await
    }

    async fn remove_signed_prekey(&self, id: u32) -> Result<()> {
        self.soon(vec![Kind::SignedPreKey.remove(number(id))]).await
    }

    async fn put_sender_key(&self, address: &str, record: &[u8]) -> Result<()> {
        self.now(vec![Kind::SenderKey.put(name([address.as_bytes()]), record)]).await
    }

    async fn put_sender_keys_batch(&self, sender_keys: &[(Arc<str>, Bytes)]) -> Result<()> {
        let put = |(address, key): &(Arc<str>, Bytes)| Kind::SenderKey.put(name([address.as_bytes()]), &key[..]);
        self.now(sender_keys.iter().map(put).collect()).await
    }

    async fn get_sender_key(&self, address: &str) -> Result<Option<Vec<u8>>> {
        self.get(Kind::SenderKey, name([address.as_bytes()])).await
    }

    async fn delete_sender_key(&self, address: &str) -> Result<()> {
        self.now(vec![Kind::SenderKey.remove(name([address.as_bytes()]))]).await
    }
}

/// The name of the user whose address it is: `user@server` or `user:device@server`.
fn user_of(address: &str) -> Vec<u8> {
    name([address.split(['@', ':']).next().unwrap_or(address).as_bytes()])
}
