//! How full the tables are whose entries only the controller makes.

use super::{Dataplane, layout};
use lb_common::abi::SERVICE_BUCKET_ENTRIES;

impl Dataplane {
    /// By name: entries, and how many there may be.
    pub fn fills(&self) -> [(&'static str, (u64, u64)); 5] {
        let buckets = u64::from(self.sizes.table_buckets);
        [
            ("service_table", (self.table.used() as u64, buckets * SERVICE_BUCKET_ENTRIES as u64)),
            ("allow_prefixes", (self.allow.len() as u64, self.sizes.allow_prefixes.into())),
            ("deny_prefixes", (self.deny.len() as u64, self.sizes.deny_prefixes.into())),
            ("routes", (self.routes.len() as u64, layout::ROUTES.into())),
            ("neighbours", (self.neighbours.len() as u64, layout::NEIGHBOURS.into())),
        ]
    }
}
