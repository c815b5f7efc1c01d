//! The process: its key, its ways to end, what it finds again after each, and its command line.
