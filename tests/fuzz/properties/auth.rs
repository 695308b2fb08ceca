//! What must hold for any bytes of a SCRAM message or verifier. Used by the fuzz targets and, with
//! few inputs, by `auth/tests/mutation.rs`.

use pgimbal_auth::Channel;
use pgimbal_auth::md5::Md5Hash;
use pgimbal_auth::scram::client::ScramClient;
use pgimbal_auth::scram::server::ScramServer;
use pgimbal_auth::scram::{MECHANISM, MECHANISM_PLUS, NONCE_LEN};
use pgimbal_auth::verifier::ScramVerifier;

#[path = "../property.rs"]
mod property;
use property::Property;

pub(crate) const PROPERTIES: &[Property] = &[
    Property {
        name: "scram_server",
        inputs: 16_000,
        check: scram_server,
        seeds: &[
            b"n,,n=,r=abc\nc=biws,r=abcAAAAAAAAAAAAAAAAAAAAAAAA,p=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
            b"y,,n=x,r=abc\nc=eSws,r=abc,p=AA==",
            b"p=tls-server-end-point,,n=,r=abc\nc=cD10,r=abc,p=AA==",
        ],
    },
    Property {
        name: "scram_client",
        inputs: 30_000,
        check: scram_client,
        seeds: &[b"r=AAAAAAAAAAAAAAAAAAAAAAAAx,s=c2FsdA==,i=2\nv=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="],
    },
    Property {
        name: "verifier",
        inputs: 500_000,
        check: verifier,
        seeds: &[
            b"SCRAM-SHA-256$4096:c2FsdA==$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
            b"md5ab5de13e8ed4b0ac5ba0b5a2b0d8ddd7",
        ],
    },
];

/// A client's first message and proof, separated by a newline. No proof is right by accident.
pub(crate) fn scram_server(data: &[u8]) {
    let mut parts = data.splitn(2, |byte| *byte == b'\n');
    let (first, last) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let verifier = ScramVerifier::of_password(b"pencil", b"salt", 1);
    for channel in [Channel::Plain, Channel::Tls { end_point: Some(b"hash") }] {
        for mechanism in [MECHANISM, MECHANISM_PLUS] {
            let begun =
                ScramServer::begin(channel, mechanism.as_bytes(), first, &verifier, [0; NONCE_LEN]);
            let Ok((server, challenge)) = begun else { continue };
            assert!(challenge.ends_with(",s=c2FsdA==,i=1"));
            assert!(server.finish(last, [&verifier]).is_err());
        }
    }
}

/// A server's challenge and proof, separated by a newline. Costly challenges are left out.
pub(crate) fn scram_client(data: &[u8]) {
    let mut parts = data.splitn(2, |byte| *byte == b'\n');
    let (challenge, last) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let digits = challenge.iter().filter(|byte| byte.is_ascii_digit()).count();
    let channel = Channel::Plain;
    let (client, ..) = ScramClient::begin(channel, false, [0; NONCE_LEN]);
    if digits > 4 {
        return;
    }
    if let Ok((client, proof)) = client.answer(b"pencil", challenge) {
        assert!(proof.starts_with(b"c=biws,r="));
        assert!(client.finish(last).is_err());
    }
}

pub(crate) fn verifier(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(verifier) = ScramVerifier::parse(text) {
        assert!(ScramVerifier::parse(&verifier.to_text()).is_ok_and(|again| again == verifier));
    }
    if let Some(hash) = Md5Hash::parse(text) {
        assert!(hash.accepts(&hash.answer(*b"salt"), *b"salt"));
    }
}
