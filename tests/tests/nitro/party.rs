//! Whole parties on the Nitro platform: three enclaves with their hosts, whose relays lead to the stand-in for KMS. A
//! cluster is made, signs, stops, starts again on new boots, and signs.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arca_attestation::manifest::{Administrator, Administrators, Principal, Role};
use arca_attestation::{ReferenceValues, TrustClass, UnixMillis};
use arca_client::{Client, Cluster, Key, NewKey, Payload, Profile, Scheme, clock, enroll};
use arca_client::{keyfile, manifest_file};
use arca_enclave::Settings;
use arca_enclave::platform::{BoxedStream, HostEndpoint};
use arca_enclave::unix::UnixSockets;
use arca_enclave_nitro::config::KmsConfig;
use arca_enclave_nitro::kms::Patience;
use arca_enclave_nitro::transport::{Capped, Transport};
use arca_enclave_nitro::{Machine, NitroPlatform};
use arca_host::{Handle, Host};
use p256::pkcs8::EncodePublicKey as _;
use tempfile::TempDir;
use tokio::net::{TcpListener, UnixStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::nsm::{MEASUREMENTS, SoftwareNsm, anchors, root_der};
use crate::standin::{ACCESS_KEY_ID, Authority, KEY, SECRET, StandIn, TOKEN};
use crate::world::POLICY;

const PATIENCE: Duration = Duration::from_secs(120);
const PARTIES: [&str; 3] = ["ceo", "cloud", "cto"];
const CLUSTER: &str = "sim-nitro";

/// The enclave's way to its host: the sockets of a simulated enclave, and one more.
struct Sockets {
    sockets: UnixSockets,
    folder: PathBuf,
}

#[tonic::async_trait]
impl Transport for Sockets {
    async fn accept(&self) -> io::Result<BoxedStream> {
        let stream = self.sockets.accept().await?;
        Ok(Box::new(Capped(stream)))
    }

    async fn connect(&self, endpoint: HostEndpoint) -> io::Result<BoxedStream> {
        if endpoint == HostEndpoint::Kms {
            let stream = UnixStream::connect(self.folder.join(arca_host::KMS_SOCKET)).await?;
            return Ok(Box::new(Capped(stream)));
        }
        let stream = self.sockets.connect(endpoint).await?;
        Ok(Box::new(Capped(stream)))
    }
}

struct Party {
    host: Handle,
    nsm: Arc<SoftwareNsm>,
    stop: oneshot::Sender<()>,
    enclave: JoinHandle<Result<(), arca_enclave::Error>>,
}

struct Parties {
    folder: TempDir,
    authority: Authority,
    kms: Arc<StandIn>,
    endpoint: String,
    running: BTreeMap<&'static str, Party>,
}

impl Parties {
    async fn new() -> Self {
        let authority = Authority::new("root of the tests");
        let machine = SoftwareNsm::new();
        let kms = StandIn::new(anchors(), &authority, POLICY, move || machine.now());
        let kms = Arc::new(kms);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = listener.local_addr().unwrap().to_string();
        let serving = Arc::clone(&kms);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(Arc::clone(&serving).serve(stream));
            }
        });
        let folder = TempDir::new().unwrap();
        let credentials = format!(
            "[default]\naws_access_key_id = {ACCESS_KEY_ID}\naws_secret_access_key = {SECRET}\n\
             aws_session_token = {TOKEN}\n"
        );
        let file = folder.path().join("credentials");
        fs::write(&file, credentials).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        Self {
            folder,
            authority,
            kms,
            endpoint,
            running: BTreeMap::new(),
        }
    }

    /// Boots every enclave anew, beside its host.
    async fn start(&mut self) {
        for name in PARTIES {
            let host = self.start_host(name).await;
            let nsm = Arc::new(SoftwareNsm::new());
            let folder = self.sockets(name);
            let transport = Sockets {
                sockets: UnixSockets::listen(&folder).unwrap(),
                folder,
            };
            let machine = Machine {
                nsm: Arc::clone(&nsm) as _,
                transport: Arc::new(transport),
                anchors: anchors(),
                kms_roots: vec![self.authority.root()],
                patience: Patience {
                    attempt: Duration::from_secs(20),
                    ..Patience::default()
                },
            };
            let config = KmsConfig {
                key: KEY.to_owned().try_into().unwrap(),
                cluster: Some(CLUSTER.into()),
                party: Some(name.into()),
            };
            let platform = NitroPlatform::danger_start_on(machine, &config).unwrap();
            let (stop, stopped) = oneshot::channel();
            let settings = Settings {
                presignatures: 0,
                ..Settings::default()
            };
            let enclave = tokio::spawn(arca_enclave::serve(
                Arc::new(platform),
                settings,
                async move {
                    let _ = stopped.await;
                },
            ));
            let party = Party {
                host,
                nsm,
                stop,
                enclave,
            };
            self.running.insert(name, party);
        }
        for (name, party) in &self.running {
            for (other, peer) in &self.running {
                if name != other {
                    let address = peer.host.listen_address().to_string();
                    party.host.set_peer(other, &address);
                }
            }
        }
    }

    fn sockets(&self, name: &str) -> PathBuf {
        self.folder.path().join(format!("{name}-run"))
    }

    async fn start_host(&self, name: &str) -> Handle {
        let text = format!(
            "party = '{name}'\nlisten = '127.0.0.1:0'\nsockets = {:?}\n[storage]\npath = '{name}.redb'\n\
             [kms]\nregion = 'eu-central-1'\nendpoint = '{}'\ncredentials = 'file'\nfile = 'credentials'\n",
            self.sockets(name),
            self.endpoint,
        );
        let file = self.folder.path().join(format!("{name}.toml"));
        let config = arca_host::Config::from_toml(&text, &file).unwrap();
        Host::start(config).await.unwrap()
    }

    async fn stop(&mut self) {
        for (_, party) in std::mem::take(&mut self.running) {
            party.stop.send(()).unwrap();
            party.enclave.await.unwrap().unwrap();
            party.host.shutdown().await;
        }
    }

    fn address(&self, name: &str) -> String {
        self.running[name].host.listen_address().to_string()
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Verifies the enclaves, has the manifest signed, hands it out. What a client of the cluster needs is then there.
    async fn enroll(&self) {
        let reference = ReferenceValues::Simulated(vec![MEASUREMENTS]);
        let mut candidates = Vec::new();
        for name in PARTIES {
            let address = self.address(name);
            let candidate = enroll::collect(name, &address, &anchors(), &reference).await;
            candidates.push(candidate.unwrap());
        }
        assert!(
            candidates
                .iter()
                .all(|it| it.class == TrustClass::Simulated)
        );
        let administrator = keyfile::generate_administrator(&self.file("alice.pem")).unwrap();
        let principal = keyfile::generate_principal(&self.file("treasury.pem")).unwrap();
        let administrators = Administrators {
            quorum: 1,
            keys: vec![Administrator {
                name: "alice".into(),
                public_key: administrator.verifying_key().to_bytes(),
            }],
        };
        let principal = Principal {
            name: "treasury".into(),
            identity: principal
                .public_key()
                .to_public_key_der()
                .unwrap()
                .into_vec(),
            roles: vec![Role::Operator, Role::Initiator, Role::Auditor],
        };
        let draft = enroll::draft(
            CLUSTER,
            &candidates,
            Vec::new(),
            administrators,
            vec![principal],
            UnixMillis(clock::now().0 - 1000),
            Duration::from_secs(3600),
        );
        let bytes = draft.to_bytes().unwrap();
        let signature = manifest_file::sign(&bytes, &administrator);
        let signed = manifest_file::assemble(bytes, &[signature]).unwrap();
        for party in &draft.parties {
            let address = self.address(&party.name);
            let roots = anchors();
            let client = arca_client::candidate(&party.name, &address, &roots, &reference);
            let client = client.await.unwrap();
            let applied = enroll::apply(&client, party, &signed, draft.epoch).await;
            applied.unwrap();
        }
        manifest_file::write(&self.file("manifest.json"), &signed).unwrap();
        fs::write(self.file("root.der"), root_der()).unwrap();
        fs::write(
            self.file("administrator"),
            hex::encode(administrator.verifying_key().to_bytes()),
        )
        .unwrap();
    }

    /// As the treasury, at the addresses of now.
    fn cluster(&self) -> Cluster {
        let key = fs::read_to_string(self.file("administrator")).unwrap();
        let mut text = format!(
            "cluster = '{CLUSTER}'\nkind = 'simulated'\nmanifest = 'manifest.json'\nsimulated_root = 'root.der'\n\
             [administrators]\nquorum = 1\nkeys = ['{key}']\n[principal]\nkey = 'treasury.pem'\n[parties]\n"
        );
        for name in PARTIES {
            text.push_str(&format!("{name} = '{}'\n", self.address(name)));
        }
        let path = self.file("profile.toml");
        fs::write(&path, text).unwrap();
        Cluster::new(Arc::new(Profile::load(Path::new(&path)).unwrap())).unwrap()
    }

    /// A client of a party that reaches all others.
    async fn connected(&self) -> Client {
        let cluster = self.cluster();
        let mut ticks = tokio::time::interval(Duration::from_millis(50));
        let connected = async {
            'again: loop {
                ticks.tick().await;
                let Ok(client) = cluster.party("ceo").await else {
                    continue;
                };
                for other in ["cloud", "cto"] {
                    if client.ping(Some(other)).await.is_err() {
                        continue 'again;
                    }
                }
                return client;
            }
        };
        tokio::time::timeout(PATIENCE, connected).await.unwrap()
    }
}

async fn sign(client: &Client, key: &Key, request_id: &str) {
    let payload = Payload::Digest([7; 32]);
    let signed = client
        .sign(&*key.name, request_id, &payload, PATIENCE)
        .await;
    signed.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn three_parties_make_a_key_sign_restart_and_sign() {
    let mut parties = Parties::new().await;
    parties.start().await;
    parties.enroll().await;
    let client = parties.connected().await;
    let key = NewKey {
        request_id: "first".into(),
        display_name: "first".into(),
        scheme: Scheme::EcdsaSecp256k1,
        threshold: 2,
        parties: Vec::new(),
        allow_raw_digest: true,
    };
    let key = client.create_key(&key, PATIENCE).await.unwrap();
    sign(&client, &key, "one").await;
    for party in parties.running.values() {
        assert!((0..32).all(|index| party.nsm.pcr(index).0), "all locked");
        assert_ne!(party.nsm.pcr(16).1, [0; 48]);
    }
    let fixed = parties.running["ceo"].nsm.pcr(16);
    let mut asked = parties.kms.take_calls();
    asked.sort_unstable();
    assert_eq!(
        asked,
        [["Decrypt"; 3], ["GenerateDataKey"; 3]].concat(),
        "once for each party"
    );
    drop(client);
    parties.stop().await;

    parties.start().await;
    let client = parties.connected().await;
    sign(&client, &key, "two").await;
    assert_eq!(parties.running["ceo"].nsm.pcr(16), fixed);
    assert!(parties.kms.take_calls().contains(&"Decrypt"));
    drop(client);
    parties.stop().await;
}
