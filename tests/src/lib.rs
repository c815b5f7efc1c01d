//! Integration tests of the whole gateway. They are in `it/`, one test binary; this library is empty.
//!
//! The package also has a program, `portcullis-it`, which is the gateway under a name that the tests can find, start and kill.
