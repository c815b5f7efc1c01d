//! How many versions of a plugin are kept, and which of them goes.

use portcullis_core::{OperationKind, PluginClass, PluginVersion};
use portcullis_service::{BindingChange, Call, Outcome, QuotaChange, ServiceError, Upload};

use crate::guests::numbered;
use crate::world::World;

/// How many versions of one plugin are kept.
const KEPT: u32 = 50;

impl World {
    async fn upload(&self, component: Vec<u8>, class: PluginClass) -> Result<PluginVersion, ServiceError> {
        let permit = self.permit(OperationKind::PluginUpload, None).await;
        let upload = Upload { bytes: component, class, ..Upload::default() };
        match self.service.upload_plugin(&permit, upload, Call::default()).await?.outcome {
            Outcome::Uploaded(version, _) => Ok(*version),
            outcome => panic!("the upload came to {outcome:?}"),
        }
    }

    async fn versions(&self, of: &PluginVersion) -> Vec<u32> {
        let permit = self.permit(OperationKind::PluginRead, None).await;
        self.service.plugin_versions(&permit, of.plugin).unwrap().iter().map(|version| version.version).collect()
    }
}

#[tokio::test]
async fn the_oldest_version_that_nothing_needs_makes_room() {
    let world = World::new().await;
    let binding = world.bind(numbered(1), vec![], "{}").await;
    for number in 2..=KEPT {
        world.upload(numbered(number), PluginClass::Standard).await.unwrap();
    }
    // The first is bound, so the second goes.
    let newest = world.upload(numbered(KEPT + 1), PluginClass::Standard).await.unwrap();
    assert_eq!(newest.version, KEPT + 1);
    let kept = world.versions(&newest).await;
    assert_eq!((kept.len(), &kept[..3]), (KEPT as usize, [1, 3, 4].as_slice()));

    // One that can be gone back to stays, too.
    let permit = world.permit(OperationKind::BindingUpdate, None).await;
    let change = BindingChange { version: Some(4), ..BindingChange::default() };
    world.service.update_binding(&permit, binding, change, Call::default()).await.unwrap();
    for number in [KEPT + 2, KEPT + 3] {
        world.upload(numbered(number), PluginClass::Standard).await.unwrap();
    }
    assert_eq!(world.versions(&newest).await[..4], [1, 4, 6, 7]);
    world.service.roll_back(&permit, binding, Call::default()).await.unwrap();
}

#[tokio::test]
async fn large_plugins_have_a_quota_of_their_own() {
    let world = World::new().await;
    world.set_quotas(QuotaChange { large_plugins: Some(1), ..QuotaChange::default() }).await;
    world.upload(numbered(1), PluginClass::Large).await.unwrap();
    let refused = world.upload(numbered(2), PluginClass::Large).await.unwrap_err();
    assert_eq!(refused.code(), "quota_reached");
    world.upload(numbered(2), PluginClass::Standard).await.unwrap();
}
