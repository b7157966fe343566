//! `triad serve`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use tokio::net::TcpListener;

use super::{Globals, environment, output, signals};
use crate::serve::{Access, serve};
use crate::{Error, Result};

/// How long queries that are under way may take once the server is to stop.
const GRACE: Duration = Duration::from_secs(10);

#[derive(Args)]
pub(super) struct Serve {
    /// Where to answer; beyond loopback a token is needed (TRIAD_SERVE_TOKEN)
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8815")]
    listen: SocketAddr,
    /// Speak TLS with this certificate chain, PEM
    #[arg(long, value_name = "FILE", requires = "key")]
    certificate: Option<PathBuf>,
    /// The certificate's private key, PEM
    #[arg(long, value_name = "FILE", requires = "certificate")]
    key: Option<PathBuf>,
}

impl Serve {
    pub async fn execute(self, globals: &Globals) -> Result<()> {
        let token = std::env::var(environment::SERVE_TOKEN).ok().filter(|token| !token.is_empty());
        if token.is_none() && !self.listen.ip().is_loopback() {
            return Err(Error::usage(format!(
                "--listen {}: others could read the store; set {} to a secret that clients send",
                self.listen,
                environment::SERVE_TOKEN
            )));
        }
        let tls = match (&self.certificate, &self.key) {
            (Some(certificate), Some(key)) => Some(Access::tls(certificate, key)?),
            _ => None,
        };
        let store = globals.open_store()?;
        // A store that cannot be read is said now, not to the first client.
        store.names().await?;
        let listener = TcpListener::bind(self.listen)
            .await
            .map_err(|e| Error::usage(format!("--listen {}: {e}", self.listen)))?;
        let address = listener.local_addr().map_err(Error::defect)?;
        let scheme = if tls.is_some() { "grpc+tls" } else { "grpc" };
        output::line(format!("Flight SQL on {scheme}://{address}, until Ctrl-C"))?;
        let (stop, again) = (signals::first()?, signals::first()?);
        tokio::select! {
            served = serve(&store, listener, Access { token, tls }, stop) => served,
            // Queries that are under way end with the process.
            () = async { again.await; tokio::time::sleep(GRACE).await } => Ok(()),
        }
    }
}
