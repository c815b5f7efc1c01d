//! What wit-bindgen makes of `wit`: the only generated code in the SDK.
//!
//! The types and the imports are generated once, in [`imports`].
//! Each exported interface has a small world and a module of its own, which borrows the types from there.
//! With `pub_export_macro`, the description of an export is only written where its `export!` macro is expanded:
//! a plugin's component therefore exports what the plugin names in [`crate::export!`], and nothing else.

#![allow(missing_docs, reason = "the contract documents records and cases where a name does not say it all")]
#![allow(unsafe_code, reason = "lifting and lowering values over the component boundary works on raw memory")]
#![allow(unreachable_pub, unused_qualifications, reason = "generated code is not written for readers")]
#![allow(clippy::all, clippy::unwrap_used, clippy::semicolon_if_nothing_returned, reason = "generated code")]

/// The shared types, and the interfaces that a plugin may import.
pub mod imports {
    wit_bindgen::generate!({
        path: "../../wit/0.1.0",
        world: "imports",
        pub_export_macro: true,
        generate_unused_types: true,
        additional_derives: [PartialEq, Eq],
    });
}

/// A world with one export that uses the shared types.
macro_rules! world {
    ($(#[$doc:meta])* $module:ident, $world:literal) => {
        $(#[$doc])*
        pub mod $module {
            wit_bindgen::generate!({
                path: "../../wit/0.1.0",
                world: $world,
                pub_export_macro: true,
                additional_derives: [PartialEq, Eq],
                with: { "portcullis:policy/types@0.1.0": crate::bindings::imports::portcullis::policy::types },
            });
        }
    };
}

world!(
    /// The export `gate`.
    gating, "gating"
);
world!(
    /// The export `observer`.
    observing, "observing"
);
world!(
    /// The export `timer`.
    timed, "timed"
);
world!(
    /// The export `pace`.
    pacing, "pacing"
);

/// The import `http`, which came in a later version of the contract and takes its types from the first.
pub mod requesting {
    wit_bindgen::generate!({
        path: ["../../wit/0.1.0", "../../wit/0.1.1"],
        world: "portcullis:policy/requesting@0.1.1",
        additional_derives: [PartialEq, Eq],
        with: { "portcullis:policy/types@0.1.0": crate::bindings::imports::portcullis::policy::types },
    });
}

/// The export `describe`, which needs none of the shared types.
pub mod described {
    wit_bindgen::generate!({
        path: "../../wit/0.1.0",
        world: "described",
        pub_export_macro: true,
        additional_derives: [PartialEq, Eq],
    });
}

/// The export `settings`, which needs none of the shared types.
pub mod configured {
    wit_bindgen::generate!({
        path: "../../wit/0.1.0",
        world: "configured",
        pub_export_macro: true,
        additional_derives: [PartialEq, Eq],
    });
}
