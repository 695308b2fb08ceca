//! What must hold of every set of objects that makes pods of pgimbal, however they came about.

use std::collections::{BTreeMap, BTreeSet};

use pgimbal_config::{Config, StoreKind};
use pgimbal_tests::charts::{find, of_kind};
use serde_json::{Value, json};

use super::configuration::read;

/// Time that is left to end the process after its drain.
const TIME_TO_END: u64 = 5;

/// A set of objects with one Deployment of pgimbal, and its configuration as pgimbal reads it.
pub(super) struct Rendered<'a> {
    name: &'a str,
    objects: &'a [Value],
    deployment: &'a Value,
    config: Config,
}

impl<'a> Rendered<'a> {
    /// Takes the objects apart. `name` is for messages.
    pub(super) fn new(name: &'a str, objects: &'a [Value]) -> Self {
        let mut deployments = of_kind(objects, "Deployment");
        let deployment = deployments.next().unwrap_or_else(|| panic!("{name}: no Deployment"));
        assert!(deployments.next().is_none(), "{name}: two Deployments");
        let mut rendered = Self { name, objects, deployment, config: Config::default() };
        rendered.config = read(name, rendered.toml(), &rendered.variables());
        rendered
    }

    fn pod(&self) -> &'a Value {
        &self.deployment["spec"]["template"]["spec"]
    }

    fn container(&self) -> &'a Value {
        let containers = self.pod()["containers"].as_array().unwrap();
        assert_eq!(containers.len(), 1, "{}", self.name);
        &containers[0]
    }

    /// The text of pgimbal.toml, by the mount and the argument that lead to it.
    fn toml(&self) -> &'a str {
        let arguments = self.container()["args"].as_array().unwrap();
        let path = arguments.last().and_then(Value::as_str).unwrap();
        let (directory, file) = path.rsplit_once('/').unwrap();
        let mount = self.mounts().into_iter().find(|mount| mount["mountPath"] == directory);
        let volume = mount.map(|mount| self.volume(mount)).unwrap();
        let map = volume["configMap"]["name"].as_str().unwrap();
        let map = find(self.objects, "ConfigMap", map).unwrap_or_else(|| panic!("no {map}"));
        map["data"][file].as_str().unwrap_or_else(|| panic!("{}: no {file}: {map}", self.name))
    }

    fn mounts(&self) -> Vec<&'a Value> {
        self.container()["volumeMounts"].as_array().unwrap().iter().collect()
    }

    fn volume(&self, mount: &Value) -> &'a Value {
        let volumes = self.pod()["volumes"].as_array().unwrap();
        volumes.iter().find(|volume| volume["name"] == mount["name"]).unwrap()
    }

    /// The names of the environment variables; each comes from a Secret.
    fn variables(&self) -> Vec<String> {
        let list = self.container()["env"].as_array().into_iter().flatten();
        list.map(|variable| {
            let secret = &variable["valueFrom"]["secretKeyRef"];
            assert!(secret["name"].is_string() && secret["key"].is_string(), "{variable}");
            variable["name"].as_str().unwrap().to_owned()
        })
        .collect()
    }

    fn replicas(&self) -> u64 {
        self.deployment["spec"]["replicas"].as_u64().unwrap()
    }

    /// Asserts all of it.
    pub(super) fn holds_the_rules(&self) {
        self.rolls_without_a_gap();
        self.is_restricted();
        self.has_its_memory();
        self.has_no_secret_of_its_own();
        self.mounts_what_is_configured();
        self.page_has_its_tokens();
        self.ports_are_the_same_everywhere();
        self.peers_are_found();
        self.rights_are_the_least();
        self.labels_find_the_pods();
    }

    fn rolls_without_a_gap(&self) {
        let name = self.name;
        let strategy = &self.deployment["spec"]["strategy"];
        let expected = json!({ "maxUnavailable": 0, "maxSurge": 1 });
        assert_eq!(strategy["rollingUpdate"], expected, "{name}");
        let drain = [self.config.drain_delay, self.config.shutdown_grace];
        let seconds: f64 = drain.map(|span| span.as_secs_f64().ceil()).iter().sum();
        let grace = self.pod()["terminationGracePeriodSeconds"].as_u64().unwrap();
        #[allow(clippy::cast_precision_loss, reason = "a grace period is a small number")]
        let left = grace as f64 - seconds;
        assert!((left - TIME_TO_END as f64).abs() < 0.01, "{name}: {grace} s for {drain:?}");
        // Without a store that they share, replicas share no budget.
        let shares = self.config.store.kind != StoreKind::Memory;
        let slots = if shares { self.replicas() + 1 } else { 1 };
        assert_eq!(u64::from(self.config.max_replicas), slots, "{name}");
        let container = self.container();
        assert!(container.get("lifecycle").is_none(), "{name}: {container}");
        for (probe, path) in
            [("startupProbe", "/livez"), ("livenessProbe", "/livez"), ("readinessProbe", "/readyz")]
        {
            let get = &container[probe]["httpGet"];
            assert_eq!((&get["path"], &get["port"]), (&json!(path), &json!("http")), "{name}");
        }
        // Whoever looks only now and then would send clients to a pod that is gone.
        let ready = &container["readinessProbe"];
        let seen = ready["periodSeconds"].as_u64().unwrap();
        assert!(seen * ready["failureThreshold"].as_u64().unwrap() <= 3, "{name}: {ready}");
        let spread = self.pod()["topologySpreadConstraints"].as_array().unwrap();
        let over: BTreeSet<_> = spread.iter().filter_map(|it| it["topologyKey"].as_str()).collect();
        let both = ["kubernetes.io/hostname", "topology.kubernetes.io/zone"];
        assert_eq!(over, both.into(), "{name}");
        // Without it two pods share a node where there are fewer nodes than pods.
        let apart = spread
            .iter()
            .find(|it| it["topologyKey"] == both[0] && it["whenUnsatisfiable"] == "DoNotSchedule");
        let least = apart.map(|it| it["minDomains"].as_u64());
        assert!(least.is_none_or(|least| least == Some(self.replicas())), "{name}");
        let checksum = self.deployment.pointer("/spec/template/metadata/annotations");
        let keys: Vec<_> = checksum
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
            .filter(|(key, _)| key.starts_with("checksum/"))
            .map(|(key, _)| key.as_str())
            .collect();
        // Kustomize has the hash in the ConfigMap's name instead.
        let hashed = self.volume_of_the_configuration().contains('-') && keys.is_empty();
        assert!(keys == ["checksum/config"] || hashed, "{name}: {keys:?}");
    }

    fn volume_of_the_configuration(&self) -> &'a str {
        let mut volumes = self.pod()["volumes"].as_array().unwrap().iter();
        let volume = volumes.find(|volume| volume["name"] == "config").unwrap();
        volume["configMap"]["name"].as_str().unwrap()
    }

    /// Pods of pgimbal and of `helm test`.
    fn pods(&self) -> Vec<&'a Value> {
        let tests = of_kind(self.objects, "Pod").map(|pod| &pod["spec"]);
        std::iter::once(self.pod()).chain(tests).collect()
    }

    fn is_restricted(&self) {
        for pod in self.pods() {
            let security = &pod["securityContext"];
            assert_eq!(security["runAsNonRoot"], true, "{}", self.name);
            assert_eq!(security["seccompProfile"]["type"], "RuntimeDefault", "{}", self.name);
            for field in ["hostNetwork", "hostPID", "hostIPC"] {
                assert!(pod.get(field).is_none(), "{}: {field}", self.name);
            }
            assert_eq!(pod["enableServiceLinks"], false, "{}", self.name);
            for container in pod["containers"].as_array().unwrap() {
                let expected = json!({
                    "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true,
                    "capabilities": { "drop": ["ALL"] },
                });
                assert_eq!(container["securityContext"], expected, "{}", self.name);
            }
        }
    }

    fn has_its_memory(&self) {
        for pod in self.pods() {
            let resources = &pod["containers"][0]["resources"];
            let [asked, limit] = ["requests", "limits"].map(|of| &resources[of]["memory"]);
            assert_eq!(asked, limit, "{}", self.name);
            assert!(asked.is_string(), "{}: {resources}", self.name);
            assert!(resources["requests"]["cpu"].is_string(), "{}: {resources}", self.name);
            assert!(resources["limits"].get("cpu").is_none(), "{}: {resources}", self.name);
        }
        let memory = self.container()["resources"]["limits"]["memory"].as_str().unwrap();
        // Another amount was asked for.
        let Some(mebibytes) = memory.strip_suffix("Mi") else { return };
        let clients = u64::from(self.config.clients.max_client_conn);
        let least = 128 + (clients * 96).div_ceil(1024);
        assert_eq!(mebibytes.parse(), Ok(least), "{}: {clients} clients", self.name);
    }

    fn has_no_secret_of_its_own(&self) {
        for secret in of_kind(self.objects, "Secret") {
            for field in ["data", "stringData"] {
                assert!(secret.get(field).is_none(), "{}: {secret}", self.name);
            }
        }
        for mount in self.mounts() {
            assert_eq!(mount["readOnly"], true, "{}: {mount}", self.name);
            let mode = &self.volume(mount)["secret"]["defaultMode"];
            assert!(mode.is_null() || mode == 0o440, "{}: {mode}", self.name);
        }
    }

    /// Every path of the configuration lies in a volume, and the token's audience is Vault's.
    fn mounts_what_is_configured(&self) {
        let config = &self.config;
        let mut paths: Vec<_> =
            config.users.values().filter_map(|user| user.password_file.clone()).collect();
        paths.extend(config.vaults.values().map(|vault| vault.kubernetes_jwt_file.clone()));
        paths.extend(config.clients.tls.cert_file.clone());
        paths.extend(config.clients.tls.key_file.clone());
        paths.extend(config.server_tls.ca_file.clone());
        paths.extend(config.http.access.admin_token_file.clone());
        paths.extend(config.http.access.token_file.clone());
        let mounts: Vec<_> =
            self.mounts().iter().map(|mount| mount["mountPath"].as_str().unwrap()).collect();
        for path in paths {
            let path = path.display().to_string();
            let found = mounts.iter().any(|mount| path.contains(mount));
            assert!(found, "{}: {path} is in none of {mounts:?}", self.name);
        }
        let api = self.pod()["automountServiceAccountToken"].as_bool();
        assert_eq!(api, Some(config.store.kind == StoreKind::Kubernetes), "{}", self.name);
    }

    /// The keys of its Secret that are mounted are those that pgimbal reads.
    fn page_has_its_tokens(&self) {
        let mut volumes = self.pod()["volumes"].as_array().unwrap().iter();
        let secret = volumes.find(|volume| volume["name"] == "page").map(|it| &it["secret"]);
        let items = secret.map(|it| it["items"].as_array().unwrap().iter());
        let mounted: BTreeSet<_> = items
            .into_iter()
            .flatten()
            .map(|item| {
                assert_eq!(item["key"], item["path"], "{}: {item}", self.name);
                item["key"].as_str().unwrap()
            })
            .collect();
        let access = &self.config.http.access;
        let files = [&access.admin_token_file, &access.token_file].into_iter().flatten();
        let read: BTreeSet<_> = files.filter_map(|path| path.file_name()?.to_str()).collect();
        assert_eq!(read, mounted, "{}", self.name);
    }

    /// The ports of the container by name.
    fn ports(&self) -> BTreeMap<&'a str, u64> {
        let list = self.container()["ports"].as_array().unwrap().iter();
        list.map(|port| (port["name"].as_str().unwrap(), port["containerPort"].as_u64().unwrap()))
            .collect()
    }

    fn ports_are_the_same_everywhere(&self) {
        let name = self.name;
        let ports = self.ports();
        let of = |addresses: &[std::net::SocketAddr]| -> Vec<u64> {
            addresses.iter().map(|address| u64::from(address.port())).collect()
        };
        let config = &self.config;
        let reads: Vec<u64> = ports.get("postgresql-ro").copied().into_iter().collect();
        let clients: Vec<_> = [&[ports["postgresql"]], &reads[..]].concat();
        assert_eq!(of(&config.listen.addresses), clients, "{name}");
        assert_eq!(of(&config.listen.read_listen), reads, "{name}");
        assert_eq!(of(config.http.listen.as_slice()), [ports["http"]], "{name}");
        let peers: Vec<u64> = ports.get("peers").copied().into_iter().collect();
        assert_eq!(of(config.peers.listen.as_slice()), peers, "{name}");
        for address in &config.listen.addresses {
            assert!(address.ip().is_unspecified(), "{name}: {address}");
        }
        let mut used = BTreeSet::new();
        for service in of_kind(self.objects, "Service").filter(|service| self.is_for_us(service)) {
            let [port] = &service["spec"]["ports"].as_array().unwrap()[..] else {
                panic!("{service}")
            };
            let target = port["targetPort"].as_str().unwrap();
            used.insert(target);
            let own = service["metadata"]["name"].as_str().unwrap();
            let meant = match target {
                "postgresql-ro" => own.ends_with("-ro"),
                "peers" => own.ends_with("-peers"),
                _ => true,
            };
            assert!(meant && ports.contains_key(target), "{name}: {service}");
        }
        let all: BTreeSet<_> = ports.keys().copied().filter(|port| *port != "http").collect();
        assert_eq!(used, all, "{name}");
        for policy in of_kind(self.objects, "NetworkPolicy") {
            let rules = policy["spec"]["ingress"].as_array().unwrap().iter();
            let open: BTreeSet<_> = rules
                .flat_map(|rule| rule["ports"].as_array().unwrap())
                .map(|port| port["port"].as_str().unwrap())
                .collect();
            assert_eq!(open, ports.keys().copied().collect(), "{name}");
        }
    }

    /// Whether the Service leads to pods of pgimbal.
    fn is_for_us(&self, service: &Value) -> bool {
        let labels = &self.deployment["spec"]["template"]["metadata"]["labels"];
        let selector = service["spec"]["selector"].as_object().unwrap();
        selector.iter().all(|(key, value)| labels[key] == *value)
    }

    fn peers_are_found(&self) {
        let name = self.name;
        let dns = self.config.peers.dns.as_deref();
        if dns.is_none() {
            assert_eq!(self.replicas(), 1, "{name}");
            return;
        }
        assert!(self.variables().iter().any(|name| name == "PGIMBAL_DEPLOYMENT_KEY"), "{name}");
        let headless = of_kind(self.objects, "Service")
            .find(|service| service["spec"]["clusterIP"] == "None" && self.is_for_us(service));
        let headless = headless.unwrap_or_else(|| panic!("{name}: no headless Service"));
        let own = headless["metadata"]["name"].as_str().unwrap();
        let namespace = headless["metadata"]["namespace"].as_str().unwrap_or_default();
        let full = format!("{own}.{namespace}.svc");
        assert!(dns == Some(own) || dns == Some(&full), "{name}: {dns:?}, {headless}");
        assert_eq!(headless["spec"]["publishNotReadyAddresses"], true, "{name}");
    }

    fn rights_are_the_least(&self) {
        let name = self.name;
        let account = self.pod()["serviceAccountName"].as_str().unwrap();
        if let Some(account) = find(self.objects, "ServiceAccount", account) {
            assert_eq!(account["automountServiceAccountToken"], false, "{name}");
        }
        for kind in ["ClusterRole", "ClusterRoleBinding"] {
            assert_eq!(of_kind(self.objects, kind).count(), 0, "{name}: {kind}");
        }
        let roles: Vec<_> = of_kind(self.objects, "Role").collect();
        if self.config.store.kind != StoreKind::Kubernetes {
            assert!(roles.is_empty(), "{name}: {roles:?}");
            return;
        }
        let secret = &self.config.store.secret;
        assert!(find(self.objects, "Secret", secret).is_some(), "{name}: no {secret}");
        let [role] = roles[..] else { panic!("{name}: {roles:?}") };
        let rule = json!([{
            "apiGroups": [""], "resources": ["secrets"], "resourceNames": [secret],
            "verbs": ["get", "list", "watch", "update"],
        }]);
        assert_eq!(role["rules"], rule, "{name}");
        let binding = of_kind(self.objects, "RoleBinding").next().unwrap();
        assert_eq!(binding["roleRef"]["name"], role["metadata"]["name"], "{name}");
        let [subject] = &binding["subjects"].as_array().unwrap()[..] else { panic!("{binding}") };
        assert_eq!(subject["name"], account, "{name}");
        assert_eq!(subject["namespace"], binding["metadata"]["namespace"], "{name}");
    }

    fn labels_find_the_pods(&self) {
        let labels = &self.deployment["spec"]["template"]["metadata"]["labels"];
        let budget = of_kind(self.objects, "PodDisruptionBudget").map(|it| &it["spec"]["selector"]);
        let policy = of_kind(self.objects, "NetworkPolicy").map(|it| &it["spec"]["podSelector"]);
        let monitor = of_kind(self.objects, "PodMonitor").map(|it| &it["spec"]["selector"]);
        let own = std::iter::once(&self.deployment["spec"]["selector"]);
        for selector in own.chain(budget).chain(policy).chain(monitor) {
            let wanted = selector["matchLabels"].as_object().unwrap();
            assert!(!wanted.is_empty(), "{}", self.name);
            for (key, value) in wanted {
                assert_eq!(labels[key], *value, "{}: {selector}", self.name);
            }
            // The pod of `helm test` is none of them.
            for pod in of_kind(self.objects, "Pod") {
                let is_one =
                    wanted.iter().all(|(key, value)| pod["metadata"]["labels"][key] == *value);
                assert!(!is_one, "{}: {selector}", self.name);
            }
        }
    }
}
