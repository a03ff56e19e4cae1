//! Where the model server is, what it can do, and how it fails.
//!
//! This room knows model servers. It must never know sandboxes.
