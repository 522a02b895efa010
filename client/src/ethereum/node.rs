//! A client of an Ethereum node's JSON-RPC interface, as small as sending a transaction needs it.
//!
//! Over HTTP without TLS: for a node on this machine, or behind a tunnel to it. Nothing that a node says is
//! believed for more than showing it.

use std::io::Cursor;
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::error::{Error, Result};

/// One call.
const PATIENCE: Duration = Duration::from_secs(15);
/// Between two questions for a receipt.
const PAUSE: Duration = Duration::from_millis(50);
const LARGEST_ANSWER: usize = 4 << 20;

/// A node.
#[derive(Clone, Debug)]
pub struct Node {
    url: http::Uri,
    http: Client<HttpConnector, Full<Cursor<Vec<u8>>>>,
}

/// What a node says of a transaction that is in a block.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Receipt {
    /// The transaction's hash.
    pub transaction_hash: String,
    /// Number of the block.
    pub block: u64,
    /// Whether it was executed to its end.
    pub success: bool,
    /// The sender.
    pub from: String,
    /// The recipient; none when a contract was made.
    pub to: Option<String>,
    /// Units of gas.
    pub gas_used: u64,
    /// Wei for one of them.
    pub gas_price: u128,
}

impl Node {
    /// Takes a node's address; nothing is sent yet.
    ///
    /// # Errors
    /// [`Error::Input`] for anything but an `http://` URL with a host.
    pub fn new(url: &str) -> Result<Self> {
        let invalid = |problem: &str| Error::input(format!("node {url:?}"), problem);
        let url: http::Uri = url.parse().map_err(|_| invalid("is no URL"))?;
        if url.scheme_str() != Some("http") || url.host().is_none() {
            return Err(invalid(
                "is no http:// URL; for another node, hand it the raw transaction with a tool of its own",
            ));
        }
        Ok(Self {
            url,
            http: Client::builder(TokioExecutor::new()).build_http(),
        })
    }

    /// Calls a method.
    ///
    /// # Errors
    /// [`Error::Node`] when the node does not answer, or answers with an error.
    pub async fn call(&self, method: &str, params: Value) -> Result<Value> {
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
        let request = http::Request::post(&self.url)
            .header(http::header::CONTENT_TYPE, "application/json")
            .body(Full::new(Cursor::new(body.to_string().into_bytes())))
            .map_err(Error::bug)?;
        let answer = async {
            let response = self
                .http
                .request(request)
                .await
                .map_err(|cause| self.unreachable(chain(&cause)))?;
            let status = response.status();
            let body = Limited::new(response.into_body(), LARGEST_ANSWER)
                .collect()
                .await
                .map_err(|cause| self.unreachable(cause))?;
            serde_json::from_slice::<Value>(&body.to_bytes())
                .map_err(|_| self.refused(format!("{method}: answered {status} without JSON")))
        };
        let mut answer = tokio::time::timeout(PATIENCE, answer)
            .await
            .map_err(|_| self.unreachable(format!("{method}: no answer in {PATIENCE:?}")))??;
        if let Some(message) = answer.pointer("/error/message") {
            let message = message.as_str().unwrap_or("an error without a message");
            return Err(self.refused(format!("{method}: {message}")));
        }
        match answer.get_mut("result") {
            Some(result) => Ok(result.take()),
            None => Err(self.refused(format!("{method}: neither a result nor an error"))),
        }
    }

    /// The chain that the node is on.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub async fn chain_id(&self) -> Result<u64> {
        self.number("eth_chainId", json!([])).await
    }

    /// Transactions that an account has sent, those that wait included: the next one's nonce.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub async fn nonce(&self, address: &str) -> Result<u64> {
        self.number("eth_getTransactionCount", json!([address, "pending"]))
            .await
    }

    /// Wei for one unit of gas that the latest block burned.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub async fn base_fee(&self) -> Result<u128> {
        let block = self
            .call("eth_getBlockByNumber", json!(["latest", false]))
            .await?;
        block
            .get("baseFeePerGas")
            .and_then(quantity)
            .ok_or_else(|| self.refused("the latest block has no base fee".to_owned()))
    }

    /// Wei of an account.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub async fn balance(&self, address: &str) -> Result<u128> {
        let balance = self
            .call("eth_getBalance", json!([address, "latest"]))
            .await?;
        quantity(&balance)
            .ok_or_else(|| self.refused("eth_getBalance: no number below 2^128".to_owned()))
    }

    /// Hands a signed transaction to the node. Returns the hash that the node gives it.
    ///
    /// # Errors
    /// As [`call`](Self::call); the node refuses what it cannot put into a block.
    pub async fn send(&self, raw: &[u8]) -> Result<String> {
        let raw = format!("0x{}", hex::encode(raw));
        let hash = self.call("eth_sendRawTransaction", json!([raw])).await?;
        let hash = hash.as_str().map(str::to_owned);
        hash.ok_or_else(|| self.refused("eth_sendRawTransaction: no hash".to_owned()))
    }

    /// Waits until a transaction is in a block.
    ///
    /// # Errors
    /// [`Error::Timeout`] when it is in none by then.
    pub async fn receipt(&self, hash: &str, timeout: Duration) -> Result<Receipt> {
        let end = Instant::now() + timeout;
        loop {
            let answer = self
                .call("eth_getTransactionReceipt", json!([hash]))
                .await?;
            if !answer.is_null() {
                return Receipt::read(&answer)
                    .ok_or_else(|| self.refused("a receipt that lacks fields".to_owned()));
            }
            if Instant::now() >= end {
                return Err(Error::Timeout {
                    object: format!("transaction {hash} at {}", self.url),
                    waited: timeout,
                });
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn number(&self, method: &str, params: Value) -> Result<u64> {
        let answer = self.call(method, params).await?;
        quantity(&answer)
            .and_then(|number| u64::try_from(number).ok())
            .ok_or_else(|| self.refused(format!("{method}: no number below 2^64")))
    }

    fn unreachable(&self, problem: impl ToString) -> Error {
        self.error(problem.to_string(), false)
    }

    fn refused(&self, problem: String) -> Error {
        self.error(problem, true)
    }

    fn error(&self, problem: String, answered: bool) -> Error {
        Error::Node {
            url: self.url.to_string(),
            problem,
            answered,
        }
    }
}

impl Receipt {
    fn read(answer: &Value) -> Option<Self> {
        let text = |field: &str| answer.get(field)?.as_str().map(str::to_owned);
        let number = |field: &str| answer.get(field).and_then(quantity);
        Some(Self {
            transaction_hash: text("transactionHash")?,
            block: number("blockNumber")?.try_into().ok()?,
            success: number("status")? == 1,
            from: text("from")?,
            to: text("to"),
            gas_used: number("gasUsed")?.try_into().ok()?,
            gas_price: number("effectiveGasPrice")?,
        })
    }
}

/// JSON-RPC's numbers: 0x and hex digits.
fn quantity(value: &Value) -> Option<u128> {
    u128::from_str_radix(value.as_str()?.strip_prefix("0x")?, 16).ok()
}

/// An error with its causes: "client error (Connect)" alone says nothing.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[test]
    fn only_http_is_spoken() {
        assert!(Node::new("http://127.0.0.1:8545").is_ok());
        for url in [
            "https://mainnet.example",
            "127.0.0.1:8545",
            "ws://x",
            "",
            "http://",
        ] {
            assert!(matches!(Node::new(url), Err(Error::Input { .. })), "{url}");
        }
    }

    /// Answers one request with `body`.
    async fn node(body: &'static str) -> Node {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).await.unwrap();
            let answer = format!(
                "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            );
            stream.write_all(answer.as_bytes()).await.unwrap();
        });
        Node::new(&url).unwrap()
    }

    #[tokio::test]
    async fn answers_are_read_and_complaints_passed_on() {
        let answer = node(r#"{"jsonrpc": "2.0", "id": 1, "result": "0x7a69"}"#).await;
        assert_eq!(answer.chain_id().await.unwrap(), 31337);
        let answer = node(
            r#"{"jsonrpc": "2.0", "id": 1, "error": {"code": -32000, "message": "nonce too low"}}"#,
        )
        .await;
        let error = answer.send(&[1]).await.unwrap_err();
        assert!(
            error
                .to_string()
                .contains("eth_sendRawTransaction: nonce too low"),
            "{error}"
        );
        assert_eq!(error.reason(), "NODE_REFUSED");
        for nonsense in ["", "[]", r#"{"result": 7}"#, r#"{"result": "0x"}"#] {
            let error = node(nonsense).await.chain_id().await.unwrap_err();
            assert_eq!(error.reason(), "NODE_REFUSED", "{nonsense}");
        }
    }

    #[tokio::test]
    async fn a_node_that_is_not_there_is_unreachable() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        drop(listener);
        let error = Node::new(&url).unwrap().chain_id().await.unwrap_err();
        assert_eq!(error.reason(), "NODE_UNREACHABLE");
        assert!(error.to_string().contains("refused"), "{error}");
    }

    #[test]
    fn receipts_are_read() {
        let receipt = json!({
            "transactionHash": "0x01", "blockNumber": "0x2", "status": "0x1", "from": "0x03", "to": null,
            "gasUsed": "0x5208", "effectiveGasPrice": "0x3b9aca00",
        });
        let read = Receipt::read(&receipt).unwrap();
        assert!(read.success && read.to.is_none());
        assert_eq!(
            (read.block, read.gas_used, read.gas_price),
            (2, 21_000, 1_000_000_000)
        );
        assert!(Receipt::read(&json!({})).is_none());
    }
}
