//! NetworkPolicies, as rules of iptables in the network namespaces of the pods that they select.
//!
//! What comes from the machine itself is let in, as a node's probes are by every plug-in. The
//! connections of a Service come from there too: whose they are is known only where a pod is
//! reached at its own address. Policies for what pods reach are not known here.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::Ipv4Addr;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::kubernetes::api::Api;
use crate::kubernetes::network::PodNetwork;
use crate::kubernetes::watch::{Key, Watch};

/// All NetworkPolicies, and the labels of namespaces.
pub(super) struct Policies {
    policies: Watch,
    namespaces: Watch,
}

impl Policies {
    /// Begins to watch them.
    #[must_use]
    pub(super) fn of(api: &Api) -> Self {
        Self {
            policies: Watch::of(api, "/apis/networking.k8s.io/v1/networkpolicies"),
            namespaces: Watch::of(api, "/api/v1/namespaces"),
        }
    }

    /// The table of filters for a pod, among all `pods`; everything passes where no policy selects
    /// it.
    ///
    /// # Panics
    /// When a policy has something that this kubelet does not know.
    #[must_use]
    pub(super) fn table(
        &self,
        pod: &Value,
        pods: &BTreeMap<Key, Value>,
        machine: Ipv4Addr,
    ) -> String {
        let all = self.policies.all();
        let own = all.values().filter(|policy| {
            policy["metadata"]["namespace"] == pod["metadata"]["namespace"]
                && selects(&policy["spec"]["podSelector"], &pod["metadata"]["labels"])
        });
        let own: Vec<&Value> = own.collect();
        if own.is_empty() {
            return "*filter\n:INPUT ACCEPT [0:0]\nCOMMIT\n".to_owned();
        }
        let mut table = format!(
            "*filter\n:INPUT DROP [0:0]\n-A INPUT -i lo -j ACCEPT\n-A INPUT -s {machine} -j ACCEPT\n\
             -A INPUT -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT\n"
        );
        for policy in own {
            assert!(policy["spec"].get("egress").is_none(), "this kubelet filters no egress");
            for rule in policy["spec"]["ingress"].as_array().into_iter().flatten() {
                for source in self.sources(rule, pod, pods) {
                    for port in ports(rule, pod) {
                        let _ =
                            writeln!(table, "-A INPUT -p tcp -s {source} --dport {port} -j ACCEPT");
                    }
                }
            }
        }
        table.push_str("COMMIT\n");
        table
    }

    /// The addresses from which a rule lets connections in.
    fn sources(&self, rule: &Value, pod: &Value, pods: &BTreeMap<Key, Value>) -> Vec<String> {
        let mut all = Vec::new();
        for peer in rule["from"].as_array().expect("who may") {
            if let Some(block) = peer.get("ipBlock") {
                assert!(block.get("except").is_none(), "this kubelet knows no exceptions");
                all.push(block["cidr"].as_str().expect("a range").to_owned());
                continue;
            }
            for ((namespace, _), other) in pods {
                let is_there = match peer.get("namespaceSelector") {
                    None => pod["metadata"]["namespace"] == **namespace,
                    Some(selector) => selects(selector, &self.labels_of(namespace)),
                };
                let is_it = peer
                    .get("podSelector")
                    .is_none_or(|selector| selects(selector, &other["metadata"]["labels"]));
                let address = other["status"]["podIP"].as_str();
                all.extend(address.filter(|_| is_there && is_it).map(str::to_owned));
            }
        }
        all
    }

    fn labels_of(&self, namespace: &str) -> Value {
        let namespace = self.namespaces.get("", namespace).unwrap_or_default();
        namespace["metadata"]["labels"].clone()
    }
}

/// Puts a table into force in a pod's network.
///
/// # Panics
/// When there is no iptables, or it refuses.
pub(super) fn enforce(table: &str, network: &PodNetwork) {
    let mut restore = Command::new("ip");
    restore.args(["netns", "exec", &network.name, "iptables-restore"]).stdin(Stdio::piped());
    let mut child = restore.spawn().expect("ip, of the package iproute2");
    let mut input = child.stdin.take().expect("a pipe");
    std::io::Write::write_all(&mut input, table.as_bytes()).expect("a table");
    drop(input);
    assert!(child.wait().expect("an end").success(), "iptables-restore refuses\n{table}");
}

/// The ports of the pod that a rule names; it has names for them, or numbers.
fn ports(rule: &Value, pod: &Value) -> Vec<u64> {
    let containers = pod["spec"]["containers"].as_array().into_iter().flatten();
    let named: Vec<&Value> =
        containers.flat_map(|it| it["ports"].as_array().into_iter().flatten()).collect();
    let wanted = rule["ports"].as_array().expect("ports").iter();
    wanted
        .filter_map(|wanted| {
            let port = &wanted["port"];
            let of_name = named.iter().find(|it| it["name"] == *port);
            port.as_u64().or_else(|| of_name?["containerPort"].as_u64())
        })
        .collect()
}

fn selects(selector: &Value, labels: &Value) -> bool {
    assert!(selector.get("matchExpressions").is_none(), "this kubelet knows labels alone");
    let mut wanted = selector["matchLabels"].as_object().into_iter().flatten();
    wanted.all(|(key, value)| labels[key] == *value)
}
