//! The listener's certificate: read, and read again when it is renewed. Connections that are open keep theirs.

use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use sha2::{Digest as _, Sha256};

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {file}: {source}")]
    File {
        /// The file.
        file: String,
        /// Why.
        source: std::io::Error,
    },
    /// A file does not hold what it should.
    #[error("{file} holds no {what} in PEM")]
    Pem {
        /// The file.
        file: String,
        /// What was looked for.
        what: &'static str,
    },
    /// They do not belong together, or are of a kind that is not known.
    #[error("certificate and key cannot be used: {0}")]
    Pair(rustls::Error),
}

/// The certificate in use, and where it comes from.
#[derive(Debug)]
pub struct Certificate {
    chain: PathBuf,
    key: PathBuf,
    provider: Arc<CryptoProvider>,
    current: RwLock<Current>,
}

#[derive(Debug)]
struct Current {
    /// Of the files' content.
    hash: [u8; 32],
    certified: Arc<CertifiedKey>,
}

impl Certificate {
    /// Reads both files.
    ///
    /// # Errors
    /// When they cannot be used.
    pub fn read(chain: PathBuf, key: PathBuf) -> Result<Arc<Self>, TlsError> {
        let provider = Arc::new(default_provider());
        let files = Files::read(&chain, &key)?;
        let current = RwLock::new(Current { hash: files.hash(), certified: Arc::new(files.certified(&provider)?) });
        Ok(Arc::new(Self { chain, key, provider, current }))
    }

    /// Looks whether the files have changed, and uses what is in them; whether they had.
    ///
    /// # Errors
    /// When they cannot be used, perhaps because only one of them has been replaced so far; the last good pair stays.
    pub fn renew(&self) -> Result<bool, TlsError> {
        let files = Files::read(&self.chain, &self.key)?;
        let hash = files.hash();
        if self.current.read().unwrap_or_else(PoisonError::into_inner).hash == hash {
            return Ok(false);
        }
        let certified = Arc::new(files.certified(&self.provider)?);
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Current { hash, certified };
        Ok(true)
    }

    /// How connections are accepted with it.
    ///
    /// # Errors
    /// When the library offers no protocol version, which would be a defect of the build.
    pub fn server_config(self: &Arc<Self>) -> Result<ServerConfig, TlsError> {
        let config = ServerConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Pair)?;
        let mut config =
            config.with_no_client_auth().with_cert_resolver(Arc::clone(self) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner).certified))
    }
}

struct Files<'a> {
    chain: (&'a PathBuf, Vec<u8>),
    key: (&'a PathBuf, Vec<u8>),
}

impl<'a> Files<'a> {
    fn read(chain: &'a PathBuf, key: &'a PathBuf) -> Result<Self, TlsError> {
        let read = |path: &'a PathBuf| match std::fs::read(path) {
            Ok(content) => Ok((path, content)),
            Err(source) => Err(TlsError::File { file: path.display().to_string(), source }),
        };
        Ok(Self { chain: read(chain)?, key: read(key)? })
    }

    fn hash(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        for content in [&self.chain.1, &self.key.1] {
            hash.update((content.len() as u64).to_le_bytes());
            hash.update(content);
        }
        hash.finalize().into()
    }

    fn certified(&self, provider: &CryptoProvider) -> Result<CertifiedKey, TlsError> {
        let wrong = |path: &PathBuf, what| TlsError::Pem { file: path.display().to_string(), what };
        let chain: Vec<_> = CertificateDer::pem_slice_iter(&self.chain.1)
            .collect::<Result<_, _>>()
            .map_err(|_| wrong(self.chain.0, "certificate"))?;
        if chain.is_empty() {
            return Err(wrong(self.chain.0, "certificate"));
        }
        let key = PrivateKeyDer::from_pem_slice(&self.key.1).map_err(|_| wrong(self.key.0, "private key"))?;
        // Checks that the two belong together.
        CertifiedKey::from_der(chain, key, provider).map_err(TlsError::Pair)
    }
}
