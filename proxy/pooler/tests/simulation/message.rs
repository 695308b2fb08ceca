//! Messages of the protocol, made and taken apart without the code under test.

/// A message of `tag`.
pub(crate) fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    out.extend_from_slice(&(body.len() as u32 + 4).to_be_bytes());
    out.extend_from_slice(body);
    out
}

fn strings(parts: &[&[u8]], rest: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    for part in parts {
        body.extend_from_slice(part);
        body.push(0);
    }
    body.extend_from_slice(rest);
    body
}

pub(crate) fn query(text: &str) -> Vec<u8> {
    message(b'Q', &strings(&[text.as_bytes()], &[]))
}

pub(crate) fn parse(name: &str, text: &str) -> Vec<u8> {
    message(b'P', &strings(&[name.as_bytes(), text.as_bytes()], &[0, 0]))
}

/// Bind with one text parameter.
pub(crate) fn bind(portal: &str, statement: &str, parameter: &str) -> Vec<u8> {
    let mut rest = vec![0, 0, 0, 1];
    rest.extend_from_slice(&(parameter.len() as u32).to_be_bytes());
    rest.extend_from_slice(parameter.as_bytes());
    rest.extend_from_slice(&[0, 0]);
    message(b'B', &strings(&[portal.as_bytes(), statement.as_bytes()], &rest))
}

pub(crate) fn execute(portal: &str, limit: u32) -> Vec<u8> {
    message(b'E', &strings(&[portal.as_bytes()], &limit.to_be_bytes()))
}

pub(crate) fn describe(kind: u8, name: &str) -> Vec<u8> {
    named(b'D', kind, name)
}

pub(crate) fn close(kind: u8, name: &str) -> Vec<u8> {
    named(b'C', kind, name)
}

fn named(tag: u8, kind: u8, name: &str) -> Vec<u8> {
    let mut body = vec![kind];
    body.extend_from_slice(name.as_bytes());
    body.push(0);
    message(tag, &body)
}

pub(crate) fn sync() -> Vec<u8> {
    message(b'S', &[])
}

pub(crate) fn flush() -> Vec<u8> {
    message(b'H', &[])
}

pub(crate) fn terminate() -> Vec<u8> {
    message(b'X', &[])
}

pub(crate) fn function_call() -> Vec<u8> {
    message(b'F', &[0, 0, 0, 1, 0, 0, 0, 0, 0, 0])
}

pub(crate) fn copy_data(data: &str) -> Vec<u8> {
    message(b'd', data.as_bytes())
}

pub(crate) fn copy_done() -> Vec<u8> {
    message(b'c', &[])
}

pub(crate) fn copy_fail(reason: &str) -> Vec<u8> {
    message(b'f', &strings(&[reason.as_bytes()], &[]))
}

/// ErrorResponse or NoticeResponse.
pub(crate) fn report(tag: u8, severity: &str, code: &str, text: &str) -> Vec<u8> {
    let mut body = Vec::new();
    for (kind, value) in [(b'S', severity), (b'V', severity), (b'C', code), (b'M', text)] {
        body.push(kind);
        body.extend_from_slice(value.as_bytes());
        body.push(0);
    }
    body.push(0);
    message(tag, &body)
}

pub(crate) fn parameter_status(name: &str, value: &str) -> Vec<u8> {
    message(b'S', &strings(&[name.as_bytes(), value.as_bytes()], &[]))
}

pub(crate) fn row(value: &[u8]) -> Vec<u8> {
    let mut body = vec![0, 1];
    body.extend_from_slice(&(value.len() as u32).to_be_bytes());
    body.extend_from_slice(value);
    message(b'D', &body)
}

/// A DataRow of several columns.
pub(crate) fn columns(values: &[Option<String>]) -> Vec<u8> {
    let mut body = (values.len() as u16).to_be_bytes().to_vec();
    for value in values {
        let length = value.as_ref().map_or(-1, |value| value.len() as i32);
        body.extend_from_slice(&length.to_be_bytes());
        body.extend_from_slice(value.as_deref().unwrap_or_default().as_bytes());
    }
    message(b'D', &body)
}

pub(crate) fn row_description() -> Vec<u8> {
    let mut body = vec![0, 1, b'c', 0];
    body.extend_from_slice(&[0; 18]);
    message(b'T', &body)
}

/// The first whole message of `bytes`: its tag, its body, its length.
pub(crate) fn first(bytes: &[u8]) -> Option<(u8, &[u8], usize)> {
    let length = u32::from_be_bytes(bytes.get(1..5)?.try_into().ok()?) as usize + 1;
    Some((bytes[0], bytes.get(5..length)?, length))
}

/// The messages of `bytes`, which must be whole.
pub(crate) fn all(mut bytes: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut list = Vec::new();
    while !bytes.is_empty() {
        let (tag, body, length) = first(bytes).expect("a whole message");
        list.push((tag, body.to_vec()));
        bytes = &bytes[length..];
    }
    list
}

/// The field `kind` of an ErrorResponse's body.
pub(crate) fn field(body: &[u8], kind: u8) -> String {
    let found = body.split(|&b| b == 0).find(|field| field.first() == Some(&kind));
    found.map(|field| String::from_utf8_lossy(&field[1..]).into_owned()).unwrap_or_default()
}

/// Messages as a person reads them.
pub(crate) fn shown(messages: &[(u8, Vec<u8>)]) -> Vec<String> {
    messages.iter().map(|(tag, body)| one_shown(*tag, body)).collect()
}

fn one_shown(tag: u8, body: &[u8]) -> String {
    match tag {
        b'E' => format!("E {} {}", field(body, b'C'), field(body, b'M')),
        b'N' => format!("N {}", field(body, b'M')),
        b'Z' => format!("Z {}", body[0] as char),
        b'C' => format!("C {}", String::from_utf8_lossy(&body[..body.len() - 1])),
        b'D' => format!("D {}", String::from_utf8_lossy(&body[6..body.len().min(400)])),
        b'S' => format!("S {}", String::from_utf8_lossy(body).replace('\0', "=")),
        _ => (tag as char).to_string(),
    }
}
