//! The device itself, and the secrets of messages.

use async_trait::async_trait;
use whatsapp_rust::wacore::stats::StorageResourceReport;
use whatsapp_rust::wacore::store::Device;
use whatsapp_rust::wacore::store::error::Result;
use whatsapp_rust::wacore::store::traits::{
    DeviceStore, MessageSecret, MsgSecretEntry, MsgSecretStore, merge_msg_secret_expiry, merge_msg_secret_message_ts,
};

use super::DeviceBackend;
use super::kinds::{Kind, ONLY, name, unreadable};

#[async_trait]
impl DeviceStore for DeviceBackend {
    async fn save(&self, device: &Device) -> Result<()> {
        self.now(vec![Kind::Device.put_json(ONLY.to_vec(), device)?]).await
    }

    async fn load(&self) -> Result<Option<Device>> {
        self.get_json(Kind::Device, ONLY.to_vec()).await
    }

    async fn exists(&self) -> Result<bool> {
        Ok(self.get(Kind::Device, ONLY.to_vec()).await?.is_some())
    }

    /// A new device has keys that nobody has seen, so it can wait: if it is lost, the next one is as good.
    async fn create(&self) -> Result<i32> {
        if !self.exists().await? {
            self.soon(vec![Kind::Device.put_json(ONLY.to_vec(), &Device::new())?]).await?;
        }
        Ok(1)
    }

    async fn resource_report(&self) -> StorageResourceReport {
        StorageResourceReport { memory_bytes: u64::try_from(self.rows.bytes()).ok(), ..Default::default() }
    }
}

#[async_trait]
impl MsgSecretStore for DeviceBackend {
    async fn put_msg_secrets(&self, entries: Vec<MsgSecretEntry>) -> Result<usize> {
        let _turn = self.turn.lock().await;
        let stored = entries.len();
        let names: Vec<_> =
            entries.iter().map(|entry| secret_name(&entry.chat, &entry.sender, &entry.msg_id)).collect();
        let olds = self.get_many(Kind::MsgSecret, names.clone()).await?;
        let mut changes = Vec::with_capacity(stored);
        // Entries of one batch can be about the same message.
        let mut seen = std::collections::HashMap::<Vec<u8>, Row>::new();
        for ((entry, name), old) in entries.into_iter().zip(names).zip(olds) {
            let old = match seen.get(&name) {
                Some(row) => Some(*row),
                None => old.map(|old| Row::parse(&old)).transpose()?,
            };
            let mut row = Row { secret: entry.secret, expires_at: entry.expires_at, message_ts: entry.message_ts };
            if let Some(old) = old {
                row.expires_at = merge_msg_secret_expiry(old.expires_at, row.expires_at);
                row.message_ts = merge_msg_secret_message_ts(old.message_ts, row.message_ts);
            }
            seen.insert(name.clone(), row);
            changes.push(Kind::MsgSecret.put(name, row.bytes()));
        }
        self.soon(changes).await?;
        Ok(stored)
    }

    async fn get_msg_secret(&self, chat: &str, sender: &str, msg_id: &str) -> Result<Option<Vec<u8>>> {
        Ok(self.get_msg_secret_with_ts(chat, sender, msg_id).await?.map(|(secret, _)| secret))
    }

    async fn get_msg_secret_with_ts(&self, chat: &str, sender: &str, msg_id: &str) -> Result<Option<(Vec<u8>, i64)>> {
        let Some(row) = self.get(Kind::MsgSecret, secret_name(chat, sender, msg_id)).await? else { return Ok(None) };
        let row = Row::parse(&row)?;
        Ok(Some((row.secret.to_vec(), row.message_ts)))
    }

    async fn delete_expired_msg_secrets(&self, cutoff_timestamp: i64) -> Result<u32> {
        let is_over = move |row: &Row| row.expires_at != 0 && row.expires_at <= cutoff_timestamp;
        self.sweep(Kind::MsgSecret, move |row| Row::parse(row).is_ok_and(|row| is_over(&row))).await
    }
}

/// A message's secret as it is kept: until when (8), when the message was sent (8), the secret (32).
#[derive(Clone, Copy)]
struct Row {
    secret: MessageSecret,
    expires_at: i64,
    message_ts: i64,
}

impl Row {
    fn bytes(&self) -> Vec<u8> {
        [&self.expires_at.to_be_bytes()[..], &self.message_ts.to_be_bytes(), &self.secret].concat()
    }

    fn parse(bytes: &[u8]) -> Result<Self> {
        let parts = || {
            let (expires_at, rest) = bytes.split_first_chunk()?;
            let (message_ts, secret) = rest.split_first_chunk()?;
            let secret = secret.try_into().ok()?;
            Some(Self {
                secret,
                expires_at: i64::from_be_bytes(*expires_at),
                message_ts: i64::from_be_bytes(*message_ts),
            })
        };
        parts().ok_or_else(|| unreadable("the secret of a message has another length"))
    }
}

fn secret_name(chat: &str, sender: &str, msg_id: &str) -> Vec<u8> {
    name([chat.as_bytes(), sender.as_bytes(), msg_id.as_bytes()])
}
