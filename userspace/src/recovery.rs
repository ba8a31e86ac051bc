//! recovery
#![forbid(unsafe_code)]
