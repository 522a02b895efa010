//! A host whose enclave is a machine of its own. Where the kernel has no vsock there is nothing to test, and
//! few have one that leads back to themselves: what passes over it is tested with sockets.

#![allow(clippy::unwrap_used)]

mod common;

use arca_host::{Error, Host, Transport, VsockConfig};
use arca_vsock::VsockListener;
use common::{config_in, folder, get, soon};

#[tokio::test]
async fn it_takes_its_ports_and_gives_them_back() {
    let port = 0x4000_0000 | std::process::id();
    if VsockListener::bind(port).is_err() {
        return;
    }
    let folder = folder();
    let mut config = config_in(folder.path());
    config.transport = Transport::Vsock(VsockConfig {
        cid: 0x7fff_0000,
        enclave_port: port,
        storage_port: port,
        dial_port: port + 1,
        kms_port: port + 2,
    });
    let host = soon(Host::start(config.clone())).await.unwrap();
    let taken = VsockListener::bind(port).unwrap_err();
    assert_eq!(taken.kind(), std::io::ErrorKind::AddrInUse);
    let (status, why) = get(host.metrics_address().unwrap(), "/readyz").await;
    assert_eq!(status, 503, "there is no such enclave: {why}");
    soon(host.shutdown()).await;

    let _taken = VsockListener::bind(port + 1).unwrap();
    let error = soon(Host::start(config)).await.unwrap_err();
    assert!(matches!(error, Error::Vsock { .. }), "{error}");
    let text = error.to_string();
    assert!(
        text.contains("vsock.dial_port") && text.contains("/dev/vsock"),
        "{text}"
    );
}
