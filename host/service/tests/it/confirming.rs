//! Confirmations of changes to plugins and bindings: the platform asks an organisation back, and the same request with the token is done.

use portcullis_core::{BindingId, FailureFold, Mode, OperationKind, PluginId, Selector};
use portcullis_service::{BindingChange, Call, Done, GivenToken, NewBinding, Outcome, ServiceError, Upload};
use portcullis_testing::text::words;
use portcullis_testing::{DATA, Guest};

use crate::guests;
use crate::world::World;

/// Asks back whatever it is asked about.
fn asking() -> Vec<u8> {
    // Until the end of time, and without anything to type.
    Guest::gate(&words(&[4, 0, DATA, 9, u32::MAX, 0xffff, 0])).data("Are you s").named("asking").build()
}

/// A request, to be made twice.
enum Request {
    Upload(Vec<u8>),
    Bind(PluginId),
    Change(BindingId, FailureFold),
}

impl World {
    async fn request(&self, request: &Request, confirmation: Option<GivenToken>) -> Result<Done, ServiceError> {
        let call = Call { confirmation, ..Call::default() };
        match request {
            Request::Upload(bytes) => {
                let permit = self.permit(OperationKind::PluginUpload, None).await;
                let upload = Upload { bytes: bytes.clone(), ..Upload::default() };
                self.service.upload_plugin(&permit, upload, call).await
            }
            Request::Bind(plugin) => {
                let permit = self.permit(OperationKind::BindingCreate, None).await;
                let binding = NewBinding {
                    plugin: *plugin,
                    version: None,
                    hooks: Vec::new(),
                    mode: Mode::Monitor,
                    settings: "{}".into(),
                    on_failure: FailureFold::Deny,
                    order: 0,
                    grants: None,
                    http_hosts: Vec::new(),
                    selector: Selector::default(),
                    wall_millis: None,
                };
                self.service.create_binding(&permit, binding, call).await
            }
            Request::Change(binding, fold) => {
                let permit = self.permit(OperationKind::BindingUpdate, None).await;
                let change = BindingChange { on_failure: Some(*fold), ..BindingChange::default() };
                self.service.update_binding(&permit, *binding, change, call).await
            }
        }
    }

    /// Asks, is asked back, and gets the token.
    async fn asked_back(&self, request: &Request) -> GivenToken {
        match self.request(request, None).await {
            Err(ServiceError::ConfirmationRequired { token: Some(token), rejected: None, .. }) => {
                GivenToken { token, answer: None }
            }
            other => panic!("not asked back: {other:?}"),
        }
    }

    /// Asks, is asked back, and confirms a second later.
    async fn confirm(&self, request: &Request) -> Outcome {
        let given = self.asked_back(request).await;
        self.clock.advance(std::time::Duration::from_secs(1));
        self.request(request, Some(given)).await.unwrap().outcome
    }
}

/// Such a request once was another one each time: its digest had an id, a generation and times in it that are made up for each request.
#[tokio::test]
async fn uploads_bindings_and_their_changes_can_be_confirmed() {
    let world = World::new().await;
    world.platform().bind(asking(), vec![], "{}").await;
    let uploaded = world.confirm(&Request::Upload(guests::allowing())).await;
    let Outcome::Uploaded(version, _) = uploaded else { panic!("not uploaded: {uploaded:?}") };
    let bound = world.confirm(&Request::Bind(version.plugin)).await;
    let Outcome::Bound(binding) = bound else { panic!("not bound: {bound:?}") };
    let changed = world.confirm(&Request::Change(binding.id, FailureFold::Allow)).await;
    assert!(matches!(changed, Outcome::Bound(binding) if binding.on_failure == FailureFold::Allow));
}

#[tokio::test]
async fn a_confirmation_holds_for_no_other_upload_binding_or_change() {
    let world = World::new().await;
    let asking = world.platform().bind(asking(), vec![], "{}").await;
    let check = async |asked: Request, other: Request| {
        let given = world.asked_back(&asked).await;
        match world.request(&other, Some(given)).await {
            Err(ServiceError::ConfirmationRequired { rejected: Some(rejected), .. }) => {
                assert_eq!(rejected.code(), "confirmation_of_another_request");
            }
            other => panic!("not asked back: {other:?}"),
        }
    };
    check(Request::Upload(guests::allowing()), Request::Upload(guests::denying())).await;
    world.platform().unbind(asking).await;
    let one = world.bind(guests::allowing(), vec![], "{}").await;
    let two = world.bind(guests::denying(), vec![OperationKind::SessionQr], "{}").await;
    let plugin = async |binding| world.binding(binding).await.binding.plugin;
    let (of_one, of_two) = (plugin(one).await, plugin(two).await);
    world.platform().bind(self::asking(), vec![], "{}").await;
    check(Request::Bind(of_one), Request::Bind(of_two)).await;
    check(Request::Change(one, FailureFold::Allow), Request::Change(two, FailureFold::Allow)).await;
    check(Request::Change(one, FailureFold::Allow), Request::Change(one, FailureFold::Deny)).await;
}
