//! Encryption between the task and the pooler, which the driver cannot do for it.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{
        ClientConfig, RootCertStore,
        crypto::ring::default_provider,
        pki_types::{CertificateDer, ServerName, pem::PemObject},
    },
};

/// In front of the startup message: the request to go on encrypted.
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];

/// Whom to trust, with `sslmode=verify-full`.
#[derive(Clone)]
pub(crate) struct Trust {
    /// The file of the certificates that may have signed the pooler's; `None` for those of the operating system.
    pub root_certificates: Option<PathBuf>,
}

/// Goes on encrypted, with whoever proves to be this host.
pub(super) async fn encrypt(mut stream: TcpStream, host: &str, trust: &Trust) -> io::Result<TlsStream<TcpStream>> {
    let invalid = |error: &dyn std::error::Error| io::Error::new(io::ErrorKind::InvalidData, error.to_string());
    let roots = roots(trust.root_certificates.as_deref())?;
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| invalid(&error))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from(host.to_owned()).map_err(|error| invalid(&error))?;
    stream.write_all(&SSL_REQUEST).await?;
    // One byte and no more: what came after it without encryption would count as said by the pooler.
    match stream.read_u8().await? {
        b'S' => TlsConnector::from(Arc::new(config)).connect(name, stream).await,
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "the pooler does not support TLS")),
    }
}

fn roots(file: Option<&Path>) -> io::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    let Some(file) = file else {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        return Ok(roots);
    };
    let unusable = |error: &dyn std::error::Error| {
        io::Error::new(io::ErrorKind::InvalidData, format!("sslrootcert {}: {error}", file.display()))
    };
    for certificate in CertificateDer::pem_file_iter(file).map_err(|error| unusable(&error))? {
        roots.add(certificate.map_err(|error| unusable(&error))?).map_err(|error| unusable(&error))?;
    }
    Ok(roots)
}
