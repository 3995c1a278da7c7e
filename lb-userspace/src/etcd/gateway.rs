//! What etcd's JSON gateway is asked and answers: keys and values in base64, numbers of 64 bits as strings, defaults left out.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::Deserialize;
use serde_json::{Value, json};

/// One key with its value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// etcd's revision with which it was written last.
    pub revision: u64,
    /// How often it was written.
    pub version: u64,
    /// The value.
    pub text: String,
}

/// What has to be so for a write: the key has this revision (0 = is not there).
#[derive(Clone, Debug)]
pub struct Compare {
    /// The key.
    pub key: String,
    /// Its revision.
    pub revision: u64,
}

/// `header` of every answer.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Header {
    revision: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct KeyValue {
    key: String,
    value: String,
    mod_revision: String,
    version: String,
}

/// Answer to a range, to a write and to a transaction.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Answer {
    header: Header,
    kvs: Vec<KeyValue>,
    succeeded: bool,
}

/// Answer to asking for a lease, or for more time.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Lease {
    /// Its number.
    #[serde(rename = "ID")]
    pub id: String,
    /// Seconds it holds; nothing = it is gone.
    #[serde(rename = "TTL")]
    pub seconds: String,
}

/// A line of an answer that goes on.
#[derive(Debug, Default, Deserialize)]
#[serde(default, bound = "T: Default + serde::de::DeserializeOwned")]
pub struct Line<T> {
    /// What it brings.
    pub result: Option<T>,
    /// Why it ends.
    pub error: Option<Value>,
}

/// What a watch tells.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Watched {
    /// It has ended.
    pub canceled: bool,
    /// Why.
    pub cancel_reason: String,
    /// What was asked for is older than what etcd keeps.
    pub compact_revision: String,
    events: Vec<Event>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Event {
    r#type: String,
    kv: KeyValue,
}

fn number(text: &str) -> u64 {
    text.parse().unwrap_or_default()
}

fn encode(text: &str) -> String {
    STANDARD.encode(text)
}

fn decode(text: &str) -> Result<String, String> {
    let bytes = STANDARD.decode(text).map_err(|error| error.to_string())?;
    String::from_utf8(bytes).map_err(|_| "a value is not UTF-8".to_owned())
}

impl KeyValue {
    fn entry(&self) -> Result<Entry, String> {
        Ok(Entry {
            key: decode(&self.key)?,
            revision: number(&self.mod_revision),
            version: number(&self.version),
            text: decode(&self.value)?,
        })
    }
}

impl Answer {
    /// etcd's revision.
    pub fn revision(&self) -> u64 {
        number(&self.header.revision)
    }

    /// What was found.
    pub fn entries(&self) -> Result<Vec<Entry>, String> {
        self.kvs.iter().map(KeyValue::entry).collect()
    }

    /// Of a transaction: its condition held.
    pub fn has_succeeded(&self) -> bool {
        self.succeeded
    }
}

impl Watched {
    /// What the key is now, if it has changed: `Some(None)` = gone.
    pub fn last(&self) -> Result<Option<Option<Entry>>, String> {
        match self.events.last() {
            None => Ok(None),
            Some(event) if event.r#type == "DELETE" => Ok(Some(None)),
            Some(event) => event.kv.entry().map(|entry| Some(Some(entry))),
        }
    }
}

/// One key.
pub fn range(key: &str) -> Value {
    json!({"key": encode(key)})
}

/// One key, without its value.
pub fn range_of_key(key: &str) -> Value {
    json!({"key": encode(key), "keys_only": true})
}

/// All keys that begin so.
pub fn range_of_prefix(prefix: &str) -> Value {
    json!({"key": encode(prefix), "range_end": STANDARD.encode(after_prefix(prefix))})
}

/// The first key after all that begin so.
fn after_prefix(prefix: &str) -> Vec<u8> {
    let mut end = prefix.as_bytes().to_vec();
    // ASCII, by the rules of `location`: never 0xff.
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    end
}

/// A key's new value, which goes when its lease does.
pub fn put(key: &str, text: &str, lease: &str) -> Value {
    json!({"key": encode(key), "value": encode(text), "lease": lease})
}

/// A key's new value, if the condition holds.
pub fn put_if(compare: &Compare, text: &str) -> Value {
    let key = encode(&compare.key);
    json!({
        "compare": [{"key": key, "target": "MOD", "result": "EQUAL", "mod_revision": compare.revision.to_string()}],
        "success": [{"request_put": {"key": key, "value": encode(text)}}],
    })
}

/// All changes of a key from a revision on.
pub fn watch(key: &str, from: u64) -> Value {
    json!({"create_request": {"key": encode(key), "start_revision": from.to_string()}})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_as_etcd_writes_them() {
        let text = r#"{"header":{"cluster_id":"1","member_id":"2","revision":"7","raft_term":"2"},
            "kvs":[{"key":"bGIvY29uZmln","create_revision":"2","mod_revision":"6","version":"3","value":"YTogMQo="}],"count":"1"}"#;
        let answer: Answer = serde_json::from_str(text).unwrap();
        let entry =
            Entry { key: "lb/config".into(), revision: 6, version: 3, text: "a: 1\n".into() };
        assert_eq!((answer.revision(), answer.entries().unwrap()), (7, vec![entry]));
        let empty: Answer = serde_json::from_str(r#"{"header":{"revision":"1"}}"#).unwrap();
        assert_eq!(empty.entries().unwrap(), []);
        let wrong = r#"{"kvs":[{"key":"bGI=","value":"/w=="}]}"#;
        let wrong: Answer = serde_json::from_str(wrong).unwrap();
        assert!(wrong.entries().unwrap_err().contains("UTF-8"));
    }

    #[test]
    fn watches_tell_writes_deletions_and_their_end() {
        let read = |text: &str| -> Line<Watched> { serde_json::from_str(text).unwrap() };
        let created = read(r#"{"result":{"header":{"revision":"6"},"created":true}}"#);
        assert_eq!(created.result.unwrap().last().unwrap(), None);
        let put = read(
            r#"{"result":{"header":{"revision":"8"},"events":[{"type":"DELETE","kv":{"key":"YQ=="}},
               {"kv":{"key":"YQ==","mod_revision":"8","version":"1","value":"eA=="}}]}}"#,
        );
        let put = put.result.unwrap();
        assert_eq!(put.last().unwrap().unwrap().unwrap().text, "x");
        let gone = read(r#"{"result":{"events":[{"type":"DELETE","kv":{"key":"YQ=="}}]}}"#);
        assert_eq!(gone.result.unwrap().last().unwrap(), Some(None));
        let over = read(r#"{"result":{"canceled":true,"compact_revision":"9"}}"#).result.unwrap();
        assert!(over.canceled && over.compact_revision == "9");
        assert!(read(r#"{"error":{"grpc_code":14}}"#).error.is_some());
    }

    #[test]
    fn a_prefix_ends_before_the_next_one() {
        assert_eq!(after_prefix("lb/nodes/"), b"lb/nodes0");
    }
}
