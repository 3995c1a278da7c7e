//! What no type can say: one file a subject, each finding named by its path.

mod addresses;
mod backends;
mod balance;
mod checks;
mod cluster;
mod dashboard;
mod discovery;
mod fragments;
mod fullnat;
mod limits;
mod listen;
mod outer_source;
mod roles;
mod services;
mod timing;

use std::{panic::resume_unwind, thread};

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

type Judge = fn(&Context<'_>, &mut Findings<'_>);

/// All rules, in the order in which what they find about one place is told.
const JUDGES: [Judge; 14] = [
    services::judge,
    checks::judge,
    listen::judge,
    dashboard::judge,
    cluster::judge,
    backends::judge,
    discovery::judge,
    roles::judge,
    timing::judge,
    limits::judge,
    balance::judge,
    fullnat::judge,
    outer_source::judge,
    fragments::judge,
];

/// From so many services on, each judge has a thread of its own.
const MANY: usize = 100;

/// Judges by all rules.
pub fn judge(context: &Context<'_>, findings: &mut Findings<'_>) {
    if context.config.services.len() < MANY {
        JUDGES.into_iter().for_each(|judge| judge(context, findings));
        return;
    }
    let found = thread::scope(|scope| {
        let threads = JUDGES.map(|judge| {
            let mut own = findings.none();
            scope.spawn(move || {
                judge(context, &mut own);
                own
            })
        });
        threads.map(|thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic)))
    });
    found.into_iter().for_each(|own| findings.take(own));
}
