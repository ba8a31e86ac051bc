//! Generates the gRPC types and the descriptor set for reflection; no protoc is needed.

use std::path::PathBuf;
use std::{env, fs};

const STATE_WORD: &str = "#[serde(serialize_with = \"crate::channel_state_word\")]";
const PROTO: &str = "feedhandler/control/v1/control.proto";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed={PROTO}");
    let mut compiler = protox::Compiler::new(["."])?;
    // Source info carries the comments, which become the documentation of the generated types.
    compiler.include_source_info(true).include_imports(true).open_file(PROTO)?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("descriptors.bin"), compiler.encode_file_descriptor_set())?;
    tonic_prost_build::configure()
        .type_attribute(".feedhandler", "#[derive(serde::Serialize)]")
        .type_attribute(".feedhandler.control.v1.ChannelState", "#[serde(rename_all = \"snake_case\")]")
        .field_attribute(".feedhandler.control.v1.ChannelStatus.state", STATE_WORD)
        .field_attribute(".feedhandler.control.v1.ChannelChanged.state", STATE_WORD)
        .compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}
