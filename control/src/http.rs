//! As much of HTTP/1.1 (RFC 9112) as one request and one answer over a stream need.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::{self, BufRead, BufReader, Read, Write};

use crate::MAX_BODY;

/// A request's method, with its JSON body where it has one.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Method<'a> {
    Get,
    Post(&'a [u8]),
}

/// An answer whose head and body are complete.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HttpError {
    #[error("the answer's body has a chunk that cannot be read")]
    Chunk,
    #[error("the answer's head cannot be read: {0}")]
    Head(#[from] httparse::Error),
    #[error("the answer's head is longer than {MAX_HEAD} bytes")]
    HeadTooLong,
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("the answer's length {0:?} is not a number of bytes")]
    Length(String),
    #[error("the answer is longer than {MAX_BODY} bytes")]
    TooLong,
    #[error("the answer's transfer encoding {0:?} is not chunked")]
    TransferEncoding(String),
}

/// Sends one request and reads the answer to it. The connection is of no use afterwards.
pub(crate) fn exchange(
    stream: &mut (impl Read + Write),
    method: Method<'_>,
    target: &str,
) -> Result<Answer, HttpError> {
    // A server that refuses early closes its side while we still write; what it said before is
    // worth more than our broken pipe.
    let sent = stream.write_all(&request(method, target));
    match (read_answer(&mut BufReader::new(stream)), sent) {
        (Err(HttpError::Io(_)), Err(error)) => Err(error.into()),
        (answer, _) => answer,
    }
}

/// Quotes a value for the query of a request's target (RFC 3986 §2.1).
pub(crate) fn query_value(value: &str) -> Cow<'_, str> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~');
    if value.bytes().all(plain) {
        return Cow::Borrowed(value);
    }
    let mut quoted = String::with_capacity(value.len() * 3);
    for byte in value.bytes() {
        if plain(byte) {
            quoted.push(char::from(byte));
        } else {
            write!(quoted, "%{byte:02X}").expect("writing to a String cannot fail");
        }
    }
    Cow::Owned(quoted)
}

/// Longest head that is read. The router's has some 100 bytes.
const MAX_HEAD: usize = 16 << 10;

/// Longest line between chunks: 16 digits and some extension.
const MAX_CHUNK_LINE: usize = 256;

fn request(method: Method<'_>, target: &str) -> Vec<u8> {
    let (verb, body) = match method {
        Method::Get => ("GET", None),
        Method::Post(body) => ("POST", Some(body)),
    };
    let mut text = format!(
        "{verb} {target} HTTP/1.1\r\nhost: weft\r\naccept: application/json\r\nconnection: close\r\n"
    );
    if let Some(body) = body {
        let length = body.len();
        write!(
            text,
            "content-type: application/json\r\ncontent-length: {length}\r\n"
        )
        .expect("writing to a String cannot fail");
    }
    text.push_str("\r\n");
    let mut bytes = text.into_bytes();
    bytes.extend_from_slice(body.unwrap_or_default());
    bytes
}

fn read_answer(reader: &mut impl BufRead) -> Result<Answer, HttpError> {
    loop {
        let head = read_head(reader)?;
        // 1xx announce an answer that is still to come (RFC 9110 §15.2).
        if (100..200).contains(&head.status) {
            continue;
        }
        let body = match head.framing {
            _ if matches!(head.status, 204 | 304) => Vec::new(),
            Framing::Chunked => read_chunks(reader)?,
            Framing::Length(length) => read_exactly(reader, length)?,
            Framing::UntilClose => read_all(reader)?,
        };
        return Ok(Answer {
            status: head.status,
            body,
        });
    }
}

struct Head {
    status: u16,
    framing: Framing,
}

/// How the end of a body is found (RFC 9112 §6.3).
enum Framing {
    Chunked,
    Length(usize),
    UntilClose,
}

fn read_head(reader: &mut impl BufRead) -> Result<Head, HttpError> {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n\r\n") {
        if read_line(reader, &mut bytes, MAX_HEAD)? == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
    }
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut headers);
    response.parse(&bytes)?;
    let status = response.code.ok_or(httparse::Error::Status)?;
    let mut framing = Framing::UntilClose;
    for header in response.headers.iter() {
        let value = || String::from_utf8_lossy(header.value).trim().to_owned();
        if header.name.eq_ignore_ascii_case("transfer-encoding") {
            if !value().eq_ignore_ascii_case("chunked") {
                return Err(HttpError::TransferEncoding(value()));
            }
            framing = Framing::Chunked;
        } else if header.name.eq_ignore_ascii_case("content-length")
            && !matches!(framing, Framing::Chunked)
        {
            let length = value().parse().map_err(|_| HttpError::Length(value()))?;
            framing = Framing::Length(length);
        }
    }
    Ok(Head { status, framing })
}

fn read_chunks(reader: &mut impl BufRead) -> Result<Vec<u8>, HttpError> {
    let mut body = Vec::new();
    loop {
        let mut line = Vec::new();
        read_line(reader, &mut line, MAX_CHUNK_LINE).map_err(as_chunk)?;
        let Ok(httparse::Status::Complete((_, size))) = httparse::parse_chunk_size(&line) else {
            return Err(HttpError::Chunk);
        };
        if size == 0 {
            // Trailers say nothing that is used, and the connection is not either.
            return Ok(body);
        }
        let size = usize::try_from(size).map_err(|_| HttpError::TooLong)?;
        if size > MAX_BODY - body.len() {
            return Err(HttpError::TooLong);
        }
        body.append(&mut read_exactly(reader, size)?);
        let mut end = [0; 2];
        reader.read_exact(&mut end)?;
        if end != *b"\r\n" {
            return Err(HttpError::Chunk);
        }
    }
}

fn read_exactly(reader: &mut impl BufRead, length: usize) -> Result<Vec<u8>, HttpError> {
    if length > MAX_BODY {
        return Err(HttpError::TooLong);
    }
    let mut body = Vec::new();
    // The buffer grows with what arrives, not with what was promised.
    if reader.take(length as u64).read_to_end(&mut body)? < length {
        return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
    }
    Ok(body)
}

fn read_all(reader: &mut impl BufRead) -> Result<Vec<u8>, HttpError> {
    let mut body = Vec::new();
    if reader.take(MAX_BODY as u64 + 1).read_to_end(&mut body)? > MAX_BODY {
        return Err(HttpError::TooLong);
    }
    Ok(body)
}

/// Appends a line with its end; 0 at the end of the stream.
fn read_line(
    reader: &mut impl BufRead,
    bytes: &mut Vec<u8>,
    longest: usize,
) -> Result<usize, HttpError> {
    let left = longest.saturating_sub(bytes.len()) as u64;
    let read = reader.take(left).read_until(b'\n', bytes)?;
    if bytes.len() >= longest {
        Err(HttpError::HeadTooLong)
    } else {
        Ok(read)
    }
}

fn as_chunk(error: HttpError) -> HttpError {
    match error {
        HttpError::HeadTooLong => HttpError::Chunk,
        error => error,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(bytes: &[u8]) -> Result<Answer, HttpError> {
        // A buffer of three bytes cuts everything where it hurts.
        read_answer(&mut BufReader::with_capacity(3, bytes))
    }

    fn body(bytes: &[u8]) -> Vec<u8> {
        read(bytes).unwrap().body
    }

    #[test]
    fn request_bytes() {
        assert_eq!(
            request(Method::Post(b"{}"), "/v1/detach"),
            b"POST /v1/detach HTTP/1.1\r\nhost: weft\r\naccept: application/json\r\n\
              connection: close\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"
        );
        assert_eq!(
            request(Method::Get, "/v1/status"),
            b"GET /v1/status HTTP/1.1\r\nhost: weft\r\naccept: application/json\r\n\
              connection: close\r\n\r\n"
        );
    }

    #[test]
    fn bodies_by_length_chunks_and_close() {
        assert_eq!(
            body(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcd"),
            b"abc"
        );
        assert_eq!(
            body(b"HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n"),
            b"abcde"
        );
        assert_eq!(body(b"HTTP/1.1 200 OK\r\n\r\nto the end"), b"to the end");
        assert_eq!(body(b"HTTP/1.1 204 No Content\r\n\r\n"), b"");
        let late =
            read(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n");
        assert_eq!(
            late.unwrap(),
            Answer {
                status: 503,
                body: Vec::new()
            }
        );
    }

    #[test]
    fn broken_answers_are_refused() {
        for bytes in [
            &b""[..],
            b"HTTP/1.1 200 OK\r\n",
            b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
            b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nabc",
            b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
            b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999999999999999\r\n\r\n",
            b"HTTP/1.1 200 OK\r\ncontent-length: 16777217\r\n\r\n",
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\n",
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nffffffffffffffff\r\n",
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1000001\r\n",
        ] {
            assert!(read(bytes).is_err(), "{}", String::from_utf8_lossy(bytes));
        }
        let endless = [b"HTTP/1.1 200 OK\r\n".to_vec(), b"x: y\r\n".repeat(4096)].concat();
        assert!(matches!(read(&endless), Err(HttpError::HeadTooLong)));
        let mut large = b"HTTP/1.1 200 OK\r\n\r\n".to_vec();
        large.resize(large.len() + MAX_BODY + 1, b' ');
        assert!(matches!(
            read_answer(&mut &large[..]),
            Err(HttpError::TooLong)
        ));
    }

    proptest! {
        #[test]
        fn any_bytes_are_an_answer_or_an_error(bytes: Vec<u8>) {
            let _ = read(&bytes);
            let _ = read(&[&b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"[..], &bytes].concat());
        }

        #[test]
        fn chunks_join_to_what_was_cut(parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..50), 0..8)) {
            let mut bytes = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
            for part in &parts {
                bytes.extend_from_slice(format!("{:x}\r\n", part.len()).as_bytes());
                bytes.extend_from_slice(part);
                bytes.extend_from_slice(b"\r\n");
            }
            bytes.extend_from_slice(b"0\r\n\r\n");
            prop_assert_eq!(body(&bytes), parts.concat());
        }

        #[test]
        fn query_values_have_nothing_that_ends_them(value in ".{0,20}") {
            let quoted = query_value(&value);
            prop_assert!(quoted.bytes().all(|b| b.is_ascii_graphic() && !b"&#?=+ ".contains(&b)));
        }
    }

    #[test]
    fn query_values_are_quoted() {
        assert_eq!(query_value("eth0"), "eth0");
        assert_eq!(query_value("a b&c/é"), "a%20b%26c%2F%C3%A9");
    }
}
