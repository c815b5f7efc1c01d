//! What the released versions of the contract say, as Rust types and host traits; all of it generated.
//!
//! The exports of plugins appear here as imports, for their types only: which of them a plugin has is found out plugin by plugin, and `loaded` looks them up by type.

mod generated {
    wasmtime::component::bindgen!({
        path: ["../../wit/0.1.0", "../../wit/0.1.1"],
        inline: "
            package portcullis:host;

            world contract {
                include portcullis:policy/imports@0.1.0;
                include portcullis:policy/requesting@0.1.1;
                import portcullis:policy/describe@0.1.0;
                import portcullis:policy/settings@0.1.0;
                import portcullis:policy/pace@0.1.0;
            }
        ",
        world: "portcullis:host/contract",
        imports: { default: trappable },
        additional_derives: [PartialEq, serde::Serialize, serde::Deserialize],
    });
}

/// The contract by its own name: each interface comes from the one version that has it.
pub(crate) mod portcullis {
    pub(crate) mod policy {
        pub(crate) use super::super::generated::portcullis::policy0_1_0::*;
        pub(crate) use super::super::generated::portcullis::policy0_1_1::http;
    }
}
