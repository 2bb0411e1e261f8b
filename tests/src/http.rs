//! The least of an HTTP client: one request a connection.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    sync::Arc,
};

use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use rustls_pki_types::CertificateDer;

/// The status and body of what is at this path; characters that an address cannot have are encoded. Nothing without a whole answer.
#[must_use]
pub fn get(address: SocketAddr, path: &str) -> Option<(u16, String)> {
    let path = path.replace('"', "%22").replace('{', "%7B").replace('}', "%7D").replace(' ', "%20").replace('>', "%3E");
    let (head, body) = ask(address, &format!("GET {path} HTTP/1.0\r\n\r\n"))?;
    Some((head.split_whitespace().nth(1)?.parse().ok()?, String::from_utf8(body).ok()?))
}

/// The head and body of the answer to a whole request of HTTP/1.0. Nothing without a whole head.
#[must_use]
pub fn ask(address: SocketAddr, request: &str) -> Option<(String, Vec<u8>)> {
    exchange(TcpStream::connect(address).ok()?, request)
}

/// As [`ask`], over TLS, to a server that shows a certificate of this authority for `localhost`.
///
/// # Errors
/// Why there is no TLS, or no answer.
pub fn ask_tls(
    address: SocketAddr,
    authority: &CertificateDer<'static>,
    request: &str,
) -> anyhow::Result<(String, Vec<u8>)> {
    let mut roots = RootCertStore::empty();
    roots.add(authority.clone())?;
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let mut connection = ClientConnection::new(Arc::new(config), "localhost".try_into()?)?;
    let mut stream = TcpStream::connect(address)?;
    connection.complete_io(&mut stream)?;
    exchange(StreamOwned::new(connection, stream), request).ok_or_else(|| anyhow::anyhow!("no answer"))
}

fn exchange(mut stream: impl Read + Write, request: &str) -> Option<(String, Vec<u8>)> {
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = Vec::new();
    // Over TLS the end may come without a farewell.
    let ended = stream.read_to_end(&mut answer);
    if ended.is_err() && answer.is_empty() {
        return None;
    }
    let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n")?;
    let body = answer.split_off(end + 4);
    Some((String::from_utf8(answer).ok()?, body))
}
