//! An NSM in software, with the registers of a real one. Its documents come from the forge of the verifier's tests.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock};
use std::time::{SystemTime, UNIX_EPOCH};

use arca_attestation::{Measurements, TrustAnchors, UnixMillis};
use arca_enclave_nitro::nsm::{BankDigest, ErrorCode, NsmDevice, Request, Response, extended};
use ciborium::Value;
use rand_core::{OsRng, RngCore as _};

use crate::forge::{Forge, bytes, pcr_map, validity};

pub const MEASUREMENTS: Measurements = Measurements {
    pcr0: [0xa0; 48],
    pcr1: [0xa1; 48],
    pcr2: [0xa2; 48],
};
pub const SIGNER: [u8; 48] = [0xa8; 48];
const PCRS: usize = 32;
/// The first ones are locked before the enclave starts.
const LOCKED: usize = 16;

/// What an NSM can be made to do wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fault {
    #[default]
    None,
    /// Locking fails.
    Lock,
    /// Locking says that it succeeded, and one register stays open.
    LeavesOpen(usize),
    /// Extending returns another value than it should.
    Extend,
    /// PCR16 reads other than what it was extended to.
    Reads,
    Random,
    /// Entropy comes in pieces of this size, always the same bytes.
    RandomPieces(usize),
    Attestation,
    /// As many registers as this.
    Registers(u16),
}

pub struct SoftwareNsm {
    pcrs: Mutex<[(bool, [u8; 48]); PCRS]>,
    /// Milliseconds between its clock and this machine's.
    shift: AtomicI64,
    fault: Mutex<Fault>,
    /// Times that it was asked for evidence over no key, which the platform's clock does alone.
    dates: AtomicU64,
}

/// When the certificates of all software NSMs of this process were made.
fn made() -> UnixMillis {
    static MADE: OnceLock<UnixMillis> = OnceLock::new();
    *MADE.get_or_init(system)
}

fn system() -> UnixMillis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    UnixMillis(u64::try_from(since.as_millis()).unwrap())
}

/// One for the whole process, since drawing its keys takes time. Its root is that of all software NSMs.
fn forge() -> MutexGuard<'static, Forge> {
    static FORGE: OnceLock<Mutex<Forge>> = OnceLock::new();
    let make = || {
        let mut forge = Forge::new();
        for certificate in &mut forge.path {
            certificate.tbs.validity = validity(made(), -36_000, 36_000);
        }
        Mutex::new(forge)
    };
    FORGE.get_or_init(make).lock().unwrap()
}

/// The root of all of them.
pub fn anchors() -> TrustAnchors {
    forge().anchors()
}

/// The same, as a file has it.
pub fn root_der() -> Vec<u8> {
    forge().root_der()
}

impl SoftwareNsm {
    pub fn new() -> Self {
        Self::measured(MEASUREMENTS, SIGNER)
    }

    /// Of an image with these measurements.
    pub fn measured(measurements: Measurements, signer: [u8; 48]) -> Self {
        let mut pcrs = [(false, [0; 48]); PCRS];
        pcrs[0].1 = measurements.pcr0;
        pcrs[1].1 = measurements.pcr1;
        pcrs[2].1 = measurements.pcr2;
        pcrs[8].1 = signer;
        for (locked, _) in &mut pcrs[..LOCKED] {
            *locked = true;
        }
        Self {
            pcrs: Mutex::new(pcrs),
            shift: AtomicI64::new(0),
            fault: Mutex::default(),
            dates: AtomicU64::new(0),
        }
    }

    pub fn set_fault(&self, fault: Fault) {
        *self.fault.lock().unwrap() = fault;
    }

    /// Times that the platform's clock has asked for its date.
    pub fn dates_asked(&self) -> u64 {
        self.dates.load(Ordering::Relaxed)
    }

    /// Sets its clock so far from this machine's.
    pub fn shift_clock(&self, millis: i64) {
        self.shift.store(millis, Ordering::Relaxed);
    }

    pub fn now(&self) -> UnixMillis {
        let shift = self.shift.load(Ordering::Relaxed);
        UnixMillis(system().0.checked_add_signed(shift).unwrap())
    }

    pub fn pcr(&self, index: usize) -> (bool, [u8; 48]) {
        self.pcrs.lock().unwrap()[index]
    }

    pub fn set_pcr(&self, index: usize, locked: bool, value: [u8; 48]) {
        self.pcrs.lock().unwrap()[index] = (locked, value);
    }

    fn document(&self, user_data: Value, nonce: Value, public_key: Value) -> Vec<u8> {
        let mut forge = forge();
        let locked: Vec<(usize, [u8; 48])> = {
            let pcrs = self.pcrs.lock().unwrap();
            let of_locked = pcrs.iter().enumerate().filter(|(_, (locked, _))| *locked);
            of_locked
                .map(|(index, (_, value))| (index, *value))
                .collect()
        };
        forge.set("pcrs", pcr_map(locked.into_iter()));
        forge.set("timestamp", Value::from(self.now().0));
        forge.set("user_data", user_data);
        forge.set("nonce", nonce);
        forge.set("public_key", public_key);
        forge.document()
    }
}

impl NsmDevice for SoftwareNsm {
    fn process(&self, request: Request) -> Response {
        let fault = *self.fault.lock().unwrap();
        if let Request::Attestation { public_key, .. } = &request
            && public_key.as_ref().is_none_or(|key| key.is_empty())
        {
            self.dates.fetch_add(1, Ordering::Relaxed);
        }
        match request {
            Request::DescribeNSM => Response::DescribeNSM {
                version_major: 1,
                version_minor: 0,
                version_patch: 0,
                module_id: "i-0123456789abcdef0-enc0123456789abcdef".to_owned(),
                max_pcrs: match fault {
                    Fault::Registers(count) => count,
                    _ => PCRS as u16,
                },
                locked_pcrs: (0..LOCKED as u16).collect(),
                digest: BankDigest::SHA384,
            },
            Request::DescribePCR { index } => {
                match self.pcrs.lock().unwrap().get(usize::from(index)) {
                    Some((lock, value)) => Response::DescribePCR {
                        lock: *lock,
                        data: match fault {
                            Fault::Reads if *value != [0; 48] && index == 16 => vec![7; 48],
                            _ => value.to_vec(),
                        },
                    },
                    None => Response::Error(ErrorCode::InvalidIndex),
                }
            }
            Request::ExtendPCR { index, data } => {
                let mut pcrs = self.pcrs.lock().unwrap();
                match pcrs.get_mut(usize::from(index)) {
                    Some((false, value)) => {
                        *value = extended(value, &data);
                        Response::ExtendPCR {
                            data: match fault {
                                Fault::Extend => vec![1; 48],
                                _ => value.to_vec(),
                            },
                        }
                    }
                    Some((true, _)) => Response::Error(ErrorCode::ReadOnlyIndex),
                    None => Response::Error(ErrorCode::InvalidIndex),
                }
            }
            Request::LockPCRs { .. } if fault == Fault::Lock => {
                Response::Error(ErrorCode::InternalError)
            }
            Request::LockPCRs { range } => {
                let mut pcrs = self.pcrs.lock().unwrap();
                for (index, (locked, _)) in pcrs.iter_mut().enumerate().take(usize::from(range)) {
                    *locked |= fault != Fault::LeavesOpen(index);
                }
                Response::LockPCRs
            }
            Request::Attestation { .. } if fault == Fault::Attestation => {
                Response::Error(ErrorCode::InternalError)
            }
            Request::Attestation {
                user_data,
                nonce,
                public_key,
            } => {
                let [user_data, nonce, public_key] = [user_data, nonce, public_key]
                    .map(|field| field.map_or(Value::Null, |field| bytes(&field)));
                Response::Attestation {
                    document: self.document(user_data, nonce, public_key),
                }
            }
            Request::GetRandom => match fault {
                Fault::Random => Response::Error(ErrorCode::InternalError),
                Fault::RandomPieces(size) => Response::GetRandom {
                    random: vec![0x5a; size],
                },
                _ => {
                    let mut random = vec![0; 256];
                    OsRng.fill_bytes(&mut random);
                    Response::GetRandom { random }
                }
            },
            _ => Response::Error(ErrorCode::InvalidOperation),
        }
    }
}
