//! Settings about who may see what, and what nobody may see.

use super::{Section, integer, list, secret, text};
use crate::config::forms;

pub(super) const AUTH: Section = Section {
    name: "auth",
    doc: "Who may connect: JSON Web Tokens. Without a secret and without keys there is no authentication.",
    settings: &[
        secret(
            "auth.jwt_secret",
            "DASHSTREAM_AUTH_JWT_SECRET",
            forms::JWT_SECRET,
            "Secret of tokens signed by HS256, HS384 or HS512.",
        ),
        text(
            "auth.jwks",
            "DASHSTREAM_AUTH_JWKS",
            "",
            forms::JWKS,
            "Public keys of tokens signed by RS, PS, ES or EdDSA algorithms: a JWKS file, or its address.",
        ),
        integer(
            "auth.jwks_refresh_secs",
            "DASHSTREAM_AUTH_JWKS_REFRESH_SECS",
            300,
            5..=86_400,
            "seconds",
            "How often the keys are read again; a token with an unknown key has them read at once.",
        ),
        text("auth.issuer", "DASHSTREAM_AUTH_ISSUER", "", forms::LABEL, "What the claim iss must say."),
        text("auth.audience", "DASHSTREAM_AUTH_AUDIENCE", "", forms::LABEL, "What the claim aud must name."),
        text(
            "auth.tenant_claim",
            "DASHSTREAM_AUTH_TENANT_CLAIM",
            "tenants",
            forms::CLAIM,
            "The claim with the tenants that a client may see, a text or a list. Without the claim it sees nothing, unless the token has the scope dashstream:all_tenants.",
        ),
        text(
            "auth.thread_claim",
            "DASHSTREAM_AUTH_THREAD_CLAIM",
            "threads",
            forms::CLAIM,
            "The claim with the threads that a client may see. Without the claim it sees all of its tenants' threads.",
        ),
        text(
            "auth.partition_claim",
            "DASHSTREAM_AUTH_PARTITION_CLAIM",
            "partitions",
            forms::CLAIM,
            "The claim with the partitions that a client may know of, a number or a list. Without the claim it knows of all of them.",
        ),
        integer(
            "auth.leeway_secs",
            "DASHSTREAM_AUTH_LEEWAY_SECS",
            30,
            1..=300,
            "seconds",
            "How far clocks may differ when exp and nbf are checked.",
        ),
    ],
};

pub(super) const REDACT: Section = Section {
    name: "redact",
    doc: "What is blacked out in records before they are kept or shown. Without rules no byte is changed.",
    settings: &[
        list(
            "redact.fields",
            "DASHSTREAM_REDACT_FIELDS",
            forms::FIELD_PATH,
            "Fields whose text or bytes are replaced. * stands for one name or map key, ** for any number of them.",
        ),
        list(
            "redact.patterns",
            "DASHSTREAM_REDACT_PATTERNS",
            forms::PATTERN,
            "Regular expressions whose matches are replaced, in every text and bytes field. One with a comma has to stand in the file.",
        ),
    ],
};
