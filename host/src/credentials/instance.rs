//! Credentials of the instance's role, from the EC2 instance metadata service, version 2.
//!
//! <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instance-metadata-security-credentials.html>

use std::time::Duration;

use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::Credentials;

/// For the three calls together.
const PATIENCE: Duration = Duration::from_secs(5);
const MAX_ANSWER: usize = 64 * 1024;
/// The token is used at once and not kept.
const TOKEN_SECONDS: &str = "60";
const ROLES: &str = "/latest/meta-data/iam/security-credentials/";

/// The answer of the metadata service.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    code: String,
    access_key_id: Option<String>,
    secret_access_key: Option<String>,
    token: Option<String>,
}

/// The credentials of now, or what is wrong, in words without any secret.
pub(super) async fn fetch(address: &str) -> Result<Credentials, String> {
    let asked = async {
        let token = call(address, Method::PUT, "/latest/api/token", None).await?;
        let roles = call(address, Method::GET, ROLES, Some(&token)).await?;
        let role = roles.lines().next().unwrap_or("").trim();
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"+=,.@_-".contains(&byte);
        if role.is_empty() || !role.bytes().all(plain) {
            return Err("this instance has no role; attach an instance profile".to_owned());
        }
        call(
            address,
            Method::GET,
            &format!("{ROLES}{role}"),
            Some(&token),
        )
        .await
    };
    let answer = timeout(PATIENCE, asked)
        .await
        .map_err(|_| format!("the metadata service at {address} does not answer"))??;
    let answer: Answer = serde_json::from_str(&answer)
        .map_err(|_| "the metadata service's answer is none".to_owned())?;
    match answer {
        Answer {
            code,
            access_key_id: Some(access_key_id),
            secret_access_key: Some(secret_access_key),
            token: Some(session_token),
        } if code == "Success" => Ok(Credentials {
            access_key_id,
            secret_access_key,
            session_token,
        }),
        Answer { code, .. } => Err(format!(
            "the metadata service says {}; check the instance's role",
            code.escape_default()
        )),
    }
}

async fn call(
    address: &str,
    method: Method,
    path: &str,
    token: Option<&str>,
) -> Result<String, String> {
    let failed = |problem: &dyn std::fmt::Display| {
        format!("the metadata service at {address} cannot be asked: {problem}")
    };
    let stream = TcpStream::connect(address)
        .await
        .map_err(|error| failed(&error))?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| failed(&error))?;
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", address);
    let request = match token {
        Some(token) => request.header("x-aws-ec2-metadata-token", token),
        None => request.header("x-aws-ec2-metadata-token-ttl-seconds", TOKEN_SECONDS),
    };
    let request = request
        .body(Empty::<Bytes>::new())
        .map_err(|error| failed(&error))?;
    let asked = async {
        let response = sender
            .send_request(request)
            .await
            .map_err(|error| failed(&error))?;
        match response.status() {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND => {
                return Err("this instance has no role; attach an instance profile".to_owned());
            }
            status => return Err(failed(&status)),
        }
        let body = Limited::new(response.into_body(), MAX_ANSWER);
        let body = body.collect().await.map_err(|error| failed(&error))?;
        String::from_utf8(body.to_bytes().to_vec()).map_err(|error| failed(&error.utf8_error()))
    };
    tokio::select! {
        answer = asked => answer,
        // It ends when the sender is gone; before that, the answer's own error says more.
        _ = async { let _ = connection.await; std::future::pending::<()>().await } => Err(String::new()),
    }
}
