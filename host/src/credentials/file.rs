//! Credentials from a file in the format of AWS' shared credentials file.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use tokio::io::AsyncReadExt as _;

use super::Credentials;

/// Far more than a file of credentials has.
const MAX_FILE: u64 = 64 * 1024;

/// The credentials of a profile, or what is wrong, in words without any secret.
pub(super) async fn read(path: &Path, profile: &str, section: &str) -> Result<Credentials, String> {
    let shown = format!("{} ({section}.file)", path.display());
    let cannot = |error: std::io::Error| format!("{shown} cannot be read: {error}");
    let mut file = tokio::fs::File::open(path).await.map_err(cannot)?;
    let metadata = file.metadata().await.map_err(cannot)?;
    if metadata.mode() & 0o077 != 0 {
        return Err(format!(
            "{shown} is open to other accounts (mode {:o}); chmod 600 it",
            metadata.mode() & 0o7777
        ));
    }
    let mut text = String::new();
    (&mut file)
        .take(MAX_FILE)
        .read_to_string(&mut text)
        .await
        .map_err(cannot)?;
    find(&text, profile).map_err(|problem| format!("{shown}: {problem}"))
}

fn find(text: &str, profile: &str) -> Result<Credentials, String> {
    let mut found = false;
    let mut here = false;
    let mut values = [const { None }; 3];
    let names = [
        "aws_access_key_id",
        "aws_secret_access_key",
        "aws_session_token",
    ];
    for line in text.lines().map(str::trim) {
        if line.is_empty() || line.starts_with(['#', ';']) {
            continue;
        }
        if let Some(section) = line.strip_prefix('[') {
            here = section.split(']').next().map(str::trim) == Some(profile);
            found |= here;
            continue;
        }
        let Some((name, value)) = line.split_once('=').filter(|_| here) else {
            continue;
        };
        for (known, slot) in names.iter().zip(&mut values) {
            if *known == name.trim().to_ascii_lowercase() {
                *slot = Some(value.trim().to_owned());
            }
        }
    }
    if !found {
        return Err(format!("no profile [{profile}]"));
    }
    let [access_key_id, secret_access_key, session_token] = values;
    let given = |value: Option<String>, name| {
        value
            .filter(|value| !value.is_empty())
            .ok_or_else(|| format!("profile [{profile}] has no {name}"))
    };
    Ok(Credentials {
        access_key_id: given(access_key_id, "aws_access_key_id")?,
        secret_access_key: given(secret_access_key, "aws_secret_access_key")?,
        session_token: session_token.unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "\
# long-lived\n[default]\naws_access_key_id=AKIDEFAULT\naws_secret_access_key = default/secret\n\n\
[ enclave ]\r\naws_access_key_id = ASIAENCLAVE\r\nAWS_SECRET_ACCESS_KEY = a=b+c/\r\naws_session_token = token==\r\n\
region = eu-central-1\n; the end\n[half]\naws_access_key_id = AKIHALF\n[none]\naws_access_key_id =\n";

    #[test]
    fn a_profile_is_found_with_what_is_its_own() {
        assert_eq!(
            find(FILE, "default").unwrap(),
            Credentials {
                access_key_id: "AKIDEFAULT".into(),
                secret_access_key: "default/secret".into(),
                session_token: String::new(),
            }
        );
        assert_eq!(
            find(FILE, "enclave").unwrap(),
            Credentials {
                access_key_id: "ASIAENCLAVE".into(),
                secret_access_key: "a=b+c/".into(),
                session_token: "token==".into(),
            }
        );
    }

    #[test]
    fn what_is_missing_is_named() {
        for (profile, problem) in [
            ("other", "no profile [other]"),
            ("half", "profile [half] has no aws_secret_access_key"),
            ("none", "profile [none] has no aws_access_key_id"),
        ] {
            assert_eq!(find(FILE, profile).unwrap_err(), problem);
        }
    }
}
