//! A WhatsApp server with phones, for tests on this machine.
