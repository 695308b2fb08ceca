//! `deploy/helm` and `deploy/kustomize` as a user uses them: both Helms render the chart, Kustomize
//! builds the overlays, and a real API server takes what they make.

mod configuration;
mod in_kubernetes;
mod releases;
mod rules;

use std::collections::BTreeSet;
use std::fs;

use pgimbal_tests::Postgres;
use pgimbal_tests::charts::{
    Charts, HELMS, Helm, KUBE_VERSION, chart, find, objects, of_kind, overlays, value_files,
};
use pgimbal_tests::pgimbal::{Config, undisturbed};
use pgimbal_tests::program::{Finished, run};
use pgimbal_tests::until::SOON;
use serde_json::{Map, Value};

use rules::Rendered;

/// Every way in which the chart is tried, as words for Helm behind its name.
fn ways() -> Vec<(String, Vec<String>)> {
    let with = |file: &std::path::Path| vec!["-f".to_owned(), file.display().to_string()];
    let mut ways: Vec<_> =
        value_files().into_iter().map(|(name, file)| (name, with(&file))).collect();
    let high = with(&chart().join("values-ha.yaml"));
    for (name, words) in ways.clone() {
        if ["default", "cnpg-vault"].contains(&name.as_str()) {
            ways.push((format!("{name}, highly available"), [high.clone(), words].concat()));
        }
    }
    ways
}

/// The file with the least values that pgimbal starts with.
fn least() -> String {
    chart().join("ci/default-values.yaml").display().to_string()
}

fn words(words: &[String]) -> Vec<&str> {
    words.iter().map(String::as_str).collect()
}

fn sorted(mut objects: Vec<Value>) -> Vec<Value> {
    objects.sort_by_key(|object| format!("{} {}", object["kind"], object["metadata"]["name"]));
    objects
}

#[test]
fn the_chart_is_free_of_faults_for_both_helms() {
    let charts = Charts::new();
    let folder = chart().display().to_string();
    for version in HELMS {
        for (name, own) in ways() {
            let arguments = [
                &["lint", "--strict", "--quiet", "--kube-version", KUBE_VERSION, &folder][..],
                &words(&own),
            ]
            .concat();
            let told = charts.helm(version, &arguments, None);
            assert!(told.success, "{version:?}, {name}: {}{}", told.stdout, told.stderr);
        }
    }
}

#[test]
fn both_helms_make_the_same_objects() {
    let charts = Charts::new();
    for (name, own) in ways() {
        let [three, four] =
            HELMS.map(|version| sorted(charts.template(version, "db", &words(&own))));
        assert_eq!(three, four, "{name}");
        assert!(three.len() >= 4, "{name}: {three:?}");
    }
}

#[test]
fn what_the_chart_makes_fits_together() {
    let charts = Charts::new();
    let mut kinds = BTreeSet::new();
    for (name, own) in ways() {
        let made = charts.template(Helm::Four, "db", &words(&own));
        kinds.extend(made.iter().map(|object| object["kind"].as_str().unwrap().to_owned()));
        Rendered::new(&name, &made).holds_the_rules();
    }
    let all = [
        "Certificate",
        "ConfigMap",
        "Deployment",
        "NetworkPolicy",
        "Pod",
        "PodDisruptionBudget",
        "PodMonitor",
        "PrometheusRule",
        "Role",
        "RoleBinding",
        "Secret",
        "Service",
        "ServiceAccount",
    ];
    assert_eq!(kinds.iter().map(String::as_str).collect::<Vec<_>>(), all);
}

#[test]
fn what_the_overlays_make_fits_together() {
    let charts = Charts::new();
    let names = overlays();
    let known = ["cnpg-external-secrets", "cnpg-vault", "cozystack", "vm-primary-with-dr"];
    assert_eq!(names, known.map(|name| format!("overlays/{name}")));
    for name in &names {
        Rendered::new(name, &charts.build(name)).holds_the_rules();
    }
}

#[test]
fn the_base_is_what_the_chart_makes_of_its_defaults() {
    let charts = Charts::new();
    let [base, chart] =
        [charts.build("base"), charts.template(Helm::Four, "db", &["-f", &least()])];
    let pod = |made: &[Value]| {
        let mut spec = find(made, "Deployment", "pgimbal").unwrap()["spec"].clone();
        // The one says it in the name, the other in an annotation.
        spec["template"]["spec"]["volumes"][0]["configMap"]["name"].take();
        // The chart's has a user.
        spec["template"]["spec"]["volumes"].as_array_mut().unwrap().truncate(1);
        let mounts = &mut spec["template"]["spec"]["containers"][0]["volumeMounts"];
        mounts.as_array_mut().unwrap().truncate(1);
        spec["template"]["metadata"].take();
        strip_selectors(&mut spec);
        spec
    };
    assert_eq!(pod(&base), pod(&chart));
    for kind in
        ["Service", "PodDisruptionBudget", "Role", "RoleBinding", "ServiceAccount", "Secret"]
    {
        let specs = |made: &[Value]| {
            let mut of = sorted(of_kind(made, kind).cloned().collect());
            for object in &mut of {
                object["metadata"] = object["metadata"]["name"].clone();
                strip_selectors(object);
            }
            of
        };
        assert_eq!(specs(&base), specs(&chart), "{kind}");
    }
}

/// Takes away what differs between the two for a good reason: the chart's labels have the release.
fn strip_selectors(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|name, value| {
                !(["matchLabels", "selector"].contains(&name.as_str())
                    && value.get("app.kubernetes.io/name").is_some()
                    || name == "namespace"
                    || name == "type" && value == "ClusterIP")
            });
            fields.values_mut().for_each(strip_selectors);
        }
        Value::Array(items) => items.iter_mut().for_each(strip_selectors),
        _ => {}
    }
}

#[test]
fn every_value_is_explained_and_has_a_type() {
    let text = fs::read_to_string(chart().join("values.yaml")).unwrap();
    let schema = fs::read_to_string(chart().join("values.schema.json")).unwrap();
    let schema: Value = serde_json::from_str(&schema).unwrap();
    let mut path: Vec<(usize, String)> = Vec::new();
    let mut explained = false;
    for line in text.lines() {
        let trimmed = line.trim_start();
        if let Some((key, rest)) = trimmed.split_once(':').filter(|_| !trimmed.starts_with('#')) {
            let indent = line.len() - trimmed.len();
            path.retain(|(outer, _)| *outer < indent);
            path.push((indent, key.to_owned()));
            // What stands in a map that takes any key is explained above the map; a map whose keys
            // are explained one by one need not be.
            let place = path.iter().fold(&schema, |schema, (_, key)| &schema["properties"][key]);
            let is_map = rest.is_empty() && place.get("properties").is_some();
            assert!(explained || place.is_null() || is_map, "no comment: {line}");
        }
        explained = trimmed.starts_with('#');
    }
    let [values] = &objects(&text)[..] else { panic!("one document") };
    let mut missing = Vec::new();
    types(values.as_object().unwrap(), &schema, "", &mut missing);
    assert_eq!(missing, Vec::<String>::new());
}

/// Notes the keys of which the schema says nothing.
fn types(values: &Map<String, Value>, schema: &Value, path: &str, missing: &mut Vec<String>) {
    for (key, value) in values {
        let own = &schema["properties"][key];
        if own.is_null() {
            missing.push(format!("{path}{key}"));
        } else if let (Some(fields), Some(_)) = (value.as_object(), own.get("properties")) {
            types(fields, own, &format!("{path}{key}."), missing);
        }
    }
}

#[test]
fn mistakes_are_refused_with_their_remedy() {
    let charts = Charts::new();
    let folder = chart().display().to_string();
    let start = ["template", "p", &folder, "--kube-version", KUBE_VERSION];
    for version in HELMS {
        let told = charts.helm(version, &start, None);
        assert!(told.stderr.contains("there is none, and pgimbal would not start"), "{told:?}");
    }
    let least = least();
    let start = [&start[..], &["-f", &least]].concat();
    for (set, says) in [
        ("config.users.app.password=x", "config.users.app.password would stand in a ConfigMap"),
        ("config.clusters.c.probe_password=x", "put it into a Secret"),
        ("config.deployment_key=x", "secretEnv"),
        ("config.http.token=x", "config.http.token would stand in a ConfigMap"),
        ("config.http.admin_token=x", "config.http.admin_token would stand in a ConfigMap"),
        (
            "page.existingSecret=page,config.http.admin_token_file=/etc/own",
            "config.http.admin_token_file: the chart sets it, from page",
        ),
        ("page.existingSecret=page,page.adminKey=", "page.adminKey"),
        ("config.listen=0.0.0.0:1", "config.listen: the chart sets it, from ports"),
        ("config.max_replicas=9", "from replicas"),
        ("config.drain_delay=5 minutes", "is no duration"),
        ("resources.limits.cpu=1", "config.workers"),
        ("peers.enabled=false", "more than one takes peers.enabled"),
        ("store.kind=memory", "a store that they share"),
        ("store.kind=file", "store.kind is kubernetes, vault or memory"),
        ("deploymentKey.existingSecret=", "deploymentKey.existingSecret"),
        ("replicas=three", "replicas"),
        ("ports.client=0", "client"),
        ("config.databases=app", "databases"),
    ] {
        for version in HELMS {
            let told = charts.helm(version, &[&start[..], &["--set", set]].concat(), None);
            assert!(!told.success, "{version:?} takes {set}");
            assert!(told.stderr.contains(says), "{version:?}, {set}: {}", told.stderr);
        }
    }
    // A value that this version does not know is no mistake: it may be another's.
    for version in HELMS {
        let added = [&start[..], &["--set", "global.a=b,config.pool_size=3"]].concat();
        drop(charts.helm(version, &added, None).succeeded());
    }
}

#[test]
fn alerts_have_the_labels_and_the_runbooks_of_their_people() {
    let text = fs::read_to_string(chart().join("files/rules.yaml")).unwrap();
    let mut groups = objects(&text).remove(0)["groups"].take();
    for group in groups.as_array_mut().unwrap() {
        for rule in group["rules"].as_array_mut().unwrap() {
            if let Some(name) = rule["alert"].as_str() {
                let page = format!("https://wiki.example/r/{name}.md");
                rule["annotations"]["runbook_url"] = page.into();
                rule["labels"]["team"] = "db".into();
            }
        }
    }
    let set = "prometheusRule.enabled=true,prometheusRule.alertLabels.team=db,\
               prometheusRule.runbookUrl=https://wiki.example/r/";
    let made = Charts::new().template(Helm::Four, "db", &["-f", &least(), "--set", set]);
    let rule = of_kind(&made, "PrometheusRule").next().unwrap();
    assert_eq!(rule["spec"]["groups"], groups);
}

/// What the container of the test pod runs, as the user of the pod, whom no list of users names.
fn in_test_pod(pod: &Value, password: &str, address: &str) -> Finished {
    let user = pod["spec"]["securityContext"]["runAsUser"].to_string();
    let mut command = undisturbed("bwrap");
    command.args(["--unshare-user", "--uid", &user, "--ro-bind", "/", "/", "--dev", "/dev"]);
    let container = &pod["spec"]["containers"][0];
    command.args(container["command"].as_array().unwrap().iter().filter_map(Value::as_str));
    command.env("PGHOSTADDR", address);
    for variable in container["env"].as_array().unwrap() {
        let value = match variable["value"].as_str() {
            Some(value) => value,
            None => {
                assert_eq!(variable["valueFrom"]["secretKeyRef"]["name"], "app");
                password
            }
        };
        command.env(variable["name"].as_str().unwrap(), value);
    }
    run(&mut command, SOON * 4)
}

#[test]
fn the_test_pod_connects_to_both_services() {
    let charts = Charts::new();
    let pg = Postgres::start();
    let proxy = Config::before(&pg).set("auth_type", "\"scram-sha-256\"").start();
    let least = least();
    let ports = format!("service.port={port},readService.port={port}", port = proxy.port);
    let pod_with = |own: &str| {
        let set = format!("test.sslmode=disable,{ports}{own}");
        let made = charts.template(Helm::Four, "db", &["-f", &least, "--set", &set]);
        find(&made, "Pod", "pgimbal-test").expect("a pod").clone()
    };
    let pod = pod_with(",test.user=app,test.existingSecret=app");
    assert_eq!(pod["metadata"]["annotations"]["helm.sh/hook"], "test");
    let told = in_test_pod(&pod, "app-secret", "127.0.0.1").succeeded();
    assert_eq!(told.stdout.matches("accepting connections").count(), 2, "{}", told.stdout);
    assert_eq!(told.stdout.matches("(1 row)").count(), 2, "{}", told.stdout);
    let hosts = pod["spec"]["containers"][0]["env"][0]["value"].as_str().unwrap();
    assert_eq!(hosts, format!("pgimbal:{port} pgimbal-ro:{port}", port = proxy.port));
    assert!(!in_test_pod(&pod, "wrong", "127.0.0.1").success);
    // Nobody listens there.
    assert!(!in_test_pod(&pod, "app-secret", "127.0.0.3").success);
    // Without a user it only asks.
    let told = in_test_pod(&pod_with(""), "", "127.0.0.1").succeeded();
    assert_eq!(told.stdout.matches("accepting connections").count(), 2, "{}", told.stdout);
    assert!(!in_test_pod(&pod_with(""), "", "127.0.0.3").success);
}

#[test]
fn the_sample_cluster_leaves_passwords_to_vault() {
    let made = Charts::new().build("overlays/cnpg-vault");
    let cluster = find(&made, "Cluster", "db").expect("a cluster");
    let start = &cluster["spec"]["bootstrap"]["initdb"];
    let owner = start["owner"].as_str().unwrap();
    let roles = cluster["spec"]["managed"]["roles"].as_array().unwrap();
    let map = of_kind(&made, "ConfigMap").next().unwrap();
    let toml = map["data"]["pgimbal.toml"].as_str().unwrap();
    let key = "PGIMBAL_DEPLOYMENT_KEY".to_owned();
    let config = configuration::read("sample", toml, &[key]);
    let pg = Postgres::start();
    pg.run(&format!("create role {owner}"));
    for statement in start["postInitSQL"].as_array().unwrap() {
        pg.run(statement.as_str().unwrap());
    }
    let rotated: Vec<_> =
        config.users.values().filter_map(|user| user.vault_role.clone()).collect();
    assert_eq!(rotated.len(), 3, "{rotated:?}");
    for name in rotated.iter().map(String::as_str).chain(["vault"]) {
        // CloudNativePG sets the owner's password again and again.
        assert_ne!(name, owner);
        let role = roles.iter().find(|role| role["name"] == name);
        let role = role.unwrap_or_else(|| panic!("{name} is not managed"));
        for field in ["passwordSecret", "disablePassword", "validUntil"] {
            assert!(role.get(field).is_none(), "{role}");
        }
        let attributes = |field: &str| role[field].as_bool().unwrap_or_default().to_string();
        let sql = format!(
            "select rolcanlogin::text || ' ' || rolcreaterole::text from pg_roles \
             where rolname = '{name}'"
        );
        let managed = format!("{} {}", attributes("login"), attributes("createrole"));
        assert_eq!(pg.value(&sql), managed, "{name}");
        if name != "vault" {
            pg.run(&format!("set role vault; alter role {name} password 'rotated'"));
            let admin = format!(
                "select admin_option::text from pg_auth_members \
                 where roleid = '{name}'::regrole and member = 'vault'::regrole"
            );
            assert_eq!(pg.value(&admin), "true", "{name}: PostgreSQL 16 asks for it");
        }
    }
}
