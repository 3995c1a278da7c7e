//! From sections to services.

use std::collections::BTreeMap;

use super::{
    Reader, Section,
    bind::Bind,
    values::{address_of, host_of, name_of},
};
use crate::import::{Backend, Choices, Forward, Imported, Service, name, period, yaml};

impl Reader {
    /// All of them, and what has no equivalent.
    pub(super) fn finish(mut self, choices: &Choices) -> Imported {
        let sections = std::mem::take(&mut self.sections);
        let mut services: Vec<Service> = Vec::new();
        // HAProxy's names of pools, by service.
        let mut pools: Vec<String> = Vec::new();
        for section in sections
            .iter()
            .filter(|section| ["frontend", "listen"].contains(&section.kind.as_str()))
        {
            let pool = match &section.default_backend {
                Some(wanted) => {
                    sections.iter().find(|one| one.kind == "backend" && one.name == *wanted)
                }
                None => Some(section),
            };
            let Some(pool) = pool.filter(|pool| !pool.servers.is_empty()) else {
                self.note(
                    section.line,
                    format!("`{}` has no servers that lb could use: left out", section.name),
                );
                continue;
            };
            if section.is_http {
                self.note(section.line, format!("`{}` is in mode http: lb forwards its TCP connections, whatever they carry", section.name));
            }
            self.note_backups(pool);
            for bind in &section.binds {
                let service = self.service(section, pool, bind, choices);
                pools.extend(service.iter().map(|_| pool.name.clone()));
                services.extend(service);
            }
        }
        let mut seen = BTreeMap::new();
        for service in &mut services {
            let count: &mut u32 = seen.entry(service.name.clone()).or_default();
            *count += 1;
            if *count > 1 {
                service.name = format!("{}-{}", service.name, service.port);
            }
        }
        self.name_tracked(&mut services, &pools);
        self.note_shared(&services);
        let notes = self.notes.into_keys().map(|(line, text)| match line {
            0 => text,
            line => format!("line {line}: {text}"),
        });
        let notes = notes.collect();
        yaml::write("a file of HAProxy", &services, notes)
    }

    /// HAProxy uses one backup after the other, unless it is told otherwise.
    fn note_backups(&mut self, pool: &Section) {
        let mut backups = pool.servers.iter().filter(|server| server.is_backup);
        if let (Some(_), Some(second)) = (backups.next(), backups.next())
            && !pool.all_backups
        {
            self.note(
                second.line,
                "more than one `backup`: lb uses all of a tier together; give them `tier: 1`, `tier: 2`... for one after the other",
            );
        }
    }

    /// `track` names HAProxy's backend; ours names the service that it became.
    fn name_tracked(&mut self, services: &mut [Service], pools: &[String]) {
        let known: Vec<(String, Vec<String>)> = services
            .iter()
            .map(|service| {
                (service.name.clone(), service.backends.iter().map(|b| b.name.clone()).collect())
            })
            .collect();
        for (index, service) in services.iter_mut().enumerate() {
            for backend in &mut service.backends {
                let Some(wanted) = backend.track.take() else { continue };
                let (pool, server) = wanted.split_once('/').unwrap_or((&pools[index], &wanted));
                let server = name(server);
                // Its own service first: several may have the same pool.
                let mut places = std::iter::once(index).chain(0..known.len());
                let found = places.find(|at| pools[*at] == pool && known[*at].1.contains(&server));
                match found {
                    Some(at) => backend.track = Some(format!("{}/{server}", known[at].0)),
                    None => self.note(
                        0,
                        format!(
                            "`{}` tracks `{wanted}`, which is in no service: left out",
                            backend.name
                        ),
                    ),
                }
            }
        }
    }

    /// A proxy may use a server for as many frontends as it likes; nat tells answers apart by the server's address and port.
    fn note_shared(&mut self, services: &[Service]) {
        let mut users: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for service in services.iter().filter(|service| service.forward == Forward::Nat) {
            for backend in &service.backends {
                users.entry(&backend.address).or_default().push(&service.name);
            }
        }
        for (address, services) in users.into_iter().filter(|(_, services)| services.len() > 1) {
            let text = format!(
                "{address} serves {}: with nat, let it listen on a port or address of its own for each",
                services.join(", ")
            );
            self.note(0, text);
        }
    }

    fn service(
        &mut self,
        section: &Section,
        pool: &Section,
        bind: &Bind,
        choices: &Choices,
    ) -> Option<Service> {
        let line = bind.line;
        let Some((port, last_port)) = bind.ports() else {
            self.note(
                line,
                format!("`bind {}`: a port, or a range of ports, please; left out", bind.text),
            );
            return None;
        };
        let address = bind.address().or(choices.vip);
        if address.is_none() {
            self.note(line, format!("`bind {}` names no address: give the VIP with --vip, or write it in place of THE-VIP", bind.text));
        }
        let mut service = Service {
            name: name(&section.name),
            address,
            port,
            last_port,
            mss: bind.mss,
            forward: choices.forward,
            balance: pool.balance,
            hash_balance_factor: pool.hash_balance_factor,
            persistence: self.persistence(pool),
            defaults: pool.defaults.clone(),
            ..Service::default()
        };
        let checked = pool.has_check || pool.servers.iter().any(|server| server.is_checked);
        service.check = checked.then(|| pool.check.clone());
        if last_port.is_some() && checked && pool.check.port.is_none() {
            self.note(
                line,
                "which of the ports is checked? Add `check: {port: ...}` to the service",
            );
        }
        service.agent.clone_from(&pool.agent);
        if let Some(observe) = &pool.observe {
            service.observe = observe.text(choices.forward, checked);
            if service.observe.is_none() {
                self.note(pool.line, "`observe` needs `check` in dsr and tunnel: left out");
            }
        }
        let (keys, missing) = section.admission.keys(address);
        service.admission = keys;
        if let Some(text) = missing {
            self.note(section.line, text);
        }
        let weighted = pool.servers.iter().any(|server| server.settings.weight.is_some());
        for server in &pool.servers {
            let found = match last_port {
                None => {
                    address_of(&server.address, port).or_else(|| name_of(&server.address, port))
                }
                Some(_) => host_of(&server.address),
            };
            if last_port.is_some() && found.is_none() && address_of(&server.address, port).is_some()
            {
                let text = format!(
                    "`{}` has a port of its own, and with several ports lb keeps the one that a client asks for; left out",
                    server.address
                );
                self.note(server.line, text);
                continue;
            }
            let Some(address) = found else {
                let text =
                    format!("`{}` is neither an address nor a name; left out", server.address);
                self.note(server.line, text);
                continue;
            };
            if !server.is_template && address_of(&server.address, port).is_none() {
                let text = format!(
                    "`{}`: lb resolves the name for as long as it runs, and each of its addresses is a backend",
                    server.address
                );
                self.note(server.line, text);
            }
            let mut settings = server.settings.clone();
            if weighted && pool.defaults.weight.is_none() {
                // HAProxy's default; ours is another, and weights are relative.
                settings.weight.get_or_insert(1);
            }
            service.backends.push(Backend {
                name: name(&server.name),
                address,
                settings,
                is_backup: server.is_backup,
                track: server.track.clone(),
                ..Backend::default()
            });
        }
        if service.backends.is_empty() {
            self.note(line, format!("`{}` has no backend left: left out", section.name));
            return None;
        }
        Some(service)
    }

    /// `stick on src`, with what its table says.
    fn persistence(&mut self, pool: &Section) -> Option<String> {
        let line = pool.stick?;
        let most = 24 * 3_600_000;
        let expires = match pool.stick_expires {
            Some(expires @ 1_000..=86_400_000) => expires,
            Some(0..1_000) => 1_000,
            _ => {
                self.note(line, "`stick on src`: lb remembers a client for 24h at most after its last packet; the table's `expire` is another or not here");
                most
            }
        };
        Some(format!("by: source, timeout: {}", period(expires / 1_000 * 1_000)))
    }
}
