//! Golden transcripts of the router dialect.
