//! The catalog of a database, read once from one of its servers.

use std::sync::Arc;
use std::time::Duration;

use pgimbal_auth::source::Sources;
use pgimbal_config::{Config, ResolvedPool, Secret, ServerPassword};
use pgimbal_reads::{CATALOG_QUERY, Catalog, CatalogRow};

use crate::dial::{self, Target};
use crate::tls::TlsConnector;
use crate::topology::{self, probe};
use crate::transport::Conversation;

/// For finding a server that answers, logging in and reading.
const TIME: Duration = Duration::from_secs(30);

/// A catalog, and where it is from.
pub(super) struct Known {
    pub(super) catalog: Catalog,
    /// A line for people.
    pub(super) origin: String,
}

/// Reads the catalog of a database as this user, from the first of its servers that gives it.
pub(super) async fn read(config: &Config, database: &str, user: &str) -> Known {
    let why = match tokio::time::timeout(TIME, from_servers(config, database, user)).await {
        Ok(Ok(known)) => return known,
        Ok(Err(why)) => why,
        Err(_) => format!("no answer within {} s", TIME.as_secs()),
    };
    let pool = config.pool(database, user);
    unread(database, &why, pool.iter().flat_map(|pool| &pool.read_functions).map(String::as_str))
}

fn unread<'a>(database: &str, why: &str, harmless: impl Iterator<Item = &'a str>) -> Known {
    let origin = format!(
        "The catalog of {database} was not read ({why}): functions that are not well known count \
         as no reads."
    );
    Known { catalog: Catalog::unread(harmless), origin }
}

async fn from_servers(config: &Config, database: &str, user: &str) -> Result<Known, String> {
    let pool = config
        .pool(database, user)
        .ok_or_else(|| format!("no user {user} of this database; --user names another"))?;
    let mut why = "it has no server".to_owned();
    for target in targets(config, &pool).await? {
        let server = format!("{}:{}", target.host, target.port);
        match from_server(&target, &pool.read_functions).await {
            Ok(catalog) => {
                let user = &pool.user;
                let origin = format!("The catalog of {database} is that of {server}, as {user}.");
                return Ok(Known { catalog, origin });
            }
            Err(error) => why = format!("{server}: {error}"),
        }
    }
    Err(why)
}

/// The servers of the database, with the login at each.
async fn targets(config: &Config, pool: &ResolvedPool) -> Result<Vec<Target>, String> {
    let connector = TlsConnector::new(&pool.tls).map_err(|error| error.to_string())?;
    let mut target = Target::new(pool, Arc::new(connector), config.clients.tcp.clone());
    if let ServerPassword::Role(role) = &pool.login {
        target.password = Some(password(config, role).await?);
        target.role = None;
    }
    let Some(cluster) = &pool.cluster else { return Ok(vec![target]) };
    let specs = topology::specs(config).map_err(|error| error.to_string())?;
    let spec = specs.iter().find(|spec| *spec.name == *cluster.name);
    let nodes = spec.ok_or_else(|| format!("no cluster {}", cluster.name))?.nodes().await?;
    Ok(nodes.into_iter().map(|node| target.at(node.host, node.port)).collect())
}

/// The password of a role whose source is asked.
async fn password(config: &Config, role: &str) -> Result<Secret, String> {
    let sources = Sources::new(config).map_err(|error| error.to_string())?;
    let source = config.user(role).and_then(|user| sources.of_user(role, &user));
    let source = source.ok_or_else(|| format!("no password of {role} is configured"))?;
    source.fetch().await.map(|answer| answer.password).map_err(|error| error.to_string())
}

/// `harmless` are the functions that count as reads, whatever the catalog says of them.
async fn from_server(target: &Target, harmless: &[String]) -> Result<Catalog, String> {
    let dialed = Box::pin(dial::dial(target)).await.map_err(|error| error.to_string())?;
    let mut conversation = Conversation::new(dialed.transport);
    conversation.inbox = dialed.residual;
    let settings = "SET client_encoding = 'UTF8'; SET default_transaction_read_only = on;";
    let mut rows = Vec::new();
    let question = format!("{settings}{CATALOG_QUERY}");
    probe::query_rows(&mut conversation, &question, |body| {
        let [kind, name, via] = probe::values(body)?;
        rows.push([kind, name, via].map(str::to_owned));
        Some(())
    })
    .await
    .map_err(|fault| fault.to_string())?;
    conversation.close().await;
    let rows = rows.iter().map(|[kind, name, via]| CatalogRow { kind, name, via });
    let harmless = harmless.iter().map(String::as_str);
    Catalog::from_rows(rows, harmless).map_err(|error| error.to_string())
}
