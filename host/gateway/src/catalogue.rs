//! The plugins that ship with the gateway, as they were built into it.

use portcullis_http::CatalogueEntry;

/// Every plugin of `plugins/dist`.
pub(crate) static CATALOGUE: [CatalogueEntry; 7] = [
    CatalogueEntry { name: "churn", component: include_bytes!("../../../plugins/dist/churn.wasm") },
    CatalogueEntry { name: "confirm-delete", component: include_bytes!("../../../plugins/dist/confirm-delete.wasm") },
    CatalogueEntry { name: "delete-quota", component: include_bytes!("../../../plugins/dist/delete-quota.wasm") },
    CatalogueEntry { name: "grace-delete", component: include_bytes!("../../../plugins/dist/grace-delete.wasm") },
    CatalogueEntry { name: "name-rules", component: include_bytes!("../../../plugins/dist/name-rules.wasm") },
    CatalogueEntry { name: "office-hours", component: include_bytes!("../../../plugins/dist/office-hours.wasm") },
    CatalogueEntry { name: "rate-ladder", component: include_bytes!("../../../plugins/dist/rate-ladder.wasm") },
];
