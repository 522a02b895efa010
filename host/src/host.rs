//! A whole host: starts every part, and stops them in the order in which nothing is lost.

use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::{JoinSet, spawn_blocking};
use tracing::{info, warn};

use crate::archive::{self, Archive, Archiver};
use crate::config::{ArchiveConfig, Config};
use crate::dial::{self, Dialler};
use crate::enclave::{Enclave, Listener, Service};
use crate::error::Error;
use crate::inbound::{self, Inbound};
use crate::kms::{self, Relay};
use crate::metrics::Metrics;
use crate::pages::Pages;
use crate::stop::{Stopper, stop_signal};
use crate::storage::{self, Store, Writer};

/// How often recorded durations are folded into their buckets.
const FOLD: Duration = Duration::from_secs(5);

/// Starts hosts.
#[derive(Debug)]
pub struct Host;

/// A running host. [`Handle::shutdown`] stops it in good order; dropping it cuts everything off, as a
/// crash would.
#[derive(Debug)]
pub struct Handle {
    listen: SocketAddr,
    metrics_listen: Option<SocketAddr>,
    dialler: Arc<Dialler>,
    stop_forwarding: Stopper,
    stop_storage: Stopper,
    stop_archiving: Stopper,
    forwarding: JoinSet<&'static str>,
    storing: JoinSet<&'static str>,
    archiving: JoinSet<&'static str>,
    background: JoinSet<&'static str>,
    store: Store,
    writer: Writer,
}

impl Host {
    /// Starts a host; when this returns it accepts connections. The enclave may come later.
    ///
    /// # Errors
    ///
    /// [`Error`], when an address, a socket or the storage file cannot be used.
    pub async fn start(config: Config) -> Result<Handle, Error> {
        let peers: Vec<&str> = config.peers.keys().map(String::as_str).collect();
        let metrics = Metrics::new(&config.party, &peers, config.storage.quota_bytes)?;
        let metrics = Arc::new(metrics);
        Listener::prepare(&config.transport)?;
        let (store, writer) = open_storage(&config, &metrics).await?;
        let (archive, archiver) = open_archive(&config.archive, &store, &metrics).await?;
        let storage_listener = Listener::listen(&config.transport, Service::Storage).await?;
        let dial_listener = Listener::listen(&config.transport, Service::Dial).await?;
        let kms_listener = match &config.kms {
            Some(_) => Some(Listener::listen(&config.transport, Service::Kms).await?),
            None => None,
        };
        let (pages_listener, metrics_listen) = match config.metrics {
            Some(address) => {
                let (listener, bound) = listen("metrics.listen", address).await?;
                (Some(listener), Some(bound))
            }
            None => (None, None),
        };
        let (listener, listen) = listen("listen", config.listen).await?;

        let enclave = Enclave::new(&config.transport);
        let (kms_endpoint, credentials) = match config.kms {
            Some(kms) => (Some(kms.endpoint), Some(kms.credentials)),
            None => (None, None),
        };
        let relay = kms_endpoint
            .map(|endpoint| Arc::new(Relay::new(endpoint, &config.limits, Arc::clone(&metrics))));
        let (stop_forwarding, forwarding_stop) = stop_signal();
        let (stop_storage, storage_stop) = stop_signal();
        let (stop_archiving, archiving_stop) = stop_signal();
        let inbound = Arc::new(Inbound {
            enclave: enclave.clone(),
            limits: config.limits.clone(),
            metrics: Arc::clone(&metrics),
        });
        let dialler = Arc::new(Dialler {
            peers: RwLock::new(config.peers),
            limits: config.limits,
            metrics: Arc::clone(&metrics),
        });

        let mut storing = JoinSet::new();
        let serving = storage::serve(
            store.clone(),
            archive.clone(),
            credentials,
            Arc::clone(&metrics),
            storage_listener,
            storage_stop,
        );
        storing.spawn(named("the storage service", serving));
        let mut archiving = JoinSet::new();
        let running = archiver.run(archiving_stop.clone());
        archiving.spawn(named("the archiver", running));
        for witness in config.witnesses {
            let watching = archive::watch(archive.clone(), witness, archiving_stop.clone());
            archiving.spawn(named("the submission to a witness", watching));
        }
        drop(archive);
        let mut forwarding = JoinSet::new();
        let serving = inbound::serve(inbound, listener, forwarding_stop.clone());
        forwarding.spawn(named("the inbound listener", serving));
        let serving = dial::serve(Arc::clone(&dialler), dial_listener, forwarding_stop.clone());
        forwarding.spawn(named("the dial listener", serving));
        if let (Some(relay), Some(listener)) = (relay, kms_listener) {
            let serving = kms::serve(relay, listener, forwarding_stop.clone());
            forwarding.spawn(named("the relay to KMS", serving));
        }
        let mut background = JoinSet::new();
        if let Some(listener) = pages_listener {
            let pages = Pages::new(
                Arc::clone(&metrics),
                store.clone(),
                enclave,
                forwarding_stop,
            );
            background.spawn(named("the metrics listener", pages.serve(listener)));
        }
        background.spawn(named("the metrics upkeep", fold(metrics)));

        let metrics_shown = metrics_listen.map(|address| address.to_string());
        info!(
            party = config.party, %listen, metrics = metrics_shown,
            transport = %config.transport, storage = %config.storage.path.display(),
            "host is running"
        );
        Ok(Handle {
            listen,
            metrics_listen,
            dialler,
            stop_forwarding,
            stop_storage,
            stop_archiving,
            forwarding,
            storing,
            archiving,
            background,
            store,
            writer,
        })
    }
}

impl Handle {
    /// Where clients and peers connect.
    pub fn listen_address(&self) -> SocketAddr {
        self.listen
    }

    /// Where `/metrics`, `/healthz` and `/readyz` are.
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics_listen
    }

    /// Adds a peer or changes its address, for dials from now on.
    pub fn set_peer(&self, name: &str, address: &str) {
        let mut peers = self
            .dialler
            .peers
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        peers.insert(name.to_owned(), address.to_owned());
    }

    /// Waits for a part to end by itself, which is a bug.
    pub async fn ended(&mut self) -> Error {
        let ended = tokio::select! {
            Some(ended) = self.forwarding.join_next() => ended,
            Some(ended) = self.storing.join_next() => ended,
            Some(ended) = self.archiving.join_next() => ended,
            Some(ended) = self.background.join_next() => ended,
            else => return Error::Ended { part: "everything" },
        };
        Error::Ended {
            part: ended.unwrap_or("a part that panicked"),
        }
    }

    /// Stops in good order: no new connections; those in use get `limits.drain`; then the storage
    /// finishes every put it accepted and closes its file. The enclave can store until the last moment.
    pub async fn shutdown(mut self) {
        info!("host is shutting down");
        self.stop_forwarding.stop();
        while self.forwarding.join_next().await.is_some() {}
        self.stop_storage.stop();
        while self.storing.join_next().await.is_some() {}
        self.stop_archiving.stop();
        while self.archiving.join_next().await.is_some() {}
        self.background.shutdown().await;
        self.store.close();
        let writer = self.writer;
        if spawn_blocking(move || writer.join()).await.is_err() {
            warn!("the storage writer did not end in order");
        }
        info!("host has stopped");
    }
}

async fn open_storage(config: &Config, metrics: &Arc<Metrics>) -> Result<(Store, Writer), Error> {
    let storage = config.storage.clone();
    let metrics = Arc::clone(metrics);
    spawn_blocking(move || Store::open(&storage, metrics))
        .await
        .map_err(|error| Error::Storage {
            path: config.storage.path.clone(),
            problem: error.to_string(),
            remedy: "If the file is damaged, restore it from a backup",
        })?
}

/// Off the runtime's threads.
async fn open_archive(
    config: &ArchiveConfig,
    store: &Store,
    metrics: &Arc<Metrics>,
) -> Result<(Archive, Archiver), Error> {
    let (config, store, metrics) = (config.clone(), store.clone(), Arc::clone(metrics));
    spawn_blocking(move || Archive::open(&config, store, metrics))
        .await
        .map_err(|error| Error::Archive {
            place: "of the audit log".into(),
            problem: error.to_string(),
            remedy: "See the host's log",
        })?
}

async fn listen(
    field: &'static str,
    address: SocketAddr,
) -> Result<(TcpListener, SocketAddr), Error> {
    let refuse = |source| Error::Listen {
        field,
        address,
        source,
    };
    let listener = TcpListener::bind(address).await.map_err(refuse)?;
    let bound = listener.local_addr().map_err(refuse)?;
    Ok((listener, bound))
}

async fn fold(metrics: Arc<Metrics>) {
    let mut ticks = tokio::time::interval(FOLD);
    loop {
        ticks.tick().await;
        metrics.fold();
    }
}

async fn named(part: &'static str, running: impl Future<Output = ()>) -> &'static str {
    running.await;
    part
}
