//! Integration tests of the whole gateway. They are in `it/`, one test binary; what is here are runs that can be long.
//!
//! The package also has a program, `portcullis-it`, which is the gateway under a name that the tests can find, start and kill;
//! and one for each long run, which is the gateway too when it is called like one.

mod calls;
pub mod crash;
pub mod deliveries;
pub mod process;
pub mod program;
pub mod sessions;
