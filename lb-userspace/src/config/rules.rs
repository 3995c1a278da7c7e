//! What no type can say: one file a subject, each finding named by its path.

mod addresses;
mod backends;
mod balance;
mod checks;
mod dashboard;
mod discovery;
mod limits;
mod listen;
mod roles;
mod services;
mod timing;

use super::{
    diagnostic::Findings,
    model::{Config, Service},
    spec,
};

/// What there is to judge.
pub struct Context<'a> {
    /// As written.
    pub file: &'a spec::File,
    /// With defaults.
    pub config: &'a Config,
    /// Where in the file each service is: those with a wrong shape are left out.
    pub indices: &'a [usize],
    /// Keys of the top level that are left out because their values are wrong.
    pub wrong: &'a [String],
}

/// One service with all that rules want to know of it.
#[derive(Clone, Copy)]
pub struct Subject<'a> {
    /// Where in the file it is.
    pub index: usize,
    /// As written.
    pub written: &'a spec::Service,
    /// With defaults.
    pub service: &'a Service,
}

impl Subject<'_> {
    /// `services[3].key`
    pub fn path(&self, key: &str) -> String {
        format!("services[{}].{key}", self.index)
    }

    /// `services[3].backends[5].key`
    pub fn backend_path(&self, backend: usize, key: &str) -> String {
        format!("services[{}].backends[{backend}].{key}", self.index)
    }
}

impl<'a> Context<'a> {
    fn subjects(&self) -> impl Iterator<Item = Subject<'a>> + use<'a> {
        let pairs = self.file.services.iter().zip(&self.config.services);
        self.indices.iter().zip(pairs).map(|(&index, (written, service))| Subject {
            index,
            written,
            service,
        })
    }

    /// Whether what the file says under this key of the top level can be relied on.
    fn is_sound(&self, key: &str) -> bool {
        !self.wrong.iter().any(|wrong| wrong == key)
    }
}

pub use self::{addresses::refuse, discovery::listed};

/// All rules.
pub fn judge(context: &Context<'_>, findings: &mut Findings<'_>) {
    services::judge(context, findings);
    checks::judge(context, findings);
    listen::judge(context, findings);
    dashboard::judge(context, findings);
    backends::judge(context, findings);
    discovery::judge(context, findings);
    roles::judge(context, findings);
    timing::judge(context, findings);
    limits::judge(context, findings);
    balance::judge(context, findings);
}
