//! Certificates.

use std::{
    fs,
    path::Path,
    sync::atomic::{AtomicU8, Ordering},
};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

/// Two addresses of this machine that nobody else has, neither in this run of the tests nor in another.
pub fn addresses() -> [String; 2] {
    static COUNT: AtomicU8 = AtomicU8::new(1);
    let (pid, n) = (std::process::id(), COUNT.fetch_add(2, Ordering::Relaxed));
    [n, n + 1].map(|n| format!("127.{}.{}.{n}", pid >> 8 & 0xff, pid & 0xff))
}

/// Who signs certificates, as a file; and a certificate with its key for this address.
pub fn certificates(directory: &Path, address: &str) -> (String, String, String) {
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().expect("a key");
    let signed = authority.self_signed(&key).expect("a certificate");
    let of_server = KeyPair::generate().expect("a key");
    let mut server = CertificateParams::new(vec![address.to_owned()]).expect("an address");
    server.distinguished_name.push(DnType::CommonName, "not that of the authority");
    let server = server.signed_by(&of_server, &Issuer::new(authority, key)).expect("a certificate");
    (file(directory, &format!("{address}.crt"), &signed.pem()), server.pem(), of_server.serialize_pem())
}

pub fn file(directory: &Path, name: &str, text: &str) -> String {
    let file = directory.join(name);
    fs::write(&file, text).expect("the file");
    file.display().to_string()
}
