//! The environment of a container: literal values, fields of its pod, keys of ConfigMaps and
//! Secrets, and the address of the API server.

use std::net::Ipv4Addr;

use serde_json::Value;

use super::sources::Sources;

/// The variables of a container, `NAME=VALUE`.
///
/// # Errors
/// What is missing, as the kubelet says it.
///
/// # Panics
/// When a variable is of a kind that this kubelet does not know.
pub(super) fn variables(
    sources: &Sources,
    pod: &Value,
    container: &Value,
    address: Ipv4Addr,
    api_server: Ipv4Addr,
) -> Result<Vec<String>, String> {
    assert!(container.get("envFrom").is_none(), "this kubelet knows no envFrom");
    let namespace = pod["metadata"]["namespace"].as_str().expect("a namespace");
    // What every pod gets, whether or not it wants those of the other Services.
    let mut all = vec![
        format!("KUBERNETES_SERVICE_HOST={api_server}"),
        "KUBERNETES_SERVICE_PORT=443".to_owned(),
        "KUBERNETES_SERVICE_PORT_HTTPS=443".to_owned(),
        format!("KUBERNETES_PORT=tcp://{api_server}:443"),
    ];
    for variable in container["env"].as_array().into_iter().flatten() {
        let name = variable["name"].as_str().expect("a name");
        let Some(from) = variable.get("valueFrom") else {
            let value = variable["value"].as_str().unwrap_or_default();
            assert!(!value.contains("$("), "this kubelet expands nothing: {value}");
            all.push(format!("{name}={value}"));
            continue;
        };
        if let Some(field) = from["fieldRef"]["fieldPath"].as_str() {
            all.push(format!("{name}={}", field_of(pod, field, address)));
            continue;
        }
        let kinds = [("secret", "secretKeyRef"), ("configMap", "configMapKeyRef")];
        let found = kinds.iter().find_map(|(kind, key)| Some((kind, from.get(*key)?)));
        let (kind, reference) = found.unwrap_or_else(|| panic!("no known variable: {variable}"));
        let of = |key: &str| reference[key].as_str().expect("a name and a key");
        match sources.text(kind, namespace, of("name"), of("key")) {
            Ok(value) => all.push(format!("{name}={value}")),
            Err(_) if reference["optional"] == true => {}
            Err(why) => return Err(why),
        }
    }
    Ok(all)
}

fn field_of(pod: &Value, field: &str, address: Ipv4Addr) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    match field {
        "metadata.name" => text(&pod["metadata"]["name"]),
        "metadata.namespace" => text(&pod["metadata"]["namespace"]),
        "metadata.uid" => text(&pod["metadata"]["uid"]),
        "spec.nodeName" => text(&pod["spec"]["nodeName"]),
        "spec.serviceAccountName" => text(&pod["spec"]["serviceAccountName"]),
        "status.podIP" => address.to_string(),
        other => panic!("this kubelet knows no field {other}"),
    }
}
