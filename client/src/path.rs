//! The way from a key to a key below it.

use std::fmt;
use std::str::FromStr;

use arca_policy::MAX_PATH_STEPS;
use serde::Serialize;

use crate::error::{Error, Result};

/// Non-hardened BIP-32 steps, at most 16; none for the key itself. Written `m/44/60/0/0/7`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DerivationPath(Vec<u32>);

/// The first index of a hardened step.
const HARDENED: u32 = 1 << 31;

impl DerivationPath {
    /// The key itself: no step.
    pub fn root() -> Self {
        Self::default()
    }

    /// Takes the steps as they are on the wire.
    ///
    /// # Errors
    /// [`Error::Input`] for more than 16, or a hardened one.
    pub fn new(steps: Vec<u32>) -> Result<Self> {
        let path = Self(steps);
        let invalid =
            |problem: String| Err(Error::input(format!("derivation path {path}"), problem));
        if path.0.len() > MAX_PATH_STEPS {
            return invalid(format!(
                "has {} steps; no more than {MAX_PATH_STEPS} are allowed",
                path.0.len()
            ));
        }
        if let Some(step) = path.0.iter().find(|step| **step >= HARDENED) {
            return invalid(hardened(*step ^ HARDENED));
        }
        Ok(path)
    }

    /// The steps, each below 2^31.
    pub fn steps(&self) -> &[u32] {
        &self.0
    }

    /// Whether it leads nowhere else than to the key itself.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }
}

fn hardened(step: u32) -> String {
    format!(
        "step {step}' is hardened, and a hardened child is computed from the whole private key, which nobody has; \
         write {step} without the mark for the child that public keys suffice for"
    )
}

impl fmt::Display for DerivationPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("m")?;
        self.0.iter().try_for_each(|step| write!(f, "/{step}"))
    }
}

impl FromStr for DerivationPath {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let invalid = |problem: String| Error::input(format!("derivation path {text:?}"), problem);
        let steps = match text.strip_prefix('m') {
            Some("") => return Ok(Self::root()),
            Some(rest) => rest.strip_prefix('/'),
            None => None,
        }
        .ok_or_else(|| invalid("does not begin with m/, as in m/44/60/0/0/7".to_owned()))?;
        let steps = steps.split('/').map(|step| {
            let digits = step.strip_suffix(['\'', 'h', 'H']);
            let number = digits.unwrap_or(step);
            // A sign parses too, and is none here.
            let index = Some(number)
                .filter(|number| number.bytes().all(|byte| byte.is_ascii_digit()))
                .and_then(|number| number.parse::<u32>().ok())
                .ok_or_else(|| {
                    invalid(format!("step {step:?} is no number from 0 to 2147483647"))
                })?;
            if digits.is_some() || index >= HARDENED {
                return Err(invalid(hardened(index & !HARDENED)));
            }
            Ok(index)
        });
        Self::new(steps.collect::<Result<_>>()?)
    }
}

impl Serialize for DerivationPath {
    fn serialize<S: serde::Serializer>(
        &self,
        serializer: S,
    ) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<DerivationPath> {
        text.parse()
    }

    #[test]
    fn paths_are_read_and_written() {
        assert!(parse("m").unwrap().is_root());
        for text in ["m", "m/0", "m/44/60/0/0/7", "m/2147483647"] {
            assert_eq!(parse(text).unwrap().to_string(), text);
        }
        assert_eq!(parse("m/44/60/0/0/7").unwrap().steps(), [44, 60, 0, 0, 7]);
    }

    #[test]
    fn a_hardened_step_is_refused_with_the_reason() {
        for text in ["m/44'/60/0", "m/44h/60/0", "m/44H", "m/2147483692"] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains("step 44' is hardened"), "{error}");
            assert!(error.contains("whole private key"), "{error}");
        }
        let error = DerivationPath::new(vec![0, HARDENED + 44]).unwrap_err();
        assert!(error.to_string().contains("step 44' is hardened"));
    }

    #[test]
    fn what_is_no_path_is_refused() {
        let long = format!("m{}", "/1".repeat(17));
        for text in [
            "",
            "/",
            "m/",
            "m//1",
            "44/60",
            "M/1",
            "m/+1",
            "m/-1",
            "m/1/",
            "m/x",
            "m/ 1",
            "m/4294967296",
            "m/'",
            &long,
        ] {
            assert!(matches!(parse(text), Err(Error::Input { .. })), "{text:?}");
        }
        assert!(parse(&long).unwrap_err().to_string().contains("17 steps"));
    }
}
