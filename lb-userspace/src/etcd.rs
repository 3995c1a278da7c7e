//! The configuration of a fleet, kept in etcd: heard of by a watch, and each node's report, kept there under a lease.
//!
//! etcd's own JSON gateway (`/v3/..`, etcd 3.4 and later) over HTTP/1.1, as its gRPC clients need a protobuf compiler to be built.
//! `location` says where it is, `client` asks one endpoint, `gateway` is what is asked and answered, `follow` is the task that never
//! gives up. What is heard is judged by `control::shared`.

mod client;
pub mod follow;
mod gateway;
pub mod location;

use std::time::Duration;

use self::{
    client::{Client, Error},
    gateway::Compare,
};
pub use self::{
    follow::{Follower, Heard},
    gateway::Entry,
    location::Location,
};

/// Every answer has to come within this.
const ANSWER: Duration = Duration::from_secs(3);

/// Asks every endpoint in turn for the configuration; `None` = there is none.
pub async fn fetch(location: &Location) -> Result<Option<Entry>, String> {
    let mut client = connect_any(location).await?;
    let (_, found) = client.get(&location.config_key()).await.map_err(|error| error.to_string())?;
    Ok(found)
}

/// All reports of nodes, by name, and the configuration.
pub async fn reports(
    location: &Location,
) -> Result<(Option<Entry>, Vec<(String, String)>), String> {
    let mut client = connect_any(location).await?;
    let all = async {
        let (_, config) = client.get(&location.config_key()).await?;
        Ok::<_, Error>((config, client.get_all(&location.node_key("")).await?))
    };
    let (config, found) = all.await.map_err(|error| error.to_string())?;
    let prefix = location.node_key("").len();
    let named = |entry: Entry| (entry.key.get(prefix..).unwrap_or_default().to_owned(), entry.text);
    Ok((config, found.into_iter().map(named).collect()))
}

/// Puts a configuration in place of the one with this revision (0 = of none). `None` = it was another one by then.
pub async fn put(location: &Location, text: &str, before: u64) -> Result<Option<u64>, String> {
    let mut client = connect_any(location).await?;
    let compare = Compare { key: location.config_key(), revision: before };
    client.put_if(&compare, text).await.map_err(|error| error.to_string())
}

async fn connect_any(location: &Location) -> Result<Client, String> {
    let mut problems = Vec::new();
    for endpoint in &location.endpoints {
        match Client::connect(location, endpoint).await {
            Ok(client) => return Ok(client),
            Err(error) => problems.push(format!("{endpoint}: {error}")),
        }
    }
    Err(problems.join("; "))
}
