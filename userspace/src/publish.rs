//! publish
#![forbid(unsafe_code)]
