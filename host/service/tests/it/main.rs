//! The service at its own boundary: real store, real policy runtime, simulated engine, and a clock that the test steps.

mod bounds;
mod recovery;
mod story;
mod world;
