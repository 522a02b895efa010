//! The `openssl` command: another implementation than those under test.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Mutex;

use tempfile::TempDir;

pub struct OpenSsl {
    folder: TempDir,
    /// Certificates over recipients' keys, which `openssl cms` wants.
    certificates: Mutex<BTreeMap<Vec<u8>, PathBuf>>,
}

impl OpenSsl {
    pub fn new() -> Self {
        let this = Self {
            folder: TempDir::new().unwrap(),
            certificates: Mutex::default(),
        };
        let key = [
            "ecparam",
            "-name",
            "prime256v1",
            "-genkey",
            "-noout",
            "-out",
            "ca.key",
        ];
        this.run(&key, b"");
        let request = [
            "req",
            "-new",
            "-key",
            "ca.key",
            "-subj",
            "/CN=enclave",
            "-out",
            "ca.csr",
        ];
        this.run(&request, b"");
        let extensions = this.folder.path().join("ext");
        std::fs::write(extensions, "subjectKeyIdentifier=hash\n").unwrap();
        this
    }

    fn run(&self, arguments: &[&str], input: &[u8]) -> Vec<u8> {
        let mut process = Command::new("openssl")
            .args(arguments)
            .current_dir(self.folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("these tests need the openssl command: apt-get install openssl");
        // Commands that take no input may have ended already.
        let _ = process.stdin.take().unwrap().write_all(input);
        let output = process.wait_with_output().unwrap();
        let problem = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "openssl {arguments:?}: {problem}");
        output.stdout
    }

    /// CMS EnvelopedData for the owner of an RSA key: as KMS writes it (BER, in chunks), or in DER.
    pub fn envelope(&self, public_key: &[u8], content: &[u8], stream: bool) -> Vec<u8> {
        let certificate = self.certificate(public_key);
        let mut arguments = vec![
            "cms",
            "-encrypt",
            "-binary",
            "-aes-256-cbc",
            "-outform",
            "DER",
            "-keyid",
            "-recip",
            certificate.to_str().unwrap(),
            "-keyopt",
            "rsa_padding_mode:oaep",
            "-keyopt",
            "rsa_oaep_md:sha256",
            "-keyopt",
            "rsa_mgf1_md:sha256",
        ];
        if stream {
            arguments.push("-stream");
        }
        self.run(&arguments, content)
    }

    fn certificate(&self, public_key: &[u8]) -> PathBuf {
        let mut certificates = self.certificates.lock().unwrap();
        let count = certificates.len();
        let make = || {
            let key = self.run(&["pkey", "-pubin", "-inform", "DER"], public_key);
            let (key_file, file) = (format!("{count}.pub"), format!("{count}.pem"));
            std::fs::write(self.folder.path().join(&key_file), key).unwrap();
            let arguments = [
                "x509",
                "-req",
                "-in",
                "ca.csr",
                "-signkey",
                "ca.key",
                "-force_pubkey",
                &key_file,
                "-extfile",
                "ext",
                "-out",
                &file,
            ];
            self.run(&arguments, b"");
            self.folder.path().join(file)
        };
        certificates
            .entry(public_key.to_vec())
            .or_insert_with(make)
            .clone()
    }

    pub fn sha256(&self, message: &[u8]) -> Vec<u8> {
        self.run(&["dgst", "-sha256", "-binary"], message)
    }

    pub fn hmac_sha256(&self, key: &[u8], message: &[u8]) -> Vec<u8> {
        let key = format!("hexkey:{}", hex::encode(key));
        let arguments = [
            "dgst", "-sha256", "-mac", "HMAC", "-macopt", &key, "-binary",
        ];
        self.run(&arguments, message)
    }
}
