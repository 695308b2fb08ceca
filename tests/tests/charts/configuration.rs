//! Reads a rendered pgimbal.toml as pgimbal does in a pod, where its files are.

use std::fs;

use pgimbal_config::{Config, Overrides, load};
use pgimbal_tests::certificates::Certificates;
use pgimbal_tests::process::directory;

/// What the Secret of the deployment key holds: 64 hexadecimal digits.
pub(super) const KEY: &str = "8f14e45fceea167a5a36dedd4bea2543b0d27e5a7c6bd7e4fbbd1c7a01f3c9e6";

/// The configuration of this text with these environment variables, as pgimbal reads it; the paths
/// in it are those of the pod.
///
/// # Panics
/// When pgimbal would refuse it.
pub(super) fn read(name: &str, toml: &str, variables: &[String]) -> Config {
    let pod = directory("pod");
    let certificates = Certificates::new();
    let _paths = certificates.write(&pod);
    let root = pod.display().to_string();
    for (file, from) in [
        ("etc/pgimbal/tls/tls.crt", "server.crt"),
        ("etc/pgimbal/tls/tls.key", "server.key"),
        ("etc/pgimbal/server-ca/ca.crt", "ca.crt"),
        ("var/run/secrets/vault/token", "ca.crt"),
    ] {
        let file = pod.join(file);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::copy(pod.join(from), file).unwrap();
    }
    let page = pod.join("etc/pgimbal/page");
    fs::create_dir_all(&page).unwrap();
    for token in ["admin", "admin-token", "viewers"] {
        fs::write(page.join(token), format!("0123456789abcdef-{token}")).unwrap();
    }
    // In the pod they are at the root.
    let here = toml
        .replace("\"/etc/pgimbal/", &format!("\"{root}/etc/pgimbal/"))
        .replace("\"/var/run/secrets/", &format!("\"{root}/var/run/secrets/"));
    let file = pod.join("pgimbal.toml");
    fs::write(&file, here).unwrap();
    let overrides = Overrides { config: Some(file), ..Overrides::default() };
    let variables = variables.iter().enumerate().map(|(number, variable)| {
        // Two keys must not be the same.
        (variable.clone(), KEY.chars().cycle().skip(number).take(KEY.len()).collect())
    });
    load(&overrides, variables).unwrap_or_else(|errors| panic!("{name}: {errors}\n{toml}"))
}
