//! The cryptography behind tokens: ring, which is in the tree for TLS. Only checks signatures; nobody signs here.

use jsonwebtoken::crypto::{CryptoProvider, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::{ErrorKind, Result};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, DecodingKeyKind};
use ring::{hmac, signature};
use signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384,
    RSA_PKCS1_2048_8192_SHA512, RSA_PSS_2048_8192_SHA256, RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512,
    RsaParameters, RsaPublicKeyComponents, UnparsedPublicKey, VerificationAlgorithm,
};

static PROVIDER: CryptoProvider = CryptoProvider {
    signer_factory: |_, _| Err(ErrorKind::InvalidAlgorithm.into()),
    verifier_factory: |algorithm, key| Ok(Box::new(Verifier::new(*algorithm, key)?)),
    // For making key sets, which nobody does here.
    key_utils: KeyUtils::new_unimplemented(),
};

/// Makes it the one of this process.
pub(super) fn install() {
    // A second authenticator in one process, as in tests, finds it installed.
    let _ = PROVIDER.install_default();
}

#[derive(Clone, Copy)]
enum Method {
    Hmac(hmac::Algorithm),
    Rsa(&'static RsaParameters),
    Curve(&'static dyn VerificationAlgorithm),
}

impl Method {
    fn of(algorithm: Algorithm) -> (Self, AlgorithmFamily) {
        use AlgorithmFamily::{Ec, Ed, Hmac, Rsa};
        match algorithm {
            Algorithm::HS256 => (Self::Hmac(hmac::HMAC_SHA256), Hmac),
            Algorithm::HS384 => (Self::Hmac(hmac::HMAC_SHA384), Hmac),
            Algorithm::HS512 => (Self::Hmac(hmac::HMAC_SHA512), Hmac),
            Algorithm::RS256 => (Self::Rsa(&RSA_PKCS1_2048_8192_SHA256), Rsa),
            Algorithm::RS384 => (Self::Rsa(&RSA_PKCS1_2048_8192_SHA384), Rsa),
            Algorithm::RS512 => (Self::Rsa(&RSA_PKCS1_2048_8192_SHA512), Rsa),
            Algorithm::PS256 => (Self::Rsa(&RSA_PSS_2048_8192_SHA256), Rsa),
            Algorithm::PS384 => (Self::Rsa(&RSA_PSS_2048_8192_SHA384), Rsa),
            Algorithm::PS512 => (Self::Rsa(&RSA_PSS_2048_8192_SHA512), Rsa),
            Algorithm::ES256 => (Self::Curve(&ECDSA_P256_SHA256_FIXED), Ec),
            Algorithm::ES384 => (Self::Curve(&ECDSA_P384_SHA384_FIXED), Ec),
            Algorithm::EdDSA => (Self::Curve(&ED25519), Ed),
        }
    }
}

struct Verifier {
    algorithm: Algorithm,
    method: Method,
    key: DecodingKey,
}

impl Verifier {
    /// The key must be of the algorithm's family: a public key is never taken for the secret of an HMAC.
    fn new(algorithm: Algorithm, key: &DecodingKey) -> Result<Self> {
        let (method, family) = Method::of(algorithm);
        if key.family() != family {
            return Err(ErrorKind::InvalidKeyFormat.into());
        }
        Ok(Self { algorithm, method, key: key.clone() })
    }

    fn is_good(&self, message: &[u8], signature: &[u8]) -> bool {
        match (self.method, self.key.kind()) {
            (Method::Hmac(algorithm), DecodingKeyKind::SecretOrDer(secret)) => {
                hmac::verify(&hmac::Key::new(algorithm, secret), message, signature).is_ok()
            }
            (Method::Rsa(parameters), DecodingKeyKind::RsaModulusExponent { n, e }) => {
                RsaPublicKeyComponents { n, e }.verify(parameters, message, signature).is_ok()
            }
            (Method::Curve(algorithm), DecodingKeyKind::SecretOrDer(point)) => {
                UnparsedPublicKey::new(algorithm, point).verify(message, signature).is_ok()
            }
            _ => false,
        }
    }
}

impl ::signature::Verifier<Vec<u8>> for Verifier {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> std::result::Result<(), ::signature::Error> {
        if self.is_good(message, signature) { Ok(()) } else { Err(::signature::Error::new()) }
    }
}

impl JwtVerifier for Verifier {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}
