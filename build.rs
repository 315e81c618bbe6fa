//! Generates the protobuf types, without a system `protoc`, and the wire schema that the validator walks.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // The page is built by npm and may be absent; what is embedded must be there as a folder.
    std::fs::create_dir_all("ui/dist")?;
    println!("cargo:rerun-if-changed=ui/dist");
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(["proto/dashstream.proto", "proto/stream.proto"], ["proto"])?;
    prost_build::Config::new().bytes(["dashstream.stream.v2.Record.value"]).compile_fds(descriptors)?;
    Ok(())
}
