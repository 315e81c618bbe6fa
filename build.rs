//! Generates the protobuf types, without a system `protoc`, and the wire schema that the validator walks.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(["proto/dashstream.proto", "proto/stream.proto"], ["proto"])?;
    // Ordered maps: the same message always encodes to the same bytes.
    prost_build::Config::new()
        .bytes(["dashstream.stream.v2.Record.value"])
        .btree_map(["."])
        .compile_fds(descriptors)?;
    Ok(())
}
