//! `arca witness`

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use arca_audit::note::{KeyKind, KeyName, VerifierKey};
use arca_client::audit::Witness;
use arca_client::{Error, keyfile};
use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};

use crate::cli::Context;

#[derive(clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "Examples:\n  arca witness key witness.pem --name witness.example/w1\n  \
                  arca witness --listen 127.0.0.1:7300 --state witness --key witness.pem --name witness.example/w1 --logs logs.txt\n\n\
                  An external witness for logs, as C2SP tlog-witness has it: POST /add-checkpoint. It cosigns a checkpoint once \
                  it continues the last one of its log and is on disk. What it has seen is in --state: a witness whose state is \
                  lost needs a new key. It speaks plain HTTP; what it sends and gets is signed, and public."
)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// Where to listen
    #[arg(long, value_name = "ADDR", required = true)]
    listen: Option<SocketAddr>,
    /// The folder with what it has seen; begun where it is not there
    #[arg(long, value_name = "DIR", required = true)]
    state: Option<PathBuf>,
    /// Its key, as `arca witness key` made it
    #[arg(long = "key", value_name = "FILE", required = true)]
    key_file: Option<PathBuf>,
    /// Its name, such as witness.example/w1
    #[arg(long, value_name = "NAME", required = true)]
    name: Option<KeyName>,
    /// A log that it witnesses, as a C2SP verifier key; repeatable
    #[arg(long, value_name = "VKEY")]
    log: Vec<VerifierKey>,
    /// A file of such keys, one a line; lines that begin with # are not read
    #[arg(long, value_name = "FILE")]
    logs: Option<PathBuf>,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Make a witness' key and show what others verify with
    #[command(after_help = "Examples:\n  arca witness key witness.pem --name witness.example/w1")]
    Key {
        /// A new file
        file: PathBuf,
        /// The witness' name
        #[arg(long)]
        name: KeyName,
    },
}

#[derive(Serialize)]
struct Made {
    file: PathBuf,
    verifier_key: String,
}

#[derive(Serialize)]
struct Serving {
    listen: SocketAddr,
    verifier_key: String,
    logs: Vec<Log>,
}

#[derive(Serialize)]
struct Log {
    origin: String,
    size: u64,
}

pub(crate) async fn run(context: &Context, arguments: Arguments) -> anyhow::Result<()> {
    if let Some(Command::Key { file, name }) = arguments.command {
        return make_key(context, file, name);
    }
    let (Some(listen), Some(state), Some(key_file), Some(name)) = (
        arguments.listen,
        arguments.state,
        arguments.key_file,
        arguments.name,
    ) else {
        return Err(Error::Bug("clap asks for these".to_owned()).into());
    };
    let mut logs = arguments.log;
    if let Some(path) = &arguments.logs {
        logs.extend(read_logs(path)?);
    }
    if logs.is_empty() {
        return Err(Error::Input {
            subject: "--log, --logs".to_owned(),
            problem: "name no log".to_owned(),
        }
        .into());
    }
    let key = keyfile::read_administrator(&key_file)?;
    let witness = Witness::open(&state, name, key, logs)?;
    // Before it is told that it serves: whoever reads that may ask it to stop.
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let listener = tokio::net::TcpListener::bind(listen)
        .await
        .map_err(|cause| Error::Config {
            subject: listen.to_string(),
            problem: format!("cannot be listened on: {cause}"),
            advice: "name another address".to_owned(),
        })?;
    let serving = Serving {
        listen: listener.local_addr()?,
        verifier_key: witness.verifier_key().to_string(),
        logs: witness
            .sizes()
            .into_iter()
            .map(|(origin, size)| Log {
                origin: origin.to_string(),
                size,
            })
            .collect(),
    };
    context.output.show(&serving, |page| {
        page.fields([
            (
                "listens on",
                format!("http://{}/add-checkpoint", serving.listen),
            ),
            ("verifier key", serving.verifier_key.clone()),
        ]);
        let rows: Vec<Vec<String>> = serving
            .logs
            .iter()
            .map(|log| vec![log.origin.clone(), log.size.to_string()])
            .collect();
        page.table(&["log", "seen"], &rows);
    })?;
    let stop = async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    };
    witness.serve(listener, stop).await?;
    Ok(())
}

fn make_key(context: &Context, file: PathBuf, name: KeyName) -> anyhow::Result<()> {
    let key = keyfile::generate_administrator(&file)?;
    let made = Made {
        file,
        verifier_key: VerifierKey::of_signing_key(name, KeyKind::CosignatureV1, &key).to_string(),
    };
    context.output.show(&made, |page| {
        page.fields([
            ("key", made.file.display().to_string()),
            ("verifier key", made.verifier_key.clone()),
        ]);
    })
}

fn read_logs(path: &Path) -> Result<Vec<VerifierKey>, Error> {
    let wrong = |problem: String| Error::Config {
        subject: path.display().to_string(),
        problem,
        advice: "it has a verifier key on each line, as `arca audit checkpoint` shows them"
            .to_owned(),
    };
    let text =
        std::fs::read_to_string(path).map_err(|cause| wrong(format!("cannot be read: {cause}")))?;
    let lines = (1..).zip(text.lines().map(str::trim));
    lines
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
        .map(|(number, line)| {
            line.parse()
                .map_err(|cause| wrong(format!("line {number}: {cause}")))
        })
        .collect()
}
