//! Checks Signature Version 4 as a server: from what came over the wire, with OpenSSL's hashes.
//!
//! <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html>

use std::collections::BTreeMap;

use arca_attestation::UnixMillis;

use super::http::Request;
use super::openssl::OpenSsl;

/// The type of the error that a wrong request gets.
pub fn check(
    openssl: &OpenSsl,
    request: &Request,
    secrets: &BTreeMap<String, (String, String)>,
    now: UnixMillis,
) -> Result<(), &'static str> {
    let incomplete = "IncompleteSignatureException";
    let authorization = request
        .header("authorization")
        .ok_or("MissingAuthenticationTokenException")?;
    let parameters = authorization
        .strip_prefix("AWS4-HMAC-SHA256 ")
        .ok_or(incomplete)?;
    let parameter = |name: &str| {
        parameters
            .split(", ")
            .find_map(|parameter| parameter.strip_prefix(name)?.strip_prefix('='))
            .ok_or(incomplete)
    };
    let (key_id, scope) = parameter("Credential")?.split_once('/').ok_or(incomplete)?;
    let (secret, token) = secrets.get(key_id).ok_or("UnrecognizedClientException")?;
    if request.header("x-amz-security-token") != Some(token) {
        return Err("UnrecognizedClientException");
    }
    let date_time = request.header("x-amz-date").ok_or(incomplete)?;
    let [date, region, service, "aws4_request"] = scope.split('/').collect::<Vec<_>>()[..] else {
        return Err(incomplete);
    };
    if (region, service) != ("eu-central-1", "kms") || !date_time.starts_with(date) {
        return Err("InvalidSignatureException");
    }
    if seconds(date_time).ok_or(incomplete)?.abs_diff(now.0 / 1000) > 300 {
        return Err("InvalidSignatureException");
    }
    let signed = parameter("SignedHeaders")?;
    for must in [
        "content-type",
        "host",
        "x-amz-date",
        "x-amz-security-token",
        "x-amz-target",
    ] {
        if !signed.split(';').any(|name| name == must) {
            return Err(incomplete);
        }
    }
    let mut canonical = format!("{}\n{}\n\n", request.method, request.target);
    for name in signed.split(';') {
        let value = request.header(name).ok_or(incomplete)?;
        canonical.push_str(&format!("{name}:{value}\n"));
    }
    let body = hex::encode(openssl.sha256(&request.body));
    canonical.push_str(&format!("\n{signed}\n{body}"));
    let canonical = hex::encode(openssl.sha256(canonical.as_bytes()));
    let to_sign = format!("AWS4-HMAC-SHA256\n{date_time}\n{scope}\n{canonical}");
    let mut key = format!("AWS4{secret}").into_bytes();
    for part in [date, region, service, "aws4_request"] {
        key = openssl.hmac_sha256(&key, part.as_bytes());
    }
    let signature = hex::encode(openssl.hmac_sha256(&key, to_sign.as_bytes()));
    if parameter("Signature")? == signature {
        Ok(())
    } else {
        Err("InvalidSignatureException")
    }
}

/// `20150830T123600Z` as seconds since 1970.
fn seconds(text: &str) -> Option<u64> {
    let number = |range: std::ops::Range<usize>| text.get(range)?.parse::<u16>().ok();
    let byte = |range| u8::try_from(number(range)?).ok();
    let time = der::DateTime::new(
        number(0..4)?,
        byte(4..6)?,
        byte(6..8)?,
        byte(9..11)?,
        byte(11..13)?,
        byte(13..15)?,
    );
    time.ok().map(|time| time.unix_duration().as_secs())
}
