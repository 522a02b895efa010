//! The two processes of one party.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};

use crate::error::{Error, Result};
use crate::local::{Binaries, Process};
use crate::party_files::PartyPaths;

/// Between two looks for a socket.
const SOCKET_PAUSE: Duration = Duration::from_millis(5);
/// Before a process that was asked to stop is killed.
const GRACE: Duration = Duration::from_secs(5);

/// How a party's enclave is started.
#[derive(Clone, Debug)]
pub(super) struct EnclaveProgram {
    pub program: PathBuf,
    /// Before `--config`.
    pub arguments: Vec<String>,
    /// `NAME=value`.
    pub environment: Vec<String>,
}

impl EnclaveProgram {
    pub fn plain(program: &std::path::Path) -> Self {
        Self {
            program: program.to_owned(),
            arguments: Vec::new(),
            environment: Vec::new(),
        }
    }
}

/// One party: a host and an enclave, each running or not.
#[derive(Debug)]
pub struct LocalParty {
    name: String,
    address: SocketAddr,
    metrics: SocketAddr,
    folder: PathBuf,
    binaries: Binaries,
    program: EnclaveProgram,
    host: Option<Process>,
    enclave: Option<Process>,
}

impl LocalParty {
    pub(super) fn new(
        name: &str,
        address: SocketAddr,
        metrics: SocketAddr,
        folder: PathBuf,
        binaries: Binaries,
        program: EnclaveProgram,
    ) -> Self {
        Self {
            name: name.to_owned(),
            address,
            metrics,
            folder,
            binaries,
            program,
            host: None,
            enclave: None,
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where its host listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What its host's metrics page shows now, in Prometheus' text format.
    ///
    /// # Errors
    /// [`Error::Config`] when the page does not answer.
    pub async fn metrics(&self) -> Result<String> {
        let fetch = async {
            let mut stream = TcpStream::connect(self.metrics).await?;
            let request = "GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
            stream.write_all(request.as_bytes()).await?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await?;
            let (_, page) = answer
                .split_once("\r\n\r\n")
                .ok_or_else(|| std::io::Error::other("no page"))?;
            Ok::<_, std::io::Error>(page.to_owned())
        };
        fetch.await.map_err(|cause| {
            Error::config(
                format!("metrics page of {}", self.name),
                cause,
                "see whether its host runs",
            )
        })
    }

    /// Its files.
    pub fn paths(&self) -> PartyPaths {
        PartyPaths::in_folder(&self.folder, &self.name)
    }

    /// What its processes logged: which process, and the file.
    pub fn logs(&self) -> [(&'static str, PathBuf); 2] {
        ["host", "enclave"].map(|what| (what, self.folder.join(format!("{what}.log"))))
    }

    /// Its host's process, while this cluster runs it.
    pub fn host(&self) -> Option<&Process> {
        self.host.as_ref()
    }

    /// Its enclave's process, while this cluster runs it.
    pub fn enclave(&self) -> Option<&Process> {
        self.enclave.as_ref()
    }

    /// How its enclave is started, for people to type.
    pub(super) fn enclave_command(&self) -> String {
        let name = self.program.program.file_name().unwrap_or_default();
        let mut line = self.program.environment.clone();
        line.push(name.to_string_lossy().into_owned());
        line.extend(self.program.arguments.clone());
        line.join(" ")
    }

    /// Starts the host, unless this cluster runs it already.
    ///
    /// # Errors
    /// [`Error::Process`].
    pub fn start_host(&mut self) -> Result<()> {
        if self.host.is_none() {
            let program = EnclaveProgram::plain(&self.binaries.host);
            self.host = Some(self.start("host", &program, &self.paths().host)?);
        }
        Ok(())
    }

    /// Starts the enclave, unless this cluster runs it already.
    ///
    /// # Errors
    /// [`Error::Process`].
    pub fn start_enclave(&mut self) -> Result<()> {
        if self.enclave.is_none() {
            self.enclave = Some(self.start("enclave", &self.program, &self.paths().enclave)?);
        }
        Ok(())
    }

    /// Starts both, the enclave as soon as its host's sockets are there.
    ///
    /// # Errors
    /// [`Error::Process`], also when the host ends.
    pub async fn start_both(&mut self) -> Result<()> {
        self.start_host()?;
        let socket = self.folder.join("run").join("storage.sock");
        let listening = async {
            // An enclave that came first would look again by itself, but only after a second.
            while UnixStream::connect(&socket).await.is_err() {
                tokio::time::sleep(SOCKET_PAUSE).await;
            }
        };
        tokio::select! {
            _ = tokio::time::timeout(GRACE, listening) => self.start_enclave(),
            error = self.ended() => Err(error),
        }
    }

    /// Asks both to stop and waits until they have: the enclave first, so that nobody is connected any more
    /// when the host drains.
    pub async fn stop(&mut self) {
        if let Some(enclave) = self.enclave.take() {
            enclave.stop(GRACE).await;
        }
        if let Some(host) = self.host.take() {
            host.stop(GRACE).await;
        }
    }

    /// Kills the host (SIGKILL) and waits until it is gone.
    pub async fn kill_host(&mut self) {
        if let Some(host) = self.host.take() {
            host.kill().await;
        }
    }

    /// Kills the enclave (SIGKILL) and waits until it is gone.
    pub async fn kill_enclave(&mut self) {
        if let Some(enclave) = self.enclave.take() {
            enclave.kill().await;
        }
    }

    /// Kills both.
    pub async fn kill(&mut self) {
        self.kill_enclave().await;
        self.kill_host().await;
    }

    /// Returns when one of its processes has ended by itself, with the error that says so.
    pub(super) async fn ended(&self) -> Error {
        let advice = "its log says why";
        tokio::select! {
            error = ended(self.host.as_ref(), advice) => error,
            error = ended(self.enclave.as_ref(), advice) => error,
        }
    }

    /// Whether somebody else has taken one of its ports while its host is not running.
    pub(super) fn port_is_taken(&self) -> bool {
        let running = self.host.as_ref().is_some_and(|host| host.pid().is_some());
        let taken = |address| TcpListener::bind(address).is_err();
        !running && (taken(self.address) || taken(self.metrics))
    }

    fn start(
        &self,
        what: &str,
        program: &EnclaveProgram,
        config: &std::path::Path,
    ) -> Result<Process> {
        let config = config.to_str().ok_or_else(|| {
            Error::config(config.display(), "is no UTF-8 path", "take another folder")
        })?;
        let mut line: Vec<&str> = program.environment.iter().map(String::as_str).collect();
        let path = program.program.to_string_lossy();
        let launched = if line.is_empty() {
            program.program.as_path()
        } else {
            line.push(&path);
            std::path::Path::new("/usr/bin/env")
        };
        line.extend(program.arguments.iter().map(String::as_str));
        line.extend(["--config", config]);
        Process::start(
            format!("{} of {}", what, self.name),
            &self.binaries.arca,
            launched,
            &line,
            self.folder.join(format!("{what}.log")),
        )
    }
}

async fn ended(process: Option<&Process>, advice: &str) -> Error {
    match process {
        Some(process) => {
            let status = process.exited().await;
            process.ended(status, advice)
        }
        None => std::future::pending().await,
    }
}

/// A free port on the loopback interface, below the range from which the kernel takes ports by itself: a
/// peer that dials a stopped host could otherwise be given that very port as its own.
pub(super) fn free_port(rng: &mut impl rand_core::RngCore) -> Result<SocketAddr> {
    for _ in 0..100 {
        let port = 20_000 + u16::try_from(rng.next_u32() % 10_000).map_err(Error::bug)?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        if TcpListener::bind(address).is_ok() {
            return Ok(address);
        }
    }
    Err(Error::config(
        "127.0.0.1",
        "no free port was found between 20000 and 29999",
        "stop what occupies them",
    ))
}
