//! `track:` from backend to backend, to the one that is checked.

use std::{collections::HashMap, net::SocketAddr, sync::Arc};

use super::model::{Probe, Service};

/// Where a chain of `track:` ends.
#[derive(Clone, Debug, PartialEq)]
pub enum End {
    /// At a backend that is checked.
    Checked(Box<Probe>),
    /// At one that is not.
    Unchecked(String),
    /// At a name that no backend has.
    Unknown(String),
    /// Where it began, or in a circle further on: all names from there to there again.
    Circle(Vec<String>),
}

/// By `SERVICE/BACKEND`: the place of each backend.
pub type Places = HashMap<String, (usize, usize)>;

/// All backends by name.
pub fn places(services: &[Service]) -> Places {
    let mut places = HashMap::new();
    for (index, service) in services.iter().enumerate() {
        let backends = service.backends.iter().enumerate();
        // One name for many has no health of its own.
        for (number, backend) in backends.filter(|(_, one)| !one.origin.is_template()) {
            places.entry(format!("{}/{}", service.name, backend.name)).or_insert((index, number));
        }
    }
    places
}

/// Fills in what is checked for each backend that tracks another.
pub fn follow(services: &mut [Service]) {
    let tracks = |service: &Service| service.backends.iter().any(|b| b.track.is_some());
    if !services.iter().any(tracks) {
        return;
    }
    let places = places(services);
    let mut probes = Vec::new();
    for (index, service) in services.iter().enumerate() {
        for (number, backend) in service.backends.iter().enumerate() {
            if let Some(tracked) = &backend.track
                && let End::Checked(probe) = end(services, &places, &tracked.name)
            {
                probes.push((index, number, *probe));
            }
        }
    }
    for (index, number, probe) in probes {
        if let Some(tracked) = &mut Arc::make_mut(&mut services[index].backends[number]).track {
            tracked.probe = Some(probe);
        }
    }
}

/// The end of the chain that begins with a name.
pub fn end(services: &[Service], places: &Places, name: &str) -> End {
    let mut seen = vec![name.to_owned()];
    loop {
        let name = seen[seen.len() - 1].clone();
        let Some(&(index, number)) = places.get(&name) else { return End::Unknown(name) };
        let (service, backend) = (&services[index], &services[index].backends[number]);
        match (&backend.track, &service.check) {
            (Some(next), _) => {
                let first = seen.iter().position(|known| *known == next.name);
                seen.push(next.name.clone());
                if let Some(first) = first {
                    return End::Circle(seen.split_off(first));
                }
            }
            (None, Some(check)) if !backend.sorry => {
                return End::Checked(Box::new(Probe {
                    address: backend.address,
                    port: backend.port,
                    check: check.clone(),
                    timing: backend.timing,
                    service: service.name.clone(),
                    backend: backend.name.clone(),
                    vip: SocketAddr::new(service.listen.address, service.listen.port),
                    forward: service.forward,
                }));
            }
            (None, _) => return End::Unchecked(name),
        }
    }
}
