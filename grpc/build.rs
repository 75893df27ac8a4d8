//! Makes Rust of the service's description, and the description that reflection serves. `protox` reads it, so
//! nobody needs a `protoc`.

use std::path::PathBuf;
use std::{env, fs, io};

use prost::Message;

fn main() -> io::Result<()> {
    println!("cargo::rerun-if-changed=proto");
    let files = protox::compile(["sidecar.proto"], ["proto"]).map_err(io::Error::other)?;
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or_else(|| io::Error::other("no OUT_DIR"))?);
    fs::write(out.join("sidecar.bin"), files.encode_to_vec())?;
    tonic_prost_build::configure()
        .bytes(".")
        .codec_path("crate::codec::BoundedCodec")
        .compile_fds(files)
}
