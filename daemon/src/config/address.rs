//! Values of settings that say where the daemon listens: ports, addresses, the unix socket.

use std::net::IpAddr;

use nexusd_core::io::listener::UnixAddress;

use super::quantity::digits;
use super::{HttpPort, UnixSocket};

/// Longest path or abstract name of a unix socket, in bytes: the kernel's `sun_path` less a NUL.
const UNIX_NAME_BYTES_MAX: usize = 107;

pub(super) fn read_port(text: &str) -> Result<u16, String> {
    digits(text)
        .and_then(|number| u16::try_from(number).ok())
        .ok_or_else(|| "is not a port; it is a number from 0 to 65535".to_owned())
}

pub(super) fn read_http_port(text: &str) -> Result<HttpPort, String> {
    match text {
        "off" => Ok(HttpPort::Off),
        _ => read_port(text)
            .map(HttpPort::At)
            .map_err(|_| "is not a port; it is off, or a number from 0 to 65535".to_owned()),
    }
}

pub(super) fn show_http_port(port: HttpPort) -> String {
    match port {
        HttpPort::Off => "off".to_owned(),
        HttpPort::At(port) => port.to_string(),
    }
}

pub(super) fn read_addresses(text: &str) -> Result<Vec<IpAddr>, String> {
    let mut addresses = Vec::new();
    for part in text.split(',') {
        let address: IpAddr = part.trim().parse().map_err(|_| {
            "is not a list of IPv4 and IPv6 addresses, such as 127.0.0.1 or 0.0.0.0,::".to_owned()
        })?;
        if addresses.contains(&address) {
            return Err(format!("names {address} twice"));
        }
        addresses.push(address);
    }
    Ok(addresses)
}

pub(super) fn read_unix_socket(text: &str) -> Result<UnixSocket, String> {
    let name = text.strip_prefix('@').unwrap_or(text);
    if name.is_empty() || name.contains('\0') {
        return Err("is not a unix socket; choose auto, none, a path or @NAME".to_owned());
    }
    if name.len() > UNIX_NAME_BYTES_MAX {
        return Err(format!(
            "is too long for a unix socket; the most is {UNIX_NAME_BYTES_MAX} bytes"
        ));
    }
    Ok(match text {
        "auto" => UnixSocket::Auto,
        "none" => UnixSocket::None,
        _ if text.starts_with('@') => UnixSocket::At(UnixAddress::Abstract(name.to_owned())),
        path => UnixSocket::At(UnixAddress::Path(path.into())),
    })
}
