//! The macro that turns a type into a component's exports.

/// Exports a plugin: a type, and the interfaces of the contract that it implements.
///
/// ```
/// # use portcullis_sdk::{Describe, Description};
/// struct Quiet;
///
/// impl Describe for Quiet {
///     fn describe() -> Description {
///         Description::new("quiet", "1.0.0", "Has nothing to say.")
///     }
/// }
///
/// portcullis_sdk::export!(Quiet: describe);
/// # fn main() {}
/// ```
///
/// The interfaces are `describe`, `settings`, `gate`, `observer`, `timer` and `pace`, and each needs the trait of its name.
/// Outside `wasm32` the macro only checks that the traits are implemented, because the exported names do not link natively.
#[macro_export]
macro_rules! export {
    ($plugin:ident: $($interface:ident),+ $(,)?) => {
        $($crate::__export_interface!($plugin, $interface);)+
    };
}

/// One interface of a plugin.
#[doc(hidden)]
#[macro_export]
macro_rules! __export_interface {
    ($plugin:ident, describe) => {
        $crate::__export_world!($plugin, Describe, described);
    };
    ($plugin:ident, settings) => {
        $crate::__export_world!($plugin, Settings, configured);
    };
    ($plugin:ident, gate) => {
        $crate::__export_world!($plugin, Gate, gating);
    };
    ($plugin:ident, observer) => {
        $crate::__export_world!($plugin, Observer, observing);
    };
    ($plugin:ident, timer) => {
        $crate::__export_world!($plugin, Timer, timed);
    };
    ($plugin:ident, pace) => {
        $crate::__export_world!($plugin, Pace, pacing);
    };
    ($plugin:ident, $unknown:ident) => {
        compile_error!(concat!(
            "the contract has no interface `",
            stringify!($unknown),
            "`; there are describe, settings, gate, observer, timer and pace"
        ));
    };
}

/// The world of one interface.
#[doc(hidden)]
#[macro_export]
macro_rules! __export_world {
    ($plugin:ident, $interface:ident, $world:ident) => {
        const _: () = {
            const fn implements<T: $crate::$interface>() {}
            implements::<$plugin>();
        };
        #[cfg(target_arch = "wasm32")]
        #[allow(unsafe_code, reason = "an exported name is a raw entry point for the host")]
        const _: () = {
    $crate::bindings::$world::export!($plugin with_types_in $crate::bindings::$world);
        };
    };
}
