//! What goldens are made of.
