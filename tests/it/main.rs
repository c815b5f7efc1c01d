//! Integration tests: every test starts the real program with a data directory of its own and speaks HTTP with it.
//!
//! `gateway` is the process, `client` its HTTP client, `world` an organisation in it, `guest` hostile plugins, `transcript` what goldens are made of,
//! `workload` what is done while the process is killed.
//! The other modules are the tests. `UPDATE_EXPECT=1` writes the golden files anew.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where by panicking")]

mod authorization;
mod authors;
mod client;
mod concurrency;
mod crash_run;
mod crashes;
mod credentials;
mod damage;
mod deliveries;
mod delivery_run;
mod driver;
mod earnest;
mod erasure;
mod errors;
mod evolution;
mod formats;
mod frozen;
mod full_disk;
mod gateway;
mod guest;
mod hooks;
mod hostile;
mod keeping;
mod keyed;
mod languages;
mod ledger;
mod live;
mod neighbour;
mod neighbour_street;
mod openapi;
mod people;
mod plugins;
mod policies;
mod process;
mod provider;
mod resources;
mod router;
mod samples;
mod session_run;
mod shipped;
mod streams;
mod tidy;
mod transcript;
mod upkeep;
mod wawp;
mod whatsapp;
mod workload;
mod world;
