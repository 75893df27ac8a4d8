//! Makes Rust of the service's description, and the description that reflection serves. `protox` reads it, so
//! nobody needs a `protoc`.

use std::path::PathBuf;
use std::{env, fs, io};

use prost::Message;

const QUERY: &str = "#[derive(utoipa::IntoParams)] #[into_params(parameter_in = Query)] \
                     #[serde(default, deny_unknown_fields)]";
const BODY: &str = "#[serde(default, deny_unknown_fields)]";

fn main() -> io::Result<()> {
    println!("cargo::rerun-if-changed=proto");
    let files = protox::compile(["admin.proto"], ["proto"]).map_err(io::Error::other)?;
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or_else(|| io::Error::other("no OUT_DIR"))?);
    fs::write(out.join("admin.bin"), files.encode_to_vec())?;
    let service = tonic_prost_build::configure()
        .type_attribute(".", "#[derive(serde::Serialize, serde::Deserialize)]");
    if env::var_os("CARGO_FEATURE_SERVER").is_none() {
        return service.build_server(false).compile_fds(files);
    }
    service
        .type_attribute(".", "#[derive(utoipa::ToSchema)]")
        // What is left out of a query or a body has its default; what nobody knows is refused.
        .type_attribute("ListTopicsRequest", QUERY)
        .type_attribute("ListSubscriptionsRequest", QUERY)
        .type_attribute("ListRetainedRequest", QUERY)
        .type_attribute("ListClientsRequest", QUERY)
        .type_attribute("SetClientNameRequest", BODY)
        .type_attribute("SetLogLevelRequest", BODY)
        .compile_fds(files)
}
