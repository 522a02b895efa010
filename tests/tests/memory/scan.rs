//! Looks for known secrets in the memory of another process.

use std::{
    fmt::{self, Write as _},
    fs::File,
    io,
    os::unix::fs::FileExt as _,
};

/// Bytes that shall not be found. Any half of them counts, in both orders.
pub struct Secret {
    pub name: String,
    pub bytes: Vec<u8>,
}

impl Secret {
    pub fn new(name: impl Into<String>, bytes: impl Into<Vec<u8>>) -> Self {
        let (name, bytes) = (name.into(), bytes.into());
        assert!(bytes.len() >= HALF, "{name} is too short to be looked for");
        assert_ne!(
            bytes.iter().min(),
            bytes.iter().max(),
            "{name} is found everywhere"
        );
        Self { name, bytes }
    }
}

/// One half of a secret, at one place.
#[derive(Clone, PartialEq, Eq)]
pub struct Finding {
    pub name: String,
    pub reversed: bool,
    /// Where in the secret this half starts.
    pub part: usize,
    pub address: u64,
    /// What the kernel says is mapped there.
    pub region: String,
}

impl fmt::Debug for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let order = if self.reversed {
            "reversed"
        } else {
            "as it is"
        };
        let Self {
            name,
            part,
            address,
            region,
            ..
        } = self;
        write!(
            f,
            "{name}, {order}, from byte {part}: {address:#x} in {region}"
        )
    }
}

/// So long is what is looked for: a register's worth of a secret is a secret.
const HALF: usize = 16;
const CHUNK: usize = 1 << 20;

struct Needle<'a> {
    name: &'a str,
    reversed: bool,
    part: usize,
    bytes: Vec<u8>,
}

/// Every place in the writable memory of `pid` that holds half of a secret.
///
/// Heap, stacks of all threads, thread-local and static data; not what the kernel keeps, registers among it.
pub fn scan<'a>(
    pid: u32,
    secrets: impl IntoIterator<Item = &'a Secret>,
) -> io::Result<Vec<Finding>> {
    let needles = needles(secrets);
    let mut starts = vec![false; 1 << 16];
    for needle in &needles {
        starts[usize::from(u16::from_le_bytes([needle.bytes[0], needle.bytes[1]]))] = true;
    }
    let memory = File::open(format!("/proc/{pid}/mem"))?;
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps"))?;
    let mut findings = Vec::new();
    let mut read = 0;
    for line in maps.lines() {
        let Some((start, end)) = writable(line) else {
            continue;
        };
        let mut at = start;
        while at < end {
            let length = usize::try_from(end - at).unwrap().min(CHUNK + HALF);
            let mut bytes = vec![0; length];
            if memory.read_exact_at(&mut bytes, at).is_err() {
                // Unmapped meanwhile, or a device.
                break;
            }
            read += length;
            search(&bytes, &starts, &needles, |needle, offset| {
                findings.push(Finding {
                    name: needle.name.to_owned(),
                    reversed: needle.reversed,
                    part: needle.part,
                    address: at + u64::try_from(offset).unwrap(),
                    region: line.to_owned(),
                });
            });
            at += u64::try_from(CHUNK).unwrap();
        }
    }
    assert!(read > 0, "no memory of process {pid} could be read");
    Ok(findings)
}

/// Findings for people.
pub fn list(findings: &[Finding]) -> String {
    let mut text = String::new();
    for finding in findings {
        let _ = writeln!(text, "  {finding:?}");
    }
    text
}

fn needles<'a>(secrets: impl IntoIterator<Item = &'a Secret>) -> Vec<Needle<'a>> {
    let mut needles = Vec::new();
    for Secret { name, bytes } in secrets {
        let backwards: Vec<u8> = bytes.iter().rev().copied().collect();
        for (reversed, bytes) in [(false, bytes), (true, &backwards)] {
            for (index, half) in bytes.chunks_exact(HALF).enumerate() {
                needles.push(Needle {
                    name,
                    reversed,
                    part: index * HALF,
                    bytes: half.to_vec(),
                });
            }
        }
    }
    needles
}

/// The range of a line of `maps`, if it can be written to and read.
fn writable(line: &str) -> Option<(u64, u64)> {
    let mut fields = line.split_whitespace();
    let (start, end) = fields.next()?.split_once('-')?;
    if !fields.next()?.starts_with("rw") {
        return None;
    }
    let number = |hex| u64::from_str_radix(hex, 16).ok();
    Some((number(start)?, number(end)?))
}

fn search<'a>(
    bytes: &[u8],
    starts: &[bool],
    needles: &'a [Needle<'a>],
    mut found: impl FnMut(&Needle<'a>, usize),
) {
    let mut at = 0;
    while at + HALF <= bytes.len() {
        // Most memory is zeros.
        if bytes[at..].starts_with(&[0; 64]) && at + 64 + HALF <= bytes.len() {
            at += 64 - HALF;
            continue;
        }
        let start = u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        if starts[usize::from(start)] {
            for needle in needles {
                // The overlap belongs to the next chunk.
                if bytes[at..].starts_with(&needle.bytes) && at < CHUNK {
                    found(needle, at);
                }
            }
        }
        at += 1;
    }
}
