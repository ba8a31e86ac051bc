//! The integration tests: one binary, so that it links once.
#![forbid(unsafe_code)]

mod filter;
mod layout;
mod steering;
mod xsk;
