//! Who may ask something over HTTP, and who may change something: callers on this host that no web page sent.
//!
//! A browser on this host would reach the port, too. It says which page a request comes from, and under which
//! name it found the port: a page of somebody else, and a name that somebody else's DNS leads here, change
//! nothing, and the JSON interface is not shown over the loopback address under such a name. Signs of life, the
//! description and metrics are.

use axum::extract::{FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::caller::FORWARDED;
use crate::{Caller, Fault};

/// The request comes from somebody who may change something.
pub(super) struct Changer;

impl<S: Sync> FromRequestParts<S> for Changer {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Fault> {
        parts.extensions.get::<Caller>().copied().unwrap_or_default().may_change()?;
        check(&parts.headers)?;
        Ok(Self)
    }
}

/// Refuses a question over the loopback address that is asked under somebody else's name.
pub(super) async fn only_askers(request: Request, next: Next) -> Response {
    let is_here = request.extensions().get::<Caller>().is_some_and(|caller| caller.is_local());
    let host = request.headers().get(header::HOST).map(|host| host.to_str().unwrap_or("not text"));
    if let Some(host) = host.filter(|host| is_here && !may_be_ours(host)) {
        let text = format!(
            "this is asked of {host:?} over the loopback address, as by a web page whose name leads here; ask \
             localhost, an address, or a name without dots"
        );
        return Fault::Forbidden(text).into_response();
    }
    next.run(request).await
}

/// Whether a name may be this host's: one of a public domain's is somebody's who can have it lead anywhere.
fn may_be_ours(host: &str) -> bool {
    is_own_name(host) || !host.contains('.')
}

fn check(headers: &HeaderMap) -> Result<(), Fault> {
    let said = |name| headers.get(name).map(|value| value.to_str().unwrap_or("not text"));
    let foreign =
        |what: &str| Err(Fault::Forbidden(format!("{what}; a web page may not change anything")));
    let host = said(header::HOST).unwrap_or_default();
    if !is_own_name(host) {
        return foreign(&format!(
            "this is asked of {host:?}, which is neither an address nor localhost"
        ));
    }
    if let Some(name) = FORWARDED.into_iter().find(|name| headers.contains_key(*name)) {
        return Err(Fault::Forbidden(format!(
            "this was passed on by a proxy ({name}); what changes something is asked directly"
        )));
    }
    if let Some(origin) = said(header::ORIGIN)
        && origin.strip_prefix("http://") != Some(host)
    {
        return foreign("this comes from another site");
    }
    if said(header::HeaderName::from_static("sec-fetch-site"))
        .is_some_and(|site| !matches!(site, "same-origin" | "none"))
    {
        return foreign("this comes from another site");
    }
    Ok(())
}

/// Whether nobody's DNS can make this name lead elsewhere: an address, or `localhost`.
fn is_own_name(host: &str) -> bool {
    let Ok(uri) = Uri::builder().scheme("http").authority(host).path_and_query("/").build() else {
        return false;
    };
    let name = uri.host().unwrap_or_default();
    let address = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    name.eq_ignore_ascii_case("localhost") || address.parse::<std::net::IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderName;

    use super::*;

    fn passes(headers: &[(&'static str, &str)]) -> bool {
        let headers = headers
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), value.parse().expect("a value")));
        check(&headers.collect()).is_ok()
    }

    #[test]
    fn a_public_name_that_leads_to_the_loopback_address_is_not_this_hosts() {
        for own in ["localhost:8080", "127.0.0.1", "[::1]:8080", "node-7:8080", "node-7"] {
            assert!(may_be_ours(own), "{own}");
        }
        for other in ["evil.example:8080", "evil.example", "127.0.0.1.evil.example", "a.b"] {
            assert!(!may_be_ours(other), "{other}");
        }
    }

    #[test]
    fn programs_and_pages_of_the_port_itself_may_and_other_pages_may_not() {
        assert!(passes(&[("host", "127.0.0.1:8080")]));
        assert!(passes(&[("host", "[::1]:8080")]) && passes(&[("host", "LOCALHOST:8080")]));
        let own = ("origin", "http://localhost:8080");
        assert!(passes(&[("host", "localhost:8080"), own, ("sec-fetch-site", "same-origin")]));
        assert!(!passes(&[("host", "localhost:8080"), ("origin", "http://localhost:9999")]));
        assert!(!passes(&[("host", "localhost:8080"), ("origin", "null")]));
        assert!(!passes(&[("host", "localhost:8080"), ("sec-fetch-site", "cross-site")]));
        assert!(!passes(&[("host", "evil.example:8080"), ("origin", "http://evil.example:8080")]));
        assert!(!passes(&[("host", "127.0.0.1.evil.example")]), "not an address");
        assert!(!passes(&[("host", "127.0.0.1:8080"), ("x-forwarded-for", "10.0.0.7")]));
        assert!(!passes(&[("host", "127.0.0.1:8080"), ("via", "1.1 proxy")]));
        assert!(!passes(&[]) && !passes(&[("host", "")]) && !passes(&[("host", "a b")]));
    }
}
