//! Files and directories that the configuration names.

use std::fs;
use std::path::Path;

use super::findings::Findings;

/// The content that a PEM file must have.
#[derive(Clone, Copy)]
pub(super) enum Pem {
    Certificate,
    Key,
}

/// Reads a PEM file as far as to know that it is the right one.
pub(super) fn pem(path: &Path, holds: Pem, key: &str, found: &mut Findings<'_>) {
    let (label, name) = match holds {
        Pem::Certificate => ("-----BEGIN CERTIFICATE-----", "certificate"),
        Pem::Key => ("PRIVATE KEY-----", "private key"),
    };
    let cause = match fs::read(path).map(zeroize::Zeroizing::new) {
        Err(error) => format!("cannot read: {error}"),
        Ok(bytes) if matches!(holds, Pem::Key) && is_encrypted(&bytes) => {
            let name = path.display();
            format!(
                "the key is encrypted, and nobody is there to type its passphrase: \
                 `openssl pkey -in {name} -out NEW` writes it without one, and chmod 0600 keeps it \
                 from others"
            )
        }
        Ok(bytes) if !bytes.windows(label.len()).any(|part| part == label.as_bytes()) => {
            format!("holds no {name} in PEM form")
        }
        Ok(_) => return,
    };
    found.add(key, Some(format!("{:?}", path.display().to_string())), cause);
}

/// PKCS #8 says so in its label, the older forms in a header.
fn is_encrypted(pem: &[u8]) -> bool {
    [&b"-----BEGIN ENCRYPTED PRIVATE KEY-----"[..], b"Proc-Type: 4,ENCRYPTED"]
        .iter()
        .any(|mark| pem.windows(mark.len()).any(|part| part == *mark))
}

/// The directory must be there, and the socket's path must fit into its address.
pub(super) fn socket_directory(directory: &Path, port: u16, found: &mut Findings<'_>) {
    /// `sun_path` of Linux, without the final zero.
    const LONGEST: usize = 107;
    let shown = Some(format!("{:?}", directory.display().to_string()));
    let socket = directory.join(format!(".s.PGSQL.{port}"));
    let length = socket.as_os_str().len();
    match fs::metadata(directory) {
        Err(error) => found.add("unix_socket_dir", shown, format!("cannot be used: {error}")),
        Ok(metadata) if !metadata.is_dir() => {
            found.add("unix_socket_dir", shown, "is not a directory");
        }
        Ok(_) if length > LONGEST => {
            let cause = format!("the socket's path is {length} bytes long; {LONGEST} is the limit");
            found.add("unix_socket_dir", shown, cause);
        }
        Ok(_) => {}
    }
}
