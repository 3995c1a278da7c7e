//! Connection ids of QUIC.

use std::collections::HashMap;

use super::{Findings, Subject};
use crate::config::model::{Origin, Protocol};

/// `quic_lb` and the backends' `server_id`.
pub(super) fn judge(subject: &Subject<'_>, findings: &mut Findings<'_>) {
    let service = subject.service;
    let path = subject.path("quic_lb");
    if let Some(format) = &service.quic_lb {
        if service.listen.protocol != Protocol::Quic {
            let name = service.listen.protocol.name();
            let message = format!("{path} has no effect on a {name} service");
            findings.warning(&path, message, "remove it, or write `protocol: quic`");
        }
        for (index, id) in format.config_ids.iter().enumerate() {
            if format.config_ids[..index].contains(id) {
                let place = format!("{path}.config_ids[{index}]");
                let message = format!("config id {id} is twice in {path}.config_ids");
                findings.error(&place, message, "remove one");
            }
        }
    }
    server_ids(subject, findings);
}

fn server_ids(subject: &Subject<'_>, findings: &mut Findings<'_>) {
    let mut taken: HashMap<&[u8], usize> = HashMap::new();
    for (index, backend) in subject.service.backends.iter().enumerate() {
        let Some(id) = backend.server_id.as_deref() else { continue };
        let path = subject.backend_path(index, "server_id");
        let Some(format) = &subject.service.quic_lb else {
            let message = format!("{path} has no effect without quic_lb");
            findings.error(&path, message, "remove it, or add `quic_lb:` to the service");
            continue;
        };
        let text: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
        let (length, wanted) = (id.len(), format.server_id_length);
        if length != usize::from(wanted) {
            let bytes = if length == 1 { "byte" } else { "bytes" };
            findings.error(
                &path,
                format!(
                    "{path} ({text}) has {length} {bytes}, and {} says {wanted}",
                    subject.path("quic_lb")
                ),
                format!("write {} hexadecimal digits", 2 * wanted),
            );
        }
        if backend.origin != Origin::Written {
            findings.error(
                &path,
                format!("{path} cannot be that of each address of a name"),
                "write a backend for each address",
            );
        }
        if let Some(first) = taken.get(id) {
            let first = subject.backend_path(*first, "server_id");
            let place = findings.place(&first);
            findings.error(
                &path,
                format!("{path} ({text}) is taken: first in {place}"),
                "give each backend a server id of its own",
            );
        }
        taken.entry(id).or_insert(index);
    }
}
