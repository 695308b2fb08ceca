//! What must hold for any bytes from the wire. Used by the fuzz targets and, with few inputs,
//! by `proxy/wire/tests/mutation.rs`.

use pgimbal_wire::authentication::{AuthRequest, SaslInitial, parse_password};
use pgimbal_wire::encode::{self, TransactionStatus};
use pgimbal_wire::error::{ErrorFields, Severity, with_severity};
use pgimbal_wire::extended::{Bind, Execute, Parse, StatementOrPortal};
use pgimbal_wire::frame::{self, HEADER_LEN, MAX_MESSAGE_LEN};
use pgimbal_wire::startup::{self, MAX_STARTUP_LEN, StartupPacket};
use pgimbal_wire::{options, tag};

#[path = "../property.rs"]
mod property;
use property::Property;

pub(crate) const PROPERTIES: &[Property] = &[
    Property {
        name: "framing",
        inputs: 1_000_000,
        check: framing,
        seeds: &[b"Q\0\0\0\x05\0Q\0\0\0\x06x\0", b"S\0\0\0\x04"],
    },
    Property {
        name: "startup",
        inputs: 1_000_000,
        check: startup,
        seeds: &[
            b"\0\0\0\x08\x04\xd2\x16\x2f",
            b"\0\0\0\x10\x04\xd2\x16\x2e\0\0\0\x01abcd",
            b"\0\0\0\x21\0\x03\0\x02user\0ann\0_pq_.x\0y\0db\0d\0\0",
        ],
    },
    Property {
        name: "options",
        inputs: 250_000,
        check: options,
        seeds: &[br"-c work_mem=1MB --search-path=a,\ b -cx=\\", b"-c"],
    },
    Property {
        name: "extended",
        inputs: 130_000,
        check: extended,
        seeds: &[
            b"name\0select $1\0\0\x01\0\0\0\x17",
            b"portal\0name\0\0\0\0\0\0\0",
            b"Sname\0",
            b"p\0\0\0\0\x05",
        ],
    },
    Property {
        name: "error",
        inputs: 300_000,
        check: error,
        seeds: &[b"SERROR\0VERROR\0C42601\0Msyntax\0Dd\0Hh\0P8\0\0", b"SFATAL\0C57P01\0\0"],
    },
    Property {
        name: "authentication",
        inputs: 600_000,
        check: authentication,
        seeds: &[
            b"\0\0\0\x0aSCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0",
            b"\0\0\0\x05salt",
            b"SCRAM-SHA-256\0\0\0\0\x03n,,",
            b"password\0",
        ],
    },
];

pub(crate) fn framing(data: &[u8]) {
    let mut rest = data;
    while let Ok(Some(header)) = frame::peek(rest) {
        let total = header.total as usize;
        assert!(total >= HEADER_LEN && header.total <= MAX_MESSAGE_LEN + 1);
        assert_eq!(header.body_len() as usize + HEADER_LEN, total);
        match rest.get(total..) {
            Some(tail) => rest = tail,
            None => break,
        }
    }
}

pub(crate) fn startup(data: &[u8]) {
    let Ok(Some((packet, used))) = startup::parse(data) else { return };
    assert!((8..=MAX_STARTUP_LEN).contains(&used) && used <= data.len());
    // What follows the packet changes nothing, and no byte of it can be missing.
    assert_eq!(startup::parse(&data[..used]), Ok(Some((packet.clone(), used))));
    assert_eq!(startup::parse(&data[..used - 1]), Ok(None));
    let mut again = Vec::new();
    match packet {
        StartupPacket::Ssl => encode::ssl_request(&mut again),
        StartupPacket::Cancel { process_id, key } => {
            assert!((4..=256).contains(&key.len()));
            encode::cancel_request(&mut again, process_id, key);
        }
        StartupPacket::Startup { version, parameters } => {
            encode::startup(&mut again, version, parameters.iter());
            let agreed = startup::negotiate(version, &parameters);
            assert!(agreed.version <= version && agreed.version.major == 3);
        }
        StartupPacket::GssEnc => return,
    }
    assert_eq!(again, data[..used]);
}

pub(crate) fn options(data: &[u8]) {
    let Ok(settings) = options::parse(data) else { return };
    for setting in &settings {
        assert!(!setting.name.is_empty() && !setting.name.contains(&b'='));
    }
    // Written with every byte escaped, they read back the same.
    let mut text = Vec::new();
    for setting in &settings {
        text.extend_from_slice(b" -c ");
        for byte in setting.name.iter().chain(b"=").chain(&setting.value) {
            text.extend_from_slice(&[b'\\', *byte]);
        }
    }
    assert_eq!(options::parse(&text).as_ref(), Ok(&settings));
}

/// A view of a prefix may ask for more, but never says anything else than the view of the whole.
pub(crate) fn extended(data: &[u8]) {
    let whole = data.len();
    let (bind, target) = (Bind::view(data, whole), StatementOrPortal::view(data, whole));
    let (parse, execute) = (Parse::view(data, whole), Execute::view(data, whole));
    assert!(
        ![bind == Ok(None), target == Ok(None), parse == Ok(None), execute == Ok(None)]
            .contains(&true)
    );
    for cut in 0..whole.min(64) {
        let prefix = &data[..cut];
        assert!(
            matches!(StatementOrPortal::view(prefix, whole), Ok(None) | Err(_)) || cut == whole
        );
        if let Ok(Some(view)) = Bind::view(prefix, whole) {
            assert_eq!(Ok(Some(view)), bind);
            assert!(view.rest <= cut);
        }
        if let (Ok(Some(view)), Ok(Some(full))) = (Parse::view(prefix, whole), parse) {
            assert!(view.name == full.name && full.text.starts_with(view.text));
        }
        if let (Ok(Some(view)), Ok(Some(full))) = (Execute::view(prefix, whole), execute) {
            assert_eq!(view, full);
        }
    }
}

pub(crate) fn error(data: &[u8]) {
    let Ok(fields) = ErrorFields::parse(data) else { return };
    let mut out = Vec::new();
    with_severity(data, Severity::Error, &mut out);
    let header = frame::peek(&out).expect("a length").expect("a header");
    assert_eq!((header.tag, header.total as usize), (tag::backend::ERROR_RESPONSE, out.len()));
    let again = ErrorFields::parse(&out[HEADER_LEN..]).expect("the same fields");
    assert_eq!((again.code, again.message), (fields.code, fields.message));
}

pub(crate) fn authentication(data: &[u8]) {
    let mut out = Vec::new();
    if let Ok(request) = AuthRequest::parse(data) {
        request.encode(&mut out);
        assert_eq!(AuthRequest::parse(&out[HEADER_LEN..]), Ok(request));
        out.clear();
    }
    if let Ok(initial) = SaslInitial::parse(data) {
        initial.encode(&mut out);
        assert_eq!(out[HEADER_LEN..], *data);
    }
    if let Ok(password) = parse_password(data) {
        assert_eq!(password.len() + 1, data.len());
    }
    if let [byte, ..] = data {
        assert!(TransactionStatus::from_byte(*byte).is_none_or(|status| status.as_byte() == *byte));
    }
}
