//! Integration tests of the whole gateway.
