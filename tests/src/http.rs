//! The least of an HTTP client: one request a connection.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
};

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
    let mut stream = TcpStream::connect(address).ok()?;
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n")?;
    let body = answer.split_off(end + 4);
    Some((String::from_utf8(answer).ok()?, body))
}
