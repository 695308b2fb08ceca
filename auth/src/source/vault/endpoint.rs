//! The calls of Vault's HTTP API that pgimbal makes, as rustify endpoints.
//!
//! vaultrs has types for them too, but those demand fields that are not always there and print
//! secrets when they are formatted.

use std::marker::PhantomData;

use pgimbal_config::Secret;
use rustify::endpoint::Endpoint;
use rustify::enums::{RequestMethod, RequestType, ResponseType};
use rustify::errors::ClientError;
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

use super::reply::{HealthData, RoleData, RoleNames, TokenData};

/// A call of Vault's HTTP API, whose answer has `T` in its field `data`.
pub(super) struct Call<T> {
    method: RequestMethod,
    path: String,
    body: Option<Zeroizing<Vec<u8>>>,
    data: PhantomData<fn() -> T>,
}

impl<T> Call<T> {
    const fn new(method: RequestMethod, path: String) -> Self {
        Self { method, path, body: None, data: PhantomData }
    }

    fn with_body(self, fields: &[(&str, &str)]) -> Self {
        Self { body: Some(json_object(fields)), ..self }
    }

    /// The text of a Vault policy that allows this call.
    pub(super) fn policy(&self) -> Box<str> {
        let capability = match self.method {
            RequestMethod::LIST => "list",
            RequestMethod::GET => "read",
            _ => "update",
        };
        format!("path \"{}\" {{ capabilities = [\"{capability}\"] }}", self.path).into()
    }
}

impl Call<RoleData> {
    /// `GET :mount/static-creds/:role`: the credentials of a static role.
    pub(super) fn static_credentials(mount: &str, role: &str) -> Self {
        Self::new(RequestMethod::GET, format!("{mount}/static-creds/{role}"))
    }
}

impl Call<RoleNames> {
    /// `LIST :mount/static-roles`: the names of all static roles.
    pub(super) fn static_roles(mount: &str) -> Self {
        Self::new(RequestMethod::LIST, format!("{mount}/static-roles"))
    }
}

impl Call<HealthData> {
    /// `GET sys/health`: the state of an address: active, standby or sealed.
    pub(super) fn health() -> Self {
        Self::new(RequestMethod::GET, "sys/health".to_owned())
    }
}

impl Call<TokenData> {
    /// `GET auth/token/lookup-self`: the token's time to live.
    pub(super) fn lookup_self() -> Self {
        Self::new(RequestMethod::GET, "auth/token/lookup-self".to_owned())
    }

    /// `POST auth/token/renew-self`: extends the token's life.
    pub(super) fn renew_self() -> Self {
        Self::new(RequestMethod::POST, "auth/token/renew-self".to_owned())
    }

    /// `POST auth/token/revoke-self`: revokes the token.
    pub(super) fn revoke_self() -> Self {
        Self::new(RequestMethod::POST, "auth/token/revoke-self".to_owned())
    }

    /// `POST auth/:mount/login` of the AppRole method; `secret_id` is `None` for a role without
    /// one.
    pub(super) fn approle_login(mount: &str, role_id: &str, secret_id: Option<&Secret>) -> Self {
        let call = Self::new(RequestMethod::POST, format!("auth/{mount}/login"));
        match secret_id {
            Some(secret) => call.with_body(&[("role_id", role_id), ("secret_id", secret.expose())]),
            None => call.with_body(&[("role_id", role_id)]),
        }
    }

    /// `POST auth/:mount/login` of the Kubernetes method, with a service account's token.
    pub(super) fn kubernetes_login(mount: &str, role: &str, jwt: &Secret) -> Self {
        Self::new(RequestMethod::POST, format!("auth/{mount}/login"))
            .with_body(&[("role", role), ("jwt", jwt.expose())])
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
