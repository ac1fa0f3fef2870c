//! TLS to a server: which certificates are trusted, and which is shown.

use std::{
    fmt::Display,
    io,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use sqlx::postgres::PgSslMode;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{
        CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
        client::{
            WebPkiServerVerifier,
            danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
            verify_server_name,
        },
        crypto::{CryptoProvider, ring::default_provider},
        pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
        server::ParsedCertificate,
        sign::{CertifiedKey, SingleCertAndKey},
    },
};

/// In front of the startup message: the request to go on encrypted.
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];

/// What is asked for.
#[derive(Debug, Clone)]
pub(super) struct Encryption {
    pub mode: PgSslMode,
    /// The name that the server's certificate must have, with `verify-full`.
    pub name: String,
    /// The file of those who may have signed it; `None` for the authorities of the operating system.
    pub roots: Option<PathBuf>,
    /// The files of the client's own certificate and its key.
    pub identity: Option<[PathBuf; 2]>,
}

impl Encryption {
    /// Starts TLS; `None` if the server does not support it.
    pub async fn encrypt(
        &self,
        mut stream: TcpStream,
        config: ClientConfig,
    ) -> io::Result<Option<TlsStream<TcpStream>>> {
        let name = match ServerName::try_from(self.name.clone()) {
            Ok(name) => name,
            Err(error) if self.verifies() => return Err(unusable("host", &self.name, error)),
            // Such as an address with a zone. The name is not verified in this mode.
            Err(_) => IpAddr::from([0; 4]).into(),
        };
        stream.write_all(&SSL_REQUEST).await?;
        // One byte and no more: what came after it without encryption would count as said by the server.
        match stream.read_u8().await? {
            b'S' => TlsConnector::from(Arc::new(config)).connect(name, stream).await.map(Some),
            b'N' => Ok(None),
            _ => Err(io::Error::other("the server does not answer whether it encrypts")),
        }
    }

    fn verifies(&self) -> bool {
        matches!(self.mode, PgSslMode::VerifyCa | PgSslMode::VerifyFull)
    }

    /// Reads the files, which may have been renewed since the last time.
    pub fn config(&self) -> io::Result<ClientConfig> {
        let provider = Arc::new(default_provider());
        let verifier = Arc::new(self.verifier(&provider)?);
        let config = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(invalid)?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let Some([certificate, key]) = &self.identity else { return Ok(config.with_no_client_auth()) };
        let chain = certificates("sslcert", certificate)?;
        let key = PrivateKeyDer::from_pem_file(key)
            .map_err(|error| error.to_string())
            .and_then(|der| provider.key_provider.load_private_key(der).map_err(|error| error.to_string()))
            .map_err(|error| unusable("sslkey", key.display(), error))?;
        // The other ways parse the certificate, and refuse one of version 1. Whether it fits the key, the server says.
        let identity = SingleCertAndKey::from(CertifiedKey::new(chain, key));
        Ok(config.with_client_cert_resolver(Arc::new(identity)))
    }

    fn verifier(&self, provider: &Arc<CryptoProvider>) -> io::Result<Verifier> {
        let schemes = provider.signature_verification_algorithms.supported_schemes();
        if !self.verifies() {
            return Ok(Verifier { authorities: None, pinned: Vec::new(), has_names: false, schemes });
        }
        let (trusted, pinned) = match &self.roots {
            None => (rustls_native_certs::load_native_certs().certs, Vec::new()),
            Some(file) => {
                let given = certificates("sslrootcert", file)?;
                (given.clone(), given)
            }
        };
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(trusted);
        let authorities = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone());
        let authorities = authorities.build().map_err(|_| match &self.roots {
            None => invalid("this machine has no certificates of authorities: name a file with sslrootcert"),
            Some(file) => unusable("sslrootcert", file.display(), "no certificate in it can be used"),
        })?;
        let has_names = matches!(self.mode, PgSslMode::VerifyFull);
        Ok(Verifier { authorities: Some(authorities), pinned, has_names, schemes })
    }
}

/// All certificates in a file, at least one.
fn certificates(parameter: &str, file: &Path) -> io::Result<Vec<CertificateDer<'static>>> {
    let unusable = |error: &dyn Display| unusable(parameter, file.display(), error);
    let found = CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match found {
        Ok(found) if found.is_empty() => Err(unusable(&"it holds no certificate")),
        found => found.map_err(|error| unusable(&error)),
    }
}

fn unusable(parameter: &str, value: impl Display, error: impl Display) -> io::Error {
    invalid(format!("{parameter} {value}: {error}"))
}

fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// Verifies what the mode asks for.
#[derive(Debug)]
struct Verifier {
    /// Without it, no certificate is verified or parsed: the identity of the server is not checked in any case.
    authorities: Option<Arc<WebPkiServerVerifier>>,
    /// The certificates of the given file. The server's own may be among them.
    pinned: Vec<CertificateDer<'static>>,
    has_names: bool,
    schemes: Vec<SignatureScheme>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        use CertificateError::{NotValidForName, NotValidForNameContext, Other};
        let valid = ServerCertVerified::assertion();
        let Some(authorities) = &self.authorities else { return Ok(valid) };
        let is_pinned = self.pinned.contains(end_entity);
        let verified = authorities.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        let verified = match verified {
            // That of an authority is none of a server, except if it is the very one that is trusted. Its dates are
            // right.
            Err(Error::InvalidCertificate(Other(_))) if is_pinned => {
                verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name).map(|()| valid)
            }
            verified => verified,
        };
        match verified {
            Err(Error::InvalidCertificate(NotValidForName | NotValidForNameContext { .. })) if !self.has_names => {
                Ok(ServerCertVerified::assertion())
            }
            // As libpq: without alternative names, the common name counts. Here only where no authority is in between.
            Err(Error::InvalidCertificate(NotValidForNameContext { presented, .. }))
                if is_pinned && presented.is_empty() && has_common_name(end_entity, server_name) =>
            {
                Ok(ServerCertVerified::assertion())
            }
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let Some(authorities) = &self.authorities else { return Ok(HandshakeSignatureValid::assertion()) };
        authorities.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let Some(authorities) = &self.authorities else { return Ok(HandshakeSignatureValid::assertion()) };
        authorities.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes.clone()
    }
}

/// Whether this host is the common name of the certificate's subject: there, it follows the attribute's identifier and
/// the type of its text.
fn has_common_name(certificate: &CertificateDer<'_>, host: &ServerName<'_>) -> bool {
    const COMMON_NAME: [u8; 5] = [0x06, 0x03, 0x55, 0x04, 0x03];
    const UTF8: u8 = 0x0c;
    const PRINTABLE: u8 = 0x13;
    let mut parsed = RootCertStore::empty();
    parsed.add_parsable_certificates([certificate.clone()]);
    let (host, Some(anchor)) = (host.to_str(), parsed.roots.first()) else { return false };
    let Ok(length) = u8::try_from(host.len()) else { return false };
    [UTF8, PRINTABLE].iter().any(|kind| {
        let attribute = [&COMMON_NAME[..], &[*kind, length], host.as_bytes()].concat();
        anchor.subject.as_ref().windows(attribute.len()).any(|part| part == attribute)
    })
}
