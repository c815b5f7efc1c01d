//! What the sources hold to.
