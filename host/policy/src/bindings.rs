//! What `wit/0.1.0` says, as Rust types and host traits; all of it generated.
//!
//! The exports of plugins appear here as imports, for their types only: which of them a plugin has is found out plugin by plugin, and `loaded` looks them up by type.

wasmtime::component::bindgen!({
    path: "../../wit/0.1.0",
    inline: "
        package portcullis:host;

        world contract {
            include portcullis:policy/imports@0.1.0;
            import portcullis:policy/describe@0.1.0;
            import portcullis:policy/settings@0.1.0;
            import portcullis:policy/pace@0.1.0;
        }
    ",
    world: "portcullis:host/contract",
    imports: { default: trappable },
    additional_derives: [PartialEq, serde::Serialize, serde::Deserialize],
});
