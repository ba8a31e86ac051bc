//! steering
#![forbid(unsafe_code)]
