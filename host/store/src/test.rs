//! The store from outside, and from the two seams below it: the database's storage and the key file's.

mod backups;
mod chaining;
mod commits;
mod crash;
mod decisions;
mod delivering;
mod disk;
mod erasing;
mod expiring;
mod keeping;
mod limits;
mod migrating;
mod model;
mod opening;
mod policy;
mod rotating;
mod rows;
mod sample;
mod verifying;
