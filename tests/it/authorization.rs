//! Every route against every kind of caller who may not use it.
