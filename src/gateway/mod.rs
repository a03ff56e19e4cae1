//! All that a sandbox may talk to: unix sockets in one private folder, one per permitted peer.
//!
//! This room knows who may pass and counts what passed. It must never know containers.
