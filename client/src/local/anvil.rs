//! An Ethereum node of one's own: Foundry's anvil, which executes and mines every transaction at once.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::error::{Error, Result};
use crate::ethereum::{Node, Receipt};
use crate::local::Process;

/// Names the program.
pub const ANVIL_VARIABLE: &str = "ARCA_ANVIL";

/// The chain id of a node that is nobody else's.
const CHAIN_ID: &str = "31337";
/// To start.
const PATIENCE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(20);
/// Before it is killed.
const GRACE: Duration = Duration::from_secs(2);

/// A running anvil. Dropping it kills it.
#[derive(Debug)]
pub struct Anvil {
    process: Process,
    node: Node,
    url: String,
}

impl Anvil {
    /// Where the program is: what `ARCA_ANVIL` names, or else `anvil` on the PATH. None when there is none.
    ///
    /// # Errors
    /// [`Error::Config`] when `ARCA_ANVIL` names what is no file.
    pub fn find() -> Result<Option<PathBuf>> {
        if let Some(named) = std::env::var_os(ANVIL_VARIABLE).filter(|named| !named.is_empty()) {
            return Self::check(Path::new(&named)).map(Some);
        }
        let path = std::env::var_os("PATH").unwrap_or_default();
        Ok(std::env::split_paths(&path)
            .map(|folder| folder.join("anvil"))
            .find(|program| program.is_file()))
    }

    /// That the program is there.
    ///
    /// # Errors
    /// [`Error::Config`] when it is not.
    pub fn check(program: &Path) -> Result<PathBuf> {
        if program.is_file() {
            return Ok(program.to_owned());
        }
        Err(Error::config(
            program.display(),
            "this is to be the Ethereum node, and is no file",
            format!(
                "name anvil with --anvil or {ANVIL_VARIABLE}; `make demo` installs it through npm"
            ),
        ))
    }

    /// Starts it on a free port of the loopback interface, with its files in `folder`, and waits until it
    /// listens. `launcher` is the `arca` program, as for [`Process::start`].
    ///
    /// # Errors
    /// [`Error::Process`] with the end of its log.
    pub async fn start(program: &Path, launcher: &Path, folder: &Path) -> Result<Self> {
        let log = folder.join("anvil.log");
        let cache = folder.join("anvil-cache");
        let process = Process::start(
            "anvil",
            launcher,
            program,
            &[
                "--host",
                "127.0.0.1",
                // Whichever is free: anvil says which.
                "--port",
                "0",
                "--chain-id",
                CHAIN_ID,
                "--cache-path",
                &cache.to_string_lossy(),
                "--color",
                "never",
            ],
            log.clone(),
        )?;
        let end = Instant::now() + PATIENCE;
        let listening = async {
            loop {
                let said = std::fs::read_to_string(&log).unwrap_or_default();
                if let Some(address) = address(&said) {
                    return Ok(format!("http://{address}"));
                }
                if Instant::now() > end {
                    return Err(Error::Process {
                        program: process.name().to_owned(),
                        problem: format!("does not listen after {PATIENCE:?}"),
                        log_tail: process.log_tail(),
                        advice: "start it by hand, and see what it says".to_owned(),
                    });
                }
                tokio::time::sleep(PAUSE).await;
            }
        };
        let url = tokio::select! {
            url = listening => url?,
            status = process.exited() => {
                return Err(process.ended(status, "check that the program is anvil, and runs on this machine"));
            }
        };
        Ok(Self {
            node: Node::new(&url)?,
            process,
            url,
        })
    }

    /// To talk to it.
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// Where it listens.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Its process id, while it runs.
    pub fn pid(&self) -> Option<i32> {
        self.process.pid()
    }

    /// Sends `wei` to an address from one of the accounts that anvil holds the keys of, and waits until they are
    /// there.
    ///
    /// # Errors
    /// [`Error::Node`] with the node's complaint.
    pub async fn fund(&self, address: &str, wei: u128) -> Result<Receipt> {
        let accounts = self.node.call("eth_accounts", json!([])).await?;
        let transaction = json!([{
            "from": accounts.get(0),
            "to": address,
            "value": format!("0x{wei:x}"),
        }]);
        let hash = self.node.call("eth_sendTransaction", transaction).await?;
        let hash = hash.as_str().unwrap_or_default();
        self.node.receipt(hash, PATIENCE).await
    }

    /// Stops it, and waits until it is gone.
    pub async fn stop(self) {
        self.process.stop(GRACE).await;
    }
}

/// The address of its last line, once that line is whole.
fn address(log: &str) -> Option<&str> {
    let (_, rest) = log.split_once("Listening on ")?;
    rest.split_once('\n').map(|(address, _)| address.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_read_once_its_line_is_whole() {
        assert_eq!(
            address("Genesis Number\n=====\n\n0\n\nListening on 127.0.0.1:36"),
            None
        );
        assert_eq!(
            address("0\n\nListening on 127.0.0.1:36971\n"),
            Some("127.0.0.1:36971")
        );
    }

    #[test]
    fn a_program_that_is_not_there_is_named_with_its_remedy() {
        let error = Anvil::check(Path::new("/nowhere/anvil")).unwrap_err();
        assert!(error.to_string().contains("/nowhere/anvil"));
        assert!(error.advice().contains("make demo"));
    }
}
