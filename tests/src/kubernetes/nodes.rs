//! A Kubernetes with nodes, as whole as one machine can have it: API server, controllers,
//! scheduler, DNS, kube-proxy, and a kubelet that runs pods.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use rustix::process::Signal;
use serde_json::json;

use super::controllers::Controllers;
use super::kube_proxy::KubeProxy;
use super::kubelet::Kubelet;
use super::kubelet::image::Image;
use super::network::Network;
use super::{Kubernetes, program};
use crate::certificates::Certificates;
use crate::pgimbal::undisturbed;
use crate::process::{Directory, Process, directory};
use crate::program::{self, Finished};
use crate::relay::Relay;
use crate::until::SOON;

/// The nodes.
const NODES: [&str; 3] = ["node-1", "node-2", "node-3"];

/// A whole Kubernetes. Dropping it ends all pods and everything else.
///
/// It takes root, since pods have network namespaces.
pub struct Nodes {
    // In the order in which they end.
    /// kube-proxy.
    pub proxy: KubeProxy,
    /// The kubelet of all nodes.
    pub kubelet: Kubelet,
    _dns: Process,
    _api_server: Relay,
    _controllers: Controllers,
    /// The API server.
    pub kubernetes: Kubernetes,
    /// The network of the pods.
    pub network: Arc<Network>,
    directory: Directory,
}

impl Nodes {
    /// Starts it with three nodes. Its kubelet knows the image of pgimbal as `image`, and as
    /// `tools` one with a shell and psql.
    ///
    /// # Panics
    /// When this user is not root, or a program is missing (`tests/set-up` builds them).
    #[must_use]
    pub fn start(image: &str, tools: &str) -> Self {
        assert!(rustix::process::geteuid().is_root(), "network namespaces of pods take root");
        let network = Arc::new(Network::new());
        let api_server = network.api_server();
        let names = ["localhost", "127.0.0.1", "kubernetes.default.svc", &api_server.to_string()];
        let kubernetes = Kubernetes::with(Certificates::named(&names), &network.services());
        let kubeconfig = kubernetes.admin_kubeconfig("default");
        let controllers = Controllers::start(&kubeconfig, &kubernetes.authority_file());
        // An EndpointSlice takes no loopback address.
        let here = ([127, 0, 0, 1], kubernetes.port).into();
        let at_machine = (network.machine(), kubernetes.port).into();
        let relay = Relay::between(at_machine, [127, 0, 0, 1].into(), here);
        let directory = directory("nodes");
        let dns = start_dns(&kubernetes, &network, &directory);
        let folder = |name: &str| directory.join(name);
        let images = BTreeMap::from([
            (image.to_owned(), Image::of_pgimbal(&folder("pgimbal"))),
            (tools.to_owned(), Image::of_this_machine(&folder("tools"))),
        ]);
        let admin = kubernetes.admin();
        let seed = u64::from(std::process::id());
        eprintln!("kube-proxy's seed is {seed}");
        let nodes = Self {
            proxy: KubeProxy::start(&admin, &network, seed),
            kubelet: Kubelet::of(&admin, &network, &NODES, images),
            _dns: dns,
            _api_server: relay,
            _controllers: controllers,
            kubernetes,
            network,
            directory,
        };
        nodes.make_endpoints("default", "kubernetes", &[nodes.network.machine()], {
            ("https", nodes.kubernetes.port)
        });
        nodes
    }

    /// Makes a namespace. With `is_restricted` it takes only restricted pods.
    ///
    /// # Panics
    /// When the API server refuses.
    pub fn make_namespace(&self, name: &str, is_restricted: bool) {
        let labels = if is_restricted {
            json!({ "pod-security.kubernetes.io/enforce": "restricted" })
        } else {
            json!({})
        };
        let body = json!({ "metadata": { "name": name, "labels": labels } });
        self.kubernetes.admin().create("/api/v1/namespaces", &body);
    }

    /// Makes a Service without pods whose endpoints are these addresses of this machine. It has an
    /// address of its own, unless it is headless.
    ///
    /// # Panics
    /// When the API server refuses.
    pub fn make_service(
        &self,
        namespace: &str,
        name: &str,
        port: u16,
        to: (&[Ipv4Addr], u16),
        is_headless: bool,
    ) {
        let admin = self.kubernetes.admin();
        let mut spec = json!({ "ports": [{ "port": port, "targetPort": to.1 }] });
        if is_headless {
            spec["clusterIP"] = json!("None");
        }
        let service = json!({ "metadata": { "name": name }, "spec": spec });
        admin.create(&format!("/api/v1/namespaces/{namespace}/services"), &service);
        self.make_endpoints(namespace, name, to.0, ("", to.1));
    }

    /// Makes the endpoints of a Service without pods: these addresses at this named port.
    fn make_endpoints(
        &self,
        namespace: &str,
        name: &str,
        addresses: &[Ipv4Addr],
        (port_name, port): (&str, u16),
    ) {
        let endpoints = addresses.iter().map(|it| json!({ "addresses": [it.to_string()] }));
        let slice = json!({
            "metadata": { "name": name, "labels": { "kubernetes.io/service-name": name } },
            "addressType": "IPv4",
            "ports": [{ "name": port_name, "port": port }],
            "endpoints": endpoints.collect::<Vec<_>>(),
        });
        let path = format!("/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices");
        self.kubernetes.admin().create(&path, &slice);
    }

    /// Lets pgimbal's image trust one authority more, as its own files trust Mozilla's.
    ///
    /// # Panics
    /// When the file cannot be written.
    pub fn trust(&self, authority: &str) {
        let path = self.directory.join("pgimbal/etc/ssl/certs/ca-certificates.crt");
        let mut file = fs::OpenOptions::new().append(true).open(path).expect("a file");
        write!(file, "\n{authority}").expect("a file");
    }

    /// The path of kubectl.
    #[must_use]
    pub fn kubectl_path() -> PathBuf {
        program("kubectl")
    }

    /// Runs kubectl with these words.
    ///
    /// # Panics
    /// When it does not end in time.
    #[must_use]
    pub fn kubectl(&self, words: &[&str]) -> Finished {
        let mut command = undisturbed(program("kubectl"));
        command.args(words).env("HOME", &*self.directory).env("KUBECONFIG", self.kubeconfig());
        program::run(&mut command, SOON * 16)
    }

    /// A kubeconfig of the user who may do everything.
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        self.kubernetes.admin_kubeconfig("default")
    }
}

/// Starts CoreDNS, as a cluster has it, at the machine's address on the network.
fn start_dns(kubernetes: &Kubernetes, network: &Network, directory: &Directory) -> Process {
    let machine = network.machine();
    let file = directory.join("Corefile");
    let text = format!(
        ".:53 {{\n    bind {machine}\n    errors\n    kubernetes cluster.local {{\n        \
         kubeconfig {}\n        ttl 5\n    }}\n}}\n",
        kubernetes.admin_kubeconfig("default").display()
    );
    fs::write(&file, text).expect("a file");
    let mut command: Command = undisturbed(program("coredns"));
    command.arg("-conf").arg(&file).current_dir(&**directory);
    Process::start(command, directory, Signal::KILL)
}
