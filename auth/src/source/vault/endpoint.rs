//! The calls of Vault's HTTP API that pgimbal makes, as rustify endpoints. [`super`] says which
//! part of them is vaultrs'.

use std::marker::PhantomData;

use pgimbal_config::Secret;
use rustify::endpoint::Endpoint;
use rustify::enums::{RequestMethod, RequestType, ResponseType};
use rustify::errors::ClientError;
use serde::de::DeserializeOwned;
use vaultrs::api::database::requests::GetStaticCredentialsRequest;
use vaultrs::api::kv2::requests::ReadSecretRequest;
use vaultrs::api::sys::requests::ReadHealthRequest;
use vaultrs::api::token::requests::{
    LookupTokenSelfRequest, RenewTokenSelfRequest, RevokeTokenSelfRequest,
};
use zeroize::Zeroizing;

use super::reply::{Capabilities, HealthData, KvData, RoleData, TokenData};

/// A call of Vault's HTTP API, whose answer has `T` in its field `data`.
pub(super) struct Call<T> {
    method: RequestMethod,
    path: String,
    body: Option<Zeroizing<Vec<u8>>>,
    data: PhantomData<fn() -> T>,
}

impl<T> Call<T> {
    /// Method and path of a request of vaultrs' that has no body.
    fn of(request: &impl Endpoint) -> Self {
        // Some of its paths begin with a slash, and two with a tab before it.
        let path = request.path().trim_start().trim_start_matches('/').to_owned();
        Self { method: request.method(), path, body: None, data: PhantomData }
    }

    /// A login at an auth method's mount, with a secret among its `fields`.
    fn login(mount: &str, fields: &[(&str, &str)]) -> Self {
        Self::post(format!("auth/{mount}/login"), json_object(fields))
    }

    const fn post(path: String, body: Zeroizing<Vec<u8>>) -> Self {
        Self { method: RequestMethod::POST, path, body: Some(body), data: PhantomData }
    }

    /// The text of a Vault policy that allows this call.
    pub(super) fn policy(&self) -> Box<str> {
        let capability = match self.method {
            RequestMethod::GET => "read",
            _ => "update",
        };
        format!("path \"{}\" {{ capabilities = [\"{capability}\"] }}", self.path).into()
    }
}

impl Call<RoleData> {
    /// `GET :mount/static-creds/:role`: the credentials of a static role.
    pub(super) fn static_credentials(mount: &str, role: &str) -> Self {
        Self::of(&GetStaticCredentialsRequest { mount: mount.into(), name: role.into() })
    }
}

impl Call<KvData> {
    /// `GET :mount/data/:path`: the newest version of a secret of the KV engine, version 2.
    pub(super) fn kv_read(mount: &str, path: &str) -> Self {
        Self::of(&ReadSecretRequest { mount: mount.into(), path: path.into(), version: None })
    }

    /// `POST :mount/data/:path`: writes `document`, a text that needs no escapes, if the newest
    /// version is `version`.
    pub(super) fn kv_write(mount: &str, path: &str, version: u64, document: &str) -> Self {
        let head = format!("{{\"options\":{{\"cas\":{version}}},\"data\":{{\"document\":\"");
        let mut body = Zeroizing::new(Vec::with_capacity(head.len() + document.len() + 3));
        for part in [&head, document, "\"}}"] {
            body.extend_from_slice(part.as_bytes());
        }
        Self::post(format!("{mount}/data/{path}"), body)
    }

    /// `POST :mount/metadata/:path`: how many versions Vault keeps.
    pub(super) fn kv_keep_versions(mount: &str, path: &str, count: u32) -> Self {
        let body = format!("{{\"max_versions\":{count}}}").into_bytes();
        Self::post(format!("{mount}/metadata/{path}"), Zeroizing::new(body))
    }
}

impl Call<Capabilities> {
    /// `POST sys/capabilities-self`: what the token may do at `path`.
    pub(super) fn capabilities_self(path: &str) -> Self {
        Self::post("sys/capabilities-self".to_owned(), json_object(&[("path", path)]))
    }
}

impl Call<HealthData> {
    /// `GET sys/health`: the state of an address: active, standby or sealed.
    pub(super) fn health() -> Self {
        Self::of(&ReadHealthRequest::default())
    }
}

impl Call<TokenData> {
    /// `GET auth/token/lookup-self`: the token's time to live.
    pub(super) fn lookup_self() -> Self {
        Self::of(&LookupTokenSelfRequest {})
    }

    /// `POST auth/token/renew-self`: extends the token's life.
    pub(super) fn renew_self() -> Self {
        Self::of(&RenewTokenSelfRequest::default())
    }

    /// `POST auth/token/revoke-self`: revokes the token.
    pub(super) fn revoke_self() -> Self {
        Self::of(&RevokeTokenSelfRequest {})
    }

    /// `POST auth/:mount/login` of the AppRole method; `secret_id` is `None` for a role without
    /// one.
    pub(super) fn approle_login(mount: &str, role_id: &str, secret_id: Option<&Secret>) -> Self {
        match secret_id {
            Some(secret) => {
                Self::login(mount, &[("role_id", role_id), ("secret_id", secret.expose())])
            }
            None => Self::login(mount, &[("role_id", role_id)]),
        }
    }

    /// `POST auth/:mount/login` of the Kubernetes method, with a service account's token.
    pub(super) fn kubernetes_login(mount: &str, role: &str, jwt: &Secret) -> Self {
        Self::login(mount, &[("role", role), ("jwt", jwt.expose())])
    }
}

impl<T: DeserializeOwned + Send + Sync> Endpoint for Call<T> {
    type Response = T;
    const REQUEST_BODY_TYPE: RequestType = RequestType::JSON;
    const RESPONSE_BODY_TYPE: ResponseType = ResponseType::JSON;

    fn path(&self) -> String {
        self.path.clone()
    }

    fn method(&self) -> RequestMethod {
        self.method.clone()
    }

    fn body(&self) -> Result<Option<Vec<u8>>, ClientError> {
        Ok(self.body.as_ref().map(|body| body.to_vec()))
    }
}

/// `{"name":"text",…}`, in one allocation that is wiped.
fn json_object(fields: &[(&str, &str)]) -> Zeroizing<Vec<u8>> {
    // A character becomes six at most: a control character as \u00XX.
    let room = fields.iter().map(|(name, text)| 6 * (name.len() + text.len()) + 8).sum::<usize>();
    let mut body = Zeroizing::new(Vec::with_capacity(room + 2));
    body.push(b'{');
    for (index, (name, text)) in fields.iter().enumerate() {
        if index > 0 {
            body.push(b',');
        }
        json_text(&mut body, name);
        body.push(b':');
        json_text(&mut body, text);
    }
    body.push(b'}');
    body
}

fn json_text(body: &mut Vec<u8>, text: &str) {
    body.push(b'"');
    for byte in text.bytes() {
        match byte {
            b'"' | b'\\' => body.extend_from_slice(&[b'\\', byte]),
            0..=0x1f => body.extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
            other => body.push(other),
        }
    }
    body.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_those_of_vaults_documentation() {
        fn line<T>(call: &Call<T>) -> String {
            format!("{:?} {}", call.method, call.path)
        }
        let role = Call::static_credentials("db/eu", "app");
        assert_eq!(line(&role), "GET db/eu/static-creds/app");
        assert_eq!(line(&Call::health()), "GET sys/health");
        assert_eq!(line(&Call::lookup_self()), "GET auth/token/lookup-self");
        assert_eq!(line(&Call::renew_self()), "POST auth/token/renew-self");
        assert_eq!(line(&Call::revoke_self()), "POST auth/token/revoke-self");
        let login = Call::kubernetes_login("k8s", "app", &Secret::from("x"));
        assert_eq!(line(&login), "POST auth/k8s/login");
        assert_eq!(line(&Call::kv_read("kv", "team/a")), "GET kv/data/team/a");
        let write = Call::kv_write("kv", "team/a", 7, "AAEC");
        assert_eq!(line(&write), "POST kv/data/team/a");
        let body = write.body().expect("a body").expect("a body");
        let value: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
        let expected =
            serde_json::json!({ "options": { "cas": 7 }, "data": { "document": "AAEC" } });
        assert_eq!(value, expected);
        assert_eq!(line(&Call::kv_keep_versions("kv", "a", 2)), "POST kv/metadata/a");
    }

    #[test]
    fn a_login_is_json_whatever_the_secret_is() {
        let odd = "a\"b\\c\nd\u{1}é";
        let call = Call::approle_login("approle", "id", Some(&Secret::from(odd)));
        let body = call.body().expect("a body").expect("a body");
        let value: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
        assert_eq!(value, serde_json::json!({ "role_id": "id", "secret_id": odd }));
    }

    #[test]
    fn a_body_never_outgrows_its_first_allocation() {
        let worst = "\u{1}".repeat(1000);
        let body = json_object(&[("a", &worst), ("b", &worst)]);
        let room = [("a", &worst), ("b", &worst)].map(|(n, t)| 6 * (n.len() + t.len()) + 8);
        assert!(body.len() <= room.iter().sum::<usize>() + 2, "{}", body.len());
    }
}
