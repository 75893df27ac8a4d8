//! The daemon's configuration from any command line, environment and file.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use nexusd::{Config, Invocation};

/// Separates the parts of the input.
const SEPARATOR: u8 = 0xFF;

/// Reads a configuration. One that is accepted must come out the same when every setting it shows
/// is given again as a flag, secrets aside; one that is refused is refused in one line.
///
/// Bytes: arguments separated by zero bytes, 0xFF, variables (`NAME=value`) separated by zero bytes,
/// 0xFF, the file.
pub fn config(data: &[u8]) {
    let mut parts = data.splitn(3, |byte| *byte == SEPARATOR);
    let mut words = || -> Vec<OsString> {
        let part = parts.next().unwrap_or_default();
        part.split(|byte| *byte == 0)
            .filter(|word| !word.is_empty())
            .map(|word| OsString::from_vec(word.to_vec()))
            .collect()
    };
    let args = std::iter::once(OsString::from("nexusd")).chain(words());
    let args: Vec<OsString> = args.collect();
    let variables = words().into_iter().map(|word| {
        let bytes = word.into_vec();
        let end = bytes.iter().position(|byte| *byte == b'=').unwrap_or(bytes.len());
        let value = bytes.get(end + 1..).unwrap_or_default().to_vec();
        (OsString::from_vec(bytes[..end].to_vec()), OsString::from_vec(value))
    });
    let file = String::from_utf8_lossy(parts.next().unwrap_or_default()).into_owned();
    match Config::from_sources(args, variables, |_| Ok(file.clone())) {
        Ok(Invocation::Run(config)) => assert_reads_back(&config),
        Ok(Invocation::Print(text)) => assert!(!text.is_empty()),
        Err(error) => {
            let said = error.to_string();
            assert!(!said.is_empty());
            assert!(!said.contains('\n'), "one sentence, not {said:?}");
        }
    }
}

fn assert_reads_back(config: &Config) {
    let shown = config.settings().filter(|(name, _)| *name != "cluster-key");
    let flags = shown.map(|(name, value)| OsString::from(format!("--{name}={value}")));
    let args = std::iter::once(OsString::from("nexusd")).chain(flags);
    let again = Config::from_sources(args, [], |_| Ok(String::new()));
    match again {
        Ok(Invocation::Run(mut again)) => {
            again.cluster_key.clone_from(&config.cluster_key);
            again.sources.clone_from(&config.sources);
            assert_eq!(*again, *config);
        }
        other => panic!("{config:?} reads back as {other:?}"),
    }
}
