//! What whoever owns a party's disk can do with it: copy it, go back to a copy, run a second enclave on one.

use std::{
    fs,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    time::Duration,
};

use arca_channel::Target;
use arca_client::local::{Binaries, Process};
use arca_proto::v1::{
    GetStateRequest, GetStateResponse, get_state_response::Standing,
    party_service_client::PartyServiceClient,
};
use tonic::transport::Channel;

use crate::common::{PATIENCE, Running, grpc_over};

/// The host's table of blobs.
const BLOBS: redb::TableDefinition<'_, &str, &[u8]> = redb::TableDefinition::new("blobs");

/// Copies a folder with everything in it, sockets aside.
pub fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    fs::set_permissions(to, fs::metadata(from).unwrap().permissions()).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let (kind, target) = (entry.file_type().unwrap(), to.join(entry.file_name()));
        if kind.is_dir() {
            copy(&entry.path(), &target);
        } else if kind.is_file() {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

impl Running {
    /// Stops a party and keeps a copy of its host's database under a name.
    pub async fn keep_disk(&mut self, party: &str, name: &str) {
        self.cluster.party_mut(party).unwrap().kill().await;
        fs::copy(self.database(party), self.file(name)).unwrap();
    }

    /// Keeps a copy of a database, with everything that the party's enclave has stored; it runs on without its host.
    pub async fn keep_disk_of_running(&mut self, party: &str, name: &str) {
        self.cluster.party_mut(party).unwrap().kill_host().await;
        fs::copy(self.database(party), self.file(name)).unwrap();
    }

    /// Stops a party, puts a kept database in place of its own and starts it again.
    pub async fn restore_disk(&mut self, party: &str, name: &str) {
        self.cluster.party_mut(party).unwrap().kill().await;
        fs::copy(self.file(name), self.database(party)).unwrap();
        self.cluster.start_party(party).await.unwrap();
    }

    /// Changes single blobs of a party that does not run: to something else, or to nothing. What was there before.
    pub fn edit_disk(
        &self,
        party: &str,
        edits: &[(&str, Option<&[u8]>)],
    ) -> Vec<(String, Vec<u8>)> {
        let database = redb::Database::open(self.database(party)).unwrap();
        let transaction = database.begin_write().unwrap();
        let mut before = Vec::new();
        {
            let mut blobs = transaction.open_table(BLOBS).unwrap();
            for &(name, blob) in edits {
                let old = match blob {
                    Some(blob) => blobs.insert(name, blob).unwrap(),
                    None => blobs.remove(name).unwrap(),
                };
                before.extend(old.map(|old| (name.to_owned(), old.value().to_vec())));
            }
        }
        transaction.commit().unwrap();
        before
    }

    pub fn database(&self, party: &str) -> PathBuf {
        self.cluster.party(party).unwrap().paths().storage
    }

    /// Waits until what a party says of its state is as wanted.
    pub async fn state_when(
        &self,
        party: &str,
        wanted: impl Fn(&GetStateResponse) -> bool,
    ) -> GetStateResponse {
        let service = PartyServiceClient::new(self.raw_treasury(party).await);
        state_when(service, wanted).await
    }
}

async fn state_when(
    mut service: PartyServiceClient<Channel>,
    wanted: impl Fn(&GetStateResponse) -> bool,
) -> GetStateResponse {
    let mut next_look = tokio::time::interval(Duration::from_millis(50));
    let mut last = None;
    let looking = async {
        loop {
            next_look.tick().await;
            let state = service.get_state(GetStateRequest {}).await.unwrap();
            let state = state.into_inner();
            if wanted(&state) {
                return state;
            }
            last = Some(state);
        }
    };
    match tokio::time::timeout(PATIENCE, looking).await {
        Ok(state) => state,
        Err(_) => panic!("the state never was as wanted; it is {last:?}"),
    }
}

pub fn holds(state: &GetStateResponse) -> bool {
    state.standing() == Standing::Held
}

pub fn lost(state: &GetStateResponse) -> bool {
    state.standing() == Standing::Lost
}

/// A second instance of a party, with a host of its own.
pub struct Second {
    address: SocketAddr,
    party: String,
    _host: Process,
    _enclave: Process,
}

impl Second {
    /// Starts one on a copy of the party's folder; its host reaches `peers` only. `disk` is a kept database.
    pub async fn start(running: &Running, party: &str, disk: &str, peers: &[&str]) -> Self {
        let original = running.cluster.folder().join(party);
        let folder = running.file(&format!("{party}-2"));
        copy(&original, &folder);
        let database = folder.join(running.database(party).file_name().unwrap());
        fs::copy(running.file(disk), database).unwrap();
        let address = free_address();
        let metrics = free_address();
        for file in ["host.toml", "enclave.toml"] {
            let text = fs::read_to_string(folder.join(file)).unwrap();
            let mut text = text.replace(original.to_str().unwrap(), folder.to_str().unwrap());
            let lines = text.lines().filter(|line| {
                let peer = line.split_once(" = ").map(|(name, _)| name);
                !peer.is_some_and(|name| {
                    running.cluster.party(name).is_ok() && !peers.contains(&name)
                })
            });
            let lines = lines.map(|line| {
                if line.starts_with("listen = ") {
                    let own = line.contains(&running.address(party).to_string());
                    let address = if own { address } else { metrics };
                    format!("listen = \"{address}\"")
                } else {
                    line.to_owned()
                }
            });
            text = lines.collect::<Vec<_>>().join("\n");
            fs::write(folder.join(file), text + "\n").unwrap();
        }
        let binaries = Binaries::find().unwrap();
        let start = |what: &str, program: &Path| {
            let config = folder.join(format!("{what}.toml"));
            Process::start(
                format!("second {what} of {party}"),
                &binaries.arca,
                program,
                &["--config", config.to_str().unwrap()],
                folder.join(format!("{what}.log")),
            )
            .unwrap()
        };
        let host = start("host", &binaries.host);
        let enclave = start("enclave", &binaries.enclave);
        Self {
            address,
            party: party.to_owned(),
            _host: host,
            _enclave: enclave,
        }
    }

    /// gRPC to it as the treasury; waits until it answers.
    pub async fn service(&self, running: &Running) -> Channel {
        let mut next_look = tokio::time::interval(Duration::from_millis(50));
        let connecting = async {
            loop {
                next_look.tick().await;
                let target = Target::Service(self.party.clone());
                let channel = running.channel(self.address, running.treasury(), target);
                if let Ok(channel) = channel.await {
                    return grpc_over(channel).await;
                }
            }
        };
        tokio::time::timeout(PATIENCE, connecting).await.unwrap()
    }

    pub async fn state_when(
        &self,
        running: &Running,
        wanted: impl Fn(&GetStateResponse) -> bool,
    ) -> GetStateResponse {
        state_when(PartyServiceClient::new(self.service(running).await), wanted).await
    }
}

pub fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}
