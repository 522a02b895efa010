//! HTTP/1.1, as much as one request on a connection takes.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

pub struct Request {
    pub method: String,
    pub target: String,
    /// In the order in which they came, names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut found = self.headers.iter().filter(|(known, _)| known == name);
        found.next().map(|(_, value)| value.as_str())
    }
}

pub async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Option<Request> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).ok()?;
    let mut lines = head.split("\r\n");
    let mut first = lines.next()?.split(' ');
    let (method, target) = (first.next()?.to_owned(), first.next()?.to_owned());
    let headers = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let mut request = Request {
        method,
        target,
        headers,
        body: Vec::new(),
    };
    let length = request.header("content-length")?.parse().ok()?;
    request.body = vec![0; length];
    stream.read_exact(&mut request.body).await.ok()?;
    Some(request)
}

pub async fn write(stream: &mut (impl AsyncWrite + Unpin), status: u16, body: &str, slow: bool) {
    let answer = format!(
        "HTTP/1.1 {status} Whatever\r\ncontent-type: application/x-amz-json-1.1\r\n\
         x-amzn-RequestId: 0af2ad2c-0000-1111-2222-333344445555\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    if slow {
        let mut ticks = tokio::time::interval(Duration::from_millis(20));
        for byte in answer.as_bytes() {
            ticks.tick().await;
            if stream.write_all(&[*byte]).await.is_err() || stream.flush().await.is_err() {
                return;
            }
        }
        return;
    }
    write_raw(stream, answer.as_bytes()).await;
}

pub async fn write_raw(stream: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) {
    let _ = stream.write_all(bytes).await;
    let _ = stream.shutdown().await;
}
