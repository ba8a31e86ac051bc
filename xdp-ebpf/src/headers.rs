//! The one header parser.
