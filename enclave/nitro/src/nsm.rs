//! The Nitro Secure Module (NSM): evidence, measurements, entropy. `/dev/nsm` in an enclave.

use std::sync::Arc;

use arca_attestation::Measurements;
use arca_enclave::{Generator, platform::PlatformError};
pub use aws_nitro_enclaves_nsm_api::api::{Digest as BankDigest, ErrorCode, Request, Response};
use aws_nitro_enclaves_nsm_api::driver;
use rand_core::{OsRng, RngCore as _};
use sha2::{Digest as _, Sha384};
use zeroize::Zeroizing;

/// What an NSM does: one request, one response.
pub trait NsmDevice: Send + Sync + 'static {
    /// Processes a request, in a few milliseconds. A failure is [`Response::Error`].
    fn process(&self, request: Request) -> Response;
}

/// The device of this enclave.
///
/// # Security
/// Responses come from the hypervisor, which is trusted with everything here; they alone are parsed with the
/// unmaintained `serde_cbor` of AWS' crate.
#[derive(Debug)]
pub struct DevNsm(i32);

impl DevNsm {
    /// Opens `/dev/nsm`; `None` where there is none or it cannot be opened.
    pub fn open() -> Option<Self> {
        let descriptor = driver::nsm_init();
        (descriptor >= 0).then_some(Self(descriptor))
    }
}

impl NsmDevice for DevNsm {
    fn process(&self, request: Request) -> Response {
        driver::nsm_process_request(self.0, request)
    }
}

impl Drop for DevNsm {
    fn drop(&mut self) {
        driver::nsm_exit(self.0);
    }
}

/// The register that the manifest's digest goes into: the first that is the enclave's own.
pub const MANIFEST_PCR: u16 = 16;
/// Registers of a Nitro NSM.
const PCRS: u16 = 32;
/// Extended with the digest of the certificate that the image is signed with; zeros when it is not.
const SIGNER_PCR: u16 = 8;
/// Most bytes of one GetRandom.
const MAX_RANDOM: usize = 256;

/// A register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pcr {
    pub(crate) locked: bool,
    pub(crate) value: [u8; 48],
}

/// The device, spoken to in types.
#[derive(Clone)]
pub(crate) struct Nsm(Arc<dyn NsmDevice>);

impl Nsm {
    pub(crate) fn new(device: Arc<dyn NsmDevice>) -> Self {
        Self(device)
    }

    /// Refuses a module that is not as this code knows them.
    pub(crate) fn check(&self) -> Result<(), PlatformError> {
        const ASKED: &str = "describing the NSM";
        match self.0.process(Request::DescribeNSM) {
            Response::DescribeNSM {
                max_pcrs: PCRS,
                digest: BankDigest::SHA384,
                ..
            } => Ok(()),
            Response::DescribeNSM {
                max_pcrs, digest, ..
            } => Err(failed(
                ASKED,
                format!("it has {max_pcrs} PCRs of {digest:?}, not {PCRS} of SHA384"),
            )),
            other => Err(unexpected(ASKED, &other)),
        }
    }

    /// PCR 0, 1 and 2.
    pub(crate) fn measurements(&self) -> Result<Measurements, PlatformError> {
        Ok(Measurements {
            pcr0: self.pcr(0)?.value,
            pcr1: self.pcr(1)?.value,
            pcr2: self.pcr(2)?.value,
        })
    }

    /// Whether the image is signed, so that a key policy can name its signer.
    pub(crate) fn image_is_signed(&self) -> Result<bool, PlatformError> {
        Ok(self.pcr(SIGNER_PCR)?.value != [0; 48])
    }

    pub(crate) fn pcr(&self, index: u16) -> Result<Pcr, PlatformError> {
        const ASKED: &str = "reading a PCR";
        match self.0.process(Request::DescribePCR { index }) {
            Response::DescribePCR { lock, data } => Ok(Pcr {
                locked: lock,
                value: pcr_value(ASKED, index, &data)?,
            }),
            other => Err(unexpected(ASKED, &other)),
        }
    }

    /// Extends PCR16 with the digest, locks all registers, and reads back that it is so.
    ///
    /// Again with the same digest it only reads. A register that says something else than it should is refused,
    /// and with it this boot.
    pub(crate) fn bind(&self, digest: &[u8; 48]) -> Result<(), PlatformError> {
        const ASKED: &str = "fixing the manifest in PCR16";
        let zeros = [0; 48];
        let expected = extended(&zeros, digest);
        match self.pcr(MANIFEST_PCR)? {
            Pcr {
                locked: false,
                value,
            } if value == zeros => {
                let request = Request::ExtendPCR {
                    index: MANIFEST_PCR,
                    data: digest.to_vec(),
                };
                match self.0.process(request) {
                    Response::ExtendPCR { data } if data == expected => {}
                    Response::ExtendPCR { .. } => {
                        return Err(failed(ASKED, "the NSM extended it to another value".into()));
                    }
                    other => return Err(unexpected(ASKED, &other)),
                }
            }
            Pcr { value, .. } if value == expected => {}
            Pcr { .. } => {
                return Err(failed(
                    ASKED,
                    "it was used or locked before, for another manifest; an enclave that decides by a new \
                     manifest from its start has to be started anew"
                        .to_owned(),
                ));
            }
        }
        match self.0.process(Request::LockPCRs { range: PCRS }) {
            Response::LockPCRs => {}
            other => return Err(unexpected(ASKED, &other)),
        }
        for index in 0..PCRS {
            let pcr = self.pcr(index)?;
            if !pcr.locked {
                return Err(failed(ASKED, format!("PCR{index} is not locked")));
            }
            if index == MANIFEST_PCR && pcr.value != expected {
                return Err(failed(ASKED, "it has another value after locking".into()));
            }
        }
        Ok(())
    }

    /// An attestation document. Empty values are left out of it.
    pub(crate) fn attest(
        &self,
        nonce: &[u8],
        user_data: &[u8],
        public_key: &[u8],
    ) -> Result<Vec<u8>, PlatformError> {
        let field = |value: &[u8]| (!value.is_empty()).then(|| value.to_vec().into());
        let request = Request::Attestation {
            user_data: field(user_data),
            nonce: field(nonce),
            public_key: field(public_key),
        };
        match self.0.process(request) {
            Response::Attestation { document } => Ok(document),
            other => Err(unexpected("making evidence", &other)),
        }
    }

    /// Fills `out` with the NSM's entropy XORed with the kernel's: as good as the better of the two.
    pub(crate) fn random(&self, out: &mut [u8]) -> Result<(), PlatformError> {
        const ASKED: &str = "drawing randomness";
        OsRng
            .try_fill_bytes(out)
            .map_err(|error| failed(ASKED, error.to_string()))?;
        for chunk in out.chunks_mut(MAX_RANDOM) {
            let mut at = 0;
            while at < chunk.len() {
                let random = match self.0.process(Request::GetRandom) {
                    Response::GetRandom { random } => Zeroizing::new(random),
                    other => return Err(unexpected(ASKED, &other)),
                };
                if random.is_empty() {
                    return Err(failed(ASKED, "the NSM gave nothing".to_owned()));
                }
                let open = chunk.iter_mut().skip(at);
                for (byte, random) in open.zip(random.iter()) {
                    *byte ^= random;
                }
                at = at.saturating_add(random.len());
            }
        }
        Ok(())
    }

    /// A generator seeded with [`random`](Self::random), for what takes many bytes.
    pub(crate) fn generator(&self) -> Result<Generator, PlatformError> {
        let mut seed = Zeroizing::new([0; 32]);
        self.random(&mut seed[..])?;
        Ok(Generator::from_seed(&seed))
    }
}

/// The value of a register after it was extended with `data`.
pub fn extended(before: &[u8; 48], data: &[u8]) -> [u8; 48] {
    Sha384::new()
        .chain_update(before)
        .chain_update(data)
        .finalize()
        .into()
}

fn pcr_value(asked: &'static str, index: u16, data: &[u8]) -> Result<[u8; 48], PlatformError> {
    data.try_into().map_err(|_| {
        failed(
            asked,
            format!("PCR{index} has {} bytes, not 48", data.len()),
        )
    })
}

fn failed(operation: &'static str, cause: String) -> PlatformError {
    PlatformError::Failed { operation, cause }
}

fn unexpected(operation: &'static str, response: &Response) -> PlatformError {
    let cause = match response {
        Response::Error(code) => format!("the NSM answers {code:?}"),
        _ => "the NSM answers something else".to_owned(),
    };
    failed(operation, cause)
}
