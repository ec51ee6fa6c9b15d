//! Compiles the schema without `protoc`: protox parses it, tonic-prost-build writes the Rust.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto/leyline.proto");
    let descriptors = protox::compile(["proto/leyline.proto"], ["proto"])?;
    tonic_prost_build::configure().compile_fds(descriptors)?;
    Ok(())
}
