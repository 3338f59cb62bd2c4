//! Compiles `holdfast.proto` without a system `protoc`.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    let descriptors = protox::compile(["src/proto/holdfast.proto"], ["src/proto"])?;
    println!("cargo::rerun-if-changed=src/proto/holdfast.proto");
    tonic_prost_build::configure().build_server(false).bytes(".holdfast.v1").compile_fds(descriptors)?;
    Ok(())
}
