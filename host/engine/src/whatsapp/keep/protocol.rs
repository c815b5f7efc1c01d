//! What the client remembers about others and about messages under way.

use std::collections::BTreeMap;

use async_trait::async_trait;
use portcullis_core::{DEVICE_VALUE_BYTES, DeviceChange};
use serde::{Deserialize, Serialize};
use whatsapp_rust::wacore::store::error::Result;
use whatsapp_rust::wacore::store::traits::{
    DeviceListRecord, LidPnMappingEntry, PendingInboundKey, PendingInboundRow, ProtocolStore, TcTokenEntry,
};
use whatsapp_rust::wacore::time::now_secs;

use super::kinds::{Kind, at_and_rest, name, timed};
use super::{DeviceBackend, decoded};

/// Which devices of a group have our sender key. The row says whose it is, because its name may be a hash.
#[derive(Serialize, Deserialize)]
struct GroupDevices {
    group: String,
    devices: BTreeMap<String, bool>,
}

/// A contact's token. The row says whose it is, because its name may be a hash.
#[derive(Serialize, Deserialize)]
struct Token {
    jid: String,
    entry: TcTokenEntry,
}

impl DeviceBackend {
    async fn group_devices(&self, group: &str) -> Result<BTreeMap<String, bool>> {
        let row: Option<GroupDevices> = self.get_json(Kind::SenderKeyDevices, name([group.as_bytes()])).await?;
        Ok(row.map(|row| row.devices).unwrap_or_default())
    }

    async fn token(&self, jid: &str) -> Result<Option<TcTokenEntry>> {
        let row: Option<Token> = self.get_json(Kind::TcToken, name([jid.as_bytes()])).await?;
        Ok(row.map(|row| row.entry))
    }

    async fn put_token(&self, jid: &str, entry: TcTokenEntry) -> Result<()> {
        let row = Token { jid: jid.to_owned(), entry };
        self.soon(vec![Kind::TcToken.put_json(name([jid.as_bytes()]), &row)?]).await
    }
}

#[async_trait]
impl ProtocolStore for DeviceBackend {
    async fn get_sender_key_devices(&self, group_jid: &str) -> Result<Vec<(String, bool)>> {
        Ok(self.group_devices(group_jid).await?.into_iter().collect())
    }

    async fn set_sender_key_status(&self, group_jid: &str, entries: &[(&str, bool)]) -> Result<()> {
        let _turn = self.turn.lock().await;
        let mut devices = self.group_devices(group_jid).await?;
        devices.extend(entries.iter().map(|(device, has_key)| ((*device).to_owned(), *has_key)));
        self.soon(vec![put_group(&GroupDevices { group: group_jid.to_owned(), devices })?]).await
    }

    async fn clear_sender_key_devices(&self, group_jid: &str) -> Result<()> {
        let _turn = self.turn.lock().await;
        self.soon(vec![Kind::SenderKeyDevices.remove(name([group_jid.as_bytes()]))]).await
    }

    async fn delete_sender_key_device_rows(&self, device_jids: &[&str]) -> Result<()> {
        if device_jids.is_empty() {
            return Ok(());
        }
        let _turn = self.turn.lock().await;
        let gone: Vec<String> = device_jids.iter().map(|jid| (*jid).to_owned()).collect();
        let without = move |_: &[u8], row: &[u8]| {
            let mut row: GroupDevices = serde_json::from_slice(row).ok()?;
            let before = row.devices.len();
            for jid in &gone {
                row.devices.remove(jid);
            }
            (row.devices.len() < before).then_some(row)
        };
        let changed = self.pick(Kind::SenderKeyDevices, without).await?;
        self.soon(changed.iter().map(put_group).collect::<Result<_>>()?).await
    }

    async fn clear_all_sender_key_devices(&self) -> Result<()> {
        let _turn = self.turn.lock().await;
        self.soon(vec![Kind::SenderKeyDevices.remove_all()]).await
    }

    async fn get_lid_mapping(&self, lid: &str) -> Result<Option<LidPnMappingEntry>> {
        self.get_json(Kind::LidMapping, name([lid.as_bytes()])).await
    }

    /// A LID that has got another number leaves the row that led to it, so that the two have to agree.
    async fn get_pn_mapping(&self, phone: &str) -> Result<Option<LidPnMappingEntry>> {
        let Some(lid) = self.get(Kind::PnMapping, name([phone.as_bytes()])).await? else { return Ok(None) };
        let entry: Option<LidPnMappingEntry> = self.get_json(Kind::LidMapping, name([&lid])).await?;
        Ok(entry.filter(|entry| entry.phone_number == phone))
    }

    async fn put_lid_mapping(&self, entry: &LidPnMappingEntry) -> Result<()> {
        self.put_lid_mappings(std::slice::from_ref(entry)).await
    }

    async fn put_lid_mappings(&self, entries: &[LidPnMappingEntry]) -> Result<()> {
        let mut changes = Vec::with_capacity(2 * entries.len());
        for entry in entries {
            changes.push(Kind::PnMapping.put(name([entry.phone_number.as_bytes()]), entry.lid.as_bytes()));
            changes.push(Kind::LidMapping.put_json(name([entry.lid.as_bytes()]), entry)?);
        }
        self.soon(changes).await
    }

    async fn get_all_lid_mappings(&self) -> Result<Vec<LidPnMappingEntry>> {
        self.pick(Kind::LidMapping, |_, entry| Some(decoded(entry))).await?.into_iter().collect()
    }

    async fn save_base_key(&self, address: &str, message_id: &str, base_key: &[u8]) -> Result<()> {
        let name = name([address.as_bytes(), message_id.as_bytes()]);
        self.soon(vec![Kind::BaseKey.put(name, base_key)]).await
    }

    async fn has_same_base_key(&self, address: &str, message_id: &str, current_base_key: &[u8]) -> Result<bool> {
        let kept = self.get(Kind::BaseKey, name([address.as_bytes(), message_id.as_bytes()])).await?;
        Ok(kept.is_some_and(|kept| kept == current_base_key))
    }

    async fn delete_base_key(&self, address: &str, message_id: &str) -> Result<()> {
        self.soon(vec![Kind::BaseKey.remove(name([address.as_bytes(), message_id.as_bytes()]))]).await
    }

    async fn update_device_list(&self, record: DeviceListRecord) -> Result<()> {
        self.update_device_lists(vec![record]).await
    }

    async fn update_device_lists(&self, records: Vec<DeviceListRecord>) -> Result<()> {
        let put = |record: &DeviceListRecord| Kind::DeviceList.put_json(name([record.user.as_bytes()]), record);
        self.soon(records.iter().map(put).collect::<Result<_>>()?).await
    }

    async fn get_devices(&self, user: &str) -> Result<Option<DeviceListRecord>> {
        self.get_json(Kind::DeviceList, name([user.as_bytes()])).await
    }

    async fn delete_devices(&self, user: &str) -> Result<()> {
        self.soon(vec![Kind::DeviceList.remove(name([user.as_bytes()]))]).await
    }

    async fn get_group_metadata(&self, group_jid: &str) -> Result<Option<Vec<u8>>> {
        self.get(Kind::GroupMetadata, name([group_jid.as_bytes()])).await
    }

    async fn put_group_metadata(&self, group_jid: &str, blob: &[u8]) -> Result<()> {
        self.soon(vec![Kind::GroupMetadata.put(name([group_jid.as_bytes()]), blob)]).await
    }

    async fn delete_group_metadata(&self, group_jid: &str) -> Result<()> {
        self.soon(vec![Kind::GroupMetadata.remove(name([group_jid.as_bytes()]))]).await
    }

    async fn get_tc_token(&self, jid: &str) -> Result<Option<TcTokenEntry>> {
        self.token(jid).await
    }

    async fn put_tc_token(&self, jid: &str, entry: &TcTokenEntry) -> Result<()> {
        let _turn = self.turn.lock().await;
        self.put_token(jid, entry.clone()).await
    }

    async fn delete_tc_token(&self, jid: &str) -> Result<()> {
        let _turn = self.turn.lock().await;
        self.soon(vec![Kind::TcToken.remove(name([jid.as_bytes()]))]).await
    }

    async fn get_all_tc_token_jids(&self) -> Result<Vec<String>> {
        let jid = |_: &[u8], row: &[u8]| Some(decoded::<Token>(row).map(|token| token.jid));
        self.pick(Kind::TcToken, jid).await?.into_iter().collect()
    }

    async fn delete_expired_tc_tokens(&self, token_cutoff: i64, sender_cutoff: i64) -> Result<u32> {
        let is_over = move |row: &[u8]| {
            decoded::<Token>(row).is_ok_and(|Token { entry, .. }| {
                let received = !entry.token.is_empty() && entry.token_timestamp >= token_cutoff;
                let sent = entry.sender_timestamp.is_some_and(|at| at >= sender_cutoff);
                !received && !sent
            })
        };
        self.sweep(Kind::TcToken, is_over).await
    }

    async fn touch_tc_token_sender_timestamp(&self, jid: &str, sender_timestamp: i64) -> Result<()> {
        let _turn = self.turn.lock().await;
        let mut entry = self.token(jid).await?.unwrap_or_else(|| TcTokenEntry {
            token: Vec::new(),
            token_timestamp: sender_timestamp,
            sender_timestamp: None,
        });
        let at = entry.sender_timestamp.map_or(sender_timestamp, |at| at.max(sender_timestamp));
        entry.sender_timestamp = Some(at);
        self.put_token(jid, entry).await
    }

    async fn store_received_tc_token(&self, jid: &str, token: &[u8], token_timestamp: i64) -> Result<()> {
        let _turn = self.turn.lock().await;
        let old = self.token(jid).await?;
        if old.as_ref().is_some_and(|old| !old.token.is_empty() && token_timestamp < old.token_timestamp) {
            return Ok(());
        }
        let sender_timestamp = old.and_then(|old| old.sender_timestamp);
        self.put_token(jid, TcTokenEntry { token: token.to_vec(), token_timestamp, sender_timestamp }).await
    }

    async fn store_sent_message(&self, chat_jid: &str, message_id: &str, payload: &[u8]) -> Result<()> {
        let name = name([chat_jid.as_bytes(), message_id.as_bytes()]);
        self.soon(vec![Kind::SentMessage.put(name, timed(now_secs(), payload))]).await
    }

    async fn take_sent_message(&self, chat_jid: &str, message_id: &str) -> Result<Option<Vec<u8>>> {
        let _turn = self.turn.lock().await;
        let name = name([chat_jid.as_bytes(), message_id.as_bytes()]);
        let Some(row) = self.get(Kind::SentMessage, name.clone()).await? else { return Ok(None) };
        self.soon(vec![Kind::SentMessage.remove(name)]).await?;
        Ok(at_and_rest(&row).map(|(_, payload)| payload.to_vec()))
    }

    async fn delete_expired_sent_messages(&self, cutoff_timestamp: i64) -> Result<u32> {
        self.sweep(Kind::SentMessage, is_before(cutoff_timestamp)).await
    }

    async fn store_pending_inbound(&self, chat: &str, sender: &str, id: &str, message: &[u8]) -> Result<()> {
        self.store_pending_inbound_batch(&[PendingInboundRow { chat, sender, id, message }]).await
    }

    async fn get_pending_inbound(&self, chat: &str, sender: &str, id: &str) -> Result<Option<Vec<u8>>> {
        let row = self.get(Kind::PendingInbound, inbound_name(chat, sender, id)).await?;
        Ok(row.and_then(|row| at_and_rest(&row).map(|(_, message)| message.to_vec())))
    }

    async fn delete_pending_inbound(&self, chat: &str, sender: &str, id: &str) -> Result<()> {
        self.soon(vec![Kind::PendingInbound.remove(inbound_name(chat, sender, id))]).await
    }

    async fn delete_expired_pending_inbound(&self, cutoff_timestamp: i64) -> Result<u32> {
        self.sweep(Kind::PendingInbound, is_before(cutoff_timestamp)).await
    }

    async fn store_pending_inbound_batch(&self, rows: &[PendingInboundRow<'_>]) -> Result<()> {
        let now = now_secs();
        let put = |row: &PendingInboundRow<'_>| {
            let value = timed(now, row.message);
            if value.len() > DEVICE_VALUE_BYTES {
                // The client takes a failure for one of the whole batch, and would wait with all of it for ever.
                tracing::warn!(
                    bytes = value.len(),
                    "a message that came in is too long to be kept until it is delivered"
                );
                return None;
            }
            Some(Kind::PendingInbound.put(inbound_name(row.chat, row.sender, row.id), value))
        };
        self.soon(rows.iter().filter_map(put).collect()).await
    }

    async fn delete_pending_inbound_batch(&self, keys: &[PendingInboundKey<'_>]) -> Result<()> {
        let remove =
            |key: &PendingInboundKey<'_>| Kind::PendingInbound.remove(inbound_name(key.chat, key.sender, key.id));
        self.soon(keys.iter().map(remove).collect()).await
    }
}

fn put_group(row: &GroupDevices) -> Result<DeviceChange> {
    Kind::SenderKeyDevices.put_json(name([row.group.as_bytes()]), row)
}

fn inbound_name(chat: &str, sender: &str, id: &str) -> Vec<u8> {
    name([chat.as_bytes(), sender.as_bytes(), id.as_bytes()])
}

fn is_before(cutoff: i64) -> impl FnMut(&[u8]) -> bool + Send + 'static {
    move |row| at_and_rest(row).is_none_or(|(at, _)| at < cutoff)
}
