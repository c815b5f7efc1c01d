//! The plugins that ship with the gateway, as they were built into it.

use portcullis_http::CatalogueEntry;

/// Every plugin of `plugins/dist`.
pub(crate) static CATALOGUE: [CatalogueEntry; 3] = [
    CatalogueEntry { name: "delete-quota", component: include_bytes!("../../../plugins/dist/delete-quota.wasm") },
    CatalogueEntry { name: "grace-delete", component: include_bytes!("../../../plugins/dist/grace-delete.wasm") },
    CatalogueEntry { name: "rate-ladder", component: include_bytes!("../../../plugins/dist/rate-ladder.wasm") },
];
