//! docs/deploy-kubernetes.md as a new user follows it: its blocks are taken out of the page and run
//! as they stand, on a whole Kubernetes (`tests/src/kubernetes/nodes.rs`) with a real Vault and a
//! real PostgreSQL.
//!
//! Nothing is put in place of the page's words but what its reader puts there: passwords,
//! addresses, and a namespace that is not yet taken. Somebody else's part is played by the test:
//! cert-manager's certificate, CloudNativePG's authority, and the Vault provider's requests.

mod failures;
mod kustomize;
mod networks;
mod page;
mod platform;
mod release;
mod vault;

use std::time::Instant;

use page::Page;
use platform::Platform;

/// The blocks that this test does not run: section, language, number among those, and why.
const NOT_RUN: &[(&str, &str, usize, &str)] = &[
    ("The image", "sh", 0, "there is no registry; the test packaging unpacks the archive itself"),
    ("The image", "sh", 1, "there is no docker; the test packaging runs the image by crun"),
];

#[test]
fn the_page_is_followed_word_by_word() {
    let begun = Instant::now();
    let tell = |what: &str| eprintln!("{:6.1} s: {what}", begun.elapsed().as_secs_f64());
    let page = Page::read();
    let platform = Platform::start();
    tell("the platform is there");
    vault::set_up(&page, &platform);
    tell("Vault has its roles");
    release::install(&page, &platform);
    tell("the release is installed");
    let broken = failures::install(&page, &platform);
    release::try_from_within(&page, &platform);
    networks::are_enforced(&platform);
    tell("who may reach which port is tried");
    release::show_the_page(&page, &platform);
    tell("the page is there");
    release::replace_the_key(&page, &platform);
    tell("the deployment key is another one");
    failures::provoke(&page, &platform, broken);
    tell("what can fail has failed");
    kustomize::apply(&page, &platform);
    tell("the overlay is applied");
    page.assert_all_used(NOT_RUN);
}
