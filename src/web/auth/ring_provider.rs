//! The cryptography behind tokens: ring, which is in the tree for TLS. Only checks signatures; nobody signs here.

use jsonwebtoken::crypto::{CryptoProvider, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::{ErrorKind, Result};
use jsonwebtoken::signature as plug;
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
    fn of(algorithm: Algorithm) -> Option<(Self, AlgorithmFamily)> {
        use AlgorithmFamily::{Ec, Ed, Hmac, Rsa};
        Some(match algorithm {
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
            _ => return None,
        })
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
        match Method::of(algorithm) {
            Some((method, family)) if key.family() == family => Ok(Self { algorithm, method, key: key.clone() }),
            Some(_) => Err(ErrorKind::InvalidKeyFormat.into()),
            None => Err(ErrorKind::InvalidAlgorithm.into()),
        }
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

impl plug::Verifier<Vec<u8>> for Verifier {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> std::result::Result<(), plug::Error> {
        if self.is_good(message, signature) { Ok(()) } else { Err(plug::Error::new()) }
    }
}

impl JwtVerifier for Verifier {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use plug::Verifier as _;

    use super::*;

    /// The examples of RFC 7515, appendix A: header, payload, signature.
    const PAYLOAD: &str =
        "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";

    fn says(algorithm: Algorithm, key: &DecodingKey, header: &str, signature: &str) -> bool {
        let message = format!("{header}.{PAYLOAD}");
        let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
        let good = Verifier::new(algorithm, key).unwrap();
        for at in [0, message.len() / 2, message.len() - 1] {
            let mut changed = message.clone().into_bytes();
            changed[at] ^= 1;
            assert!(good.verify(&changed, &signature).is_err(), "a changed byte is noticed");
        }
        for wrong in [&signature[1..], &signature[..signature.len() - 1], &[]] {
            assert!(good.verify(message.as_bytes(), &wrong.to_vec()).is_err(), "a cut signature is noticed");
        }
        good.verify(message.as_bytes(), &signature).is_ok()
    }

    #[test]
    fn the_published_examples_are_good() {
        let secret = "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow";
        let key = DecodingKey::from_secret(&URL_SAFE_NO_PAD.decode(secret).unwrap());
        let header = "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9";
        assert!(says(Algorithm::HS256, &key, header, "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"));

        let n = "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ";
        let key = DecodingKey::from_rsa_components(n, "AQAB").unwrap();
        let signature = "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw";
        assert!(says(Algorithm::RS256, &key, "eyJhbGciOiJSUzI1NiJ9", signature));

        let key = DecodingKey::from_ec_components(
            "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
            "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
        )
        .unwrap();
        let signature = "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q";
        assert!(says(Algorithm::ES256, &key, "eyJhbGciOiJFUzI1NiJ9", signature));
    }

    #[test]
    fn a_key_of_another_family_is_refused_for_every_algorithm() {
        use Algorithm::{ES256, ES384, EdDSA, HS256, HS384, HS512, PS256, PS384, PS512, RS256, RS384, RS512};
        let keys = [
            DecodingKey::from_secret(b"secret"),
            DecodingKey::from_rsa_raw_components(&[1; 256], &[1, 0, 1]),
            DecodingKey::from_ec_der(&[4; 65]),
            DecodingKey::from_ed_der(&[4; 32]),
        ];
        for algorithm in [HS256, HS384, HS512, RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, EdDSA] {
            let taken = keys.iter().filter(|key| Verifier::new(algorithm, key).is_ok()).count();
            assert_eq!(taken, 1, "{algorithm:?}");
        }
    }
}
