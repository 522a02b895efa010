//! Signatures of requests to AWS: Signature Version 4, for the one shape of request that KMS takes.
//!
//! <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html>

use std::time::Duration;

use arca_attestation::UnixMillis;
use hmac::{Hmac, Mac as _};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::credentials::Credentials;

const ALGORITHM: &str = "AWS4-HMAC-SHA256";
const TERMINATOR: &str = "aws4_request";

/// A request to `/` without a query.
pub(crate) struct Request<'a> {
    pub(crate) method: &'a str,
    /// Names in lower case and values as they are sent. All are signed; `host` and `x-amz-date` have to be there.
    pub(crate) headers: &'a [(&'a str, &'a str)],
    pub(crate) body: &'a [u8],
}

/// Where and when a signature is good.
pub(crate) struct Scope<'a> {
    pub(crate) region: &'a str,
    pub(crate) service: &'a str,
    pub(crate) time: &'a Timestamp,
}

/// A time as AWS writes it, to the second: `20150830T123600Z`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Timestamp(String);

impl Timestamp {
    /// None after the year 9999.
    pub(crate) fn new(time: UnixMillis) -> Option<Self> {
        let time = der::DateTime::from_unix_duration(Duration::from_millis(time.0)).ok()?;
        Some(Self(format!(
            "{:04}{:02}{:02}T{:02}{:02}{:02}Z",
            time.year(),
            time.month(),
            time.day(),
            time.hour(),
            time.minutes(),
            time.seconds()
        )))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    fn date(&self) -> &str {
        self.0.split('T').next().unwrap_or_default()
    }
}

/// The value of the `authorization` header.
pub(crate) fn authorization(
    request: &Request<'_>,
    scope: &Scope<'_>,
    credentials: &Credentials,
) -> String {
    let signed = signed_headers(request);
    let scope_text = scope.to_text();
    let to_sign = string_to_sign(request, scope);
    let key = signing_key(credentials.secret_access_key(), scope);
    let signature = hex::encode(hmac(&key[..], to_sign.as_bytes()));
    format!(
        "{ALGORITHM} Credential={}/{scope_text}, SignedHeaders={signed}, Signature={signature}",
        credentials.access_key_id()
    )
}

impl Scope<'_> {
    fn to_text(&self) -> String {
        let date = self.time.date();
        format!("{date}/{}/{}/{TERMINATOR}", self.region, self.service)
    }
}

fn sorted<'a>(request: &Request<'a>) -> Vec<(&'a str, &'a str)> {
    let mut headers = request.headers.to_vec();
    headers.sort_unstable();
    headers
}

fn signed_headers(request: &Request<'_>) -> String {
    let names: Vec<&str> = sorted(request).into_iter().map(|(name, _)| name).collect();
    names.join(";")
}

fn canonical_request(request: &Request<'_>) -> String {
    let mut headers = String::new();
    for (name, value) in sorted(request) {
        headers.push_str(name);
        headers.push(':');
        let words: Vec<&str> = value.split(' ').filter(|word| !word.is_empty()).collect();
        headers.push_str(&words.join(" "));
        headers.push('\n');
    }
    let (method, signed) = (request.method, signed_headers(request));
    let body = hex::encode(Sha256::digest(request.body));
    format!("{method}\n/\n\n{headers}\n{signed}\n{body}")
}

fn string_to_sign(request: &Request<'_>, scope: &Scope<'_>) -> String {
    let canonical = hex::encode(Sha256::digest(canonical_request(request)));
    let (time, scope) = (scope.time.as_str(), scope.to_text());
    format!("{ALGORITHM}\n{time}\n{scope}\n{canonical}")
}

fn signing_key(secret: &str, scope: &Scope<'_>) -> Zeroizing<[u8; 32]> {
    let secret = Zeroizing::new(format!("AWS4{secret}"));
    let mut key = hmac(secret.as_bytes(), scope.time.date().as_bytes());
    for part in [scope.region, scope.service, TERMINATOR] {
        key = hmac(&key[..], part.as_bytes());
    }
    key
}

fn hmac(key: &[u8], message: &[u8]) -> Zeroizing<[u8; 32]> {
    let mut hmac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes a key of any length");
    hmac.update(message);
    Zeroizing::new(hmac.finalize().into_bytes().into())
}

/// The vectors' source stands beside them.
#[cfg(test)]
mod tests {
    use super::*;

    macro_rules! case {
        ($name:literal) => {
            Case {
                name: $name,
                context: include_str!(concat!(
                    "../../../../tests/vectors/sigv4/",
                    $name,
                    "/context.json"
                )),
                request: include_str!(concat!(
                    "../../../../tests/vectors/sigv4/",
                    $name,
                    "/request.txt"
                )),
                canonical: include_str!(concat!(
                    "../../../../tests/vectors/sigv4/",
                    $name,
                    "/header-canonical-request.txt"
                )),
                to_sign: include_str!(concat!(
                    "../../../../tests/vectors/sigv4/",
                    $name,
                    "/header-string-to-sign.txt"
                )),
                signature: include_str!(concat!(
                    "../../../../tests/vectors/sigv4/",
                    $name,
                    "/header-signature.txt"
                )),
            }
        };
    }

    struct Case {
        name: &'static str,
        context: &'static str,
        request: &'static str,
        canonical: &'static str,
        to_sign: &'static str,
        signature: &'static str,
    }

    const CASES: [Case; 9] = [
        case!("get-vanilla"),
        case!("get-header-value-trim"),
        case!("get-vanilla-with-session-token"),
        case!("post-vanilla"),
        case!("post-header-key-sort"),
        case!("post-header-value-case"),
        case!("post-x-www-form-urlencoded"),
        case!("post-x-www-form-urlencoded-parameters"),
        case!("post-sts-header-before"),
    ];

    #[test]
    fn signatures_are_as_aws_computes_them() {
        for case in CASES {
            let context: serde_json::Value = serde_json::from_str(case.context).unwrap();
            let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
            let (head, body) = match case.request.split_once("\n\n") {
                Some((head, body)) => (head, body),
                None => (case.request, ""),
            };
            let mut lines = head.lines();
            let method = lines.next().unwrap().split(' ').next().unwrap();
            let mut headers: Vec<(String, String)> = lines
                .filter_map(|line| line.split_once(':'))
                .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
                .collect();
            let token = context["credentials"]["token"].as_str();
            let date = "20150830T123600Z".to_owned();
            headers.push(("x-amz-date".to_owned(), date));
            if let Some(token) = token {
                headers.push(("x-amz-security-token".to_owned(), token.to_owned()));
            }
            if context["sign_body"] == true {
                let digest = hex::encode(Sha256::digest(body));
                headers.push(("x-amz-content-sha256".to_owned(), digest));
            }
            let headers: Vec<(&str, &str)> = headers.iter().map(|(n, v)| (&**n, &**v)).collect();
            let request = Request {
                method,
                headers: &headers,
                body: body.as_bytes(),
            };
            // 2015-08-30T12:36:00Z
            let time = Timestamp::new(UnixMillis(1_440_938_160_999)).unwrap();
            let (region, service) = (text(&context["region"]), text(&context["service"]));
            let scope = Scope {
                region: &region,
                service: &service,
                time: &time,
            };
            assert_eq!(canonical_request(&request), case.canonical, "{}", case.name);
            assert_eq!(
                string_to_sign(&request, &scope),
                case.to_sign,
                "{}",
                case.name
            );
            let key_id = text(&context["credentials"]["access_key_id"]);
            let secret = text(&context["credentials"]["secret_access_key"]);
            let credentials = Credentials::for_test(&key_id, &secret, token);
            let value = authorization(&request, &scope, &credentials);
            assert!(
                value.ends_with(&format!("Signature={}", case.signature)),
                "{}",
                case.name
            );
            assert!(value.starts_with(
                "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, SignedHeaders="
            ));
        }
    }

    #[test]
    fn times_are_written_as_aws_reads_them() {
        let time = |millis| Timestamp::new(UnixMillis(millis)).map(|time| time.0);
        assert_eq!(time(0).unwrap(), "19700101T000000Z");
        assert_eq!(time(1_709_251_199_999).unwrap(), "20240229T235959Z");
        assert_eq!(time(u64::MAX), None);
    }
}
