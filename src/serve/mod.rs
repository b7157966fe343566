//! The store's tables over Arrow Flight SQL: what `triad query` reads, for JDBC, ADBC and whatever
//! is built on them. Reading only, and no files of the machine that serves.
//!
//! Nothing is kept between requests: a ticket and the handle of a prepared statement are the SQL
//! itself, so any number of servers can stand behind one address.

mod listing;
mod service;

use std::future::Future;
use std::path::Path;

use arrow_flight::flight_service_server::FlightServiceServer;
use tokio::net::TcpListener;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Identity, Server, ServerTlsConfig};
use tonic::{Request, Status};

use crate::store::Store;
use crate::{Error, Result};

/// Who may ask, and how.
#[derive(Default)]
pub struct Access {
    /// What `authorization: Bearer …` must say.
    pub token: Option<String>,
    /// Certificate chain and private key, PEM.
    pub tls: Option<(Vec<u8>, Vec<u8>)>,
}

impl Access {
    /// Reads the certificate and the key.
    pub fn tls(certificate: &Path, key: &Path) -> Result<(Vec<u8>, Vec<u8>)> {
        let read = |path: &Path| {
            std::fs::read(path).map_err(|e| Error::usage(format!("{}: {e}", path.display())))
        };
        Ok((read(certificate)?, read(key)?))
    }
}

/// Answers on `listener` until `stop`; what is under way then is finished.
///
/// # Errors
/// `Usage` for a certificate or key that is none.
pub async fn serve(
    store: &Store,
    listener: TcpListener,
    access: Access,
    stop: impl Future<Output = ()>,
) -> Result<()> {
    let mut server = Server::builder();
    if let Some((certificate, key)) = access.tls {
        let tls = ServerTlsConfig::new().identity(Identity::from_pem(certificate, key));
        server = server.tls_config(tls).map_err(|e| Error::usage(format!("certificate: {e}")))?;
    }
    let service = FlightServiceServer::new(service::Tables::new(store));
    let wanted = access.token.map(|token| format!("Bearer {token}"));
    let guarded =
        InterceptedService::new(service, move |request| admit(request, wanted.as_deref()));
    let served = server
        .add_service(guarded)
        .serve_with_incoming_shutdown(TcpIncoming::from(listener).with_nodelay(Some(true)), stop);
    served.await.map_err(|e| Error::try_again(format!("serving: {e}")))
}

fn admit(request: Request<()>, wanted: Option<&str>) -> std::result::Result<Request<()>, Status> {
    let Some(wanted) = wanted else { return Ok(request) };
    let given = request.metadata().get("authorization").map(|value| value.as_bytes());
    // Compared as digests: the time it takes says nothing of the token.
    match given {
        Some(given) if blake3::hash(given) == blake3::hash(wanted.as_bytes()) => Ok(request),
        Some(_) => Err(Status::unauthenticated("this is not the token")),
        None => Err(Status::unauthenticated("a token is needed: authorization: Bearer …")),
    }
}
