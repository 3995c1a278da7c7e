//! Templates -> concrete backends. Pure: equal inputs give equal backends on every node, whatever the order and time in
//! which answers came.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    net::IpAddr,
    path::Path,
    sync::Arc,
};

use ipnet::IpNet;

use super::{Answers, Directory, Found, Question, answers::SrvRecord};
use crate::config::{
    self,
    model::{Backend, Config, Forward, Origin, Service, listen::AnswerPorts},
};

/// Most addresses of one name that are used.
const MOST: usize = 1_000;
/// Longest name of a backend.
const LONGEST_NAME: usize = 64;
/// Last tier.
const LAST_TIER: u8 = 15;

/// What came of it.
#[derive(Debug)]
pub struct Expanded {
    /// Without templates.
    pub config: Config,
    /// What was found and cannot be used, with the remedy.
    pub problems: Vec<String>,
}

/// What has to be asked for the templates of a configuration.
pub fn questions(config: &Config) -> BTreeSet<Question> {
    let services = config.services.iter();
    services
        .flat_map(|service| service.backends.iter().filter_map(|one| question(service, one)))
        .collect()
}

/// What has to be asked for a backend of a service; `None` = it is no template.
pub fn question(service: &Service, template: &Backend) -> Option<Question> {
    let (name, srv) = match &template.origin {
        Origin::Name(name) => (name, false),
        Origin::Srv(name) => (name, true),
        _ => return None,
    };
    // Only a tunnel can change the family.
    let any = service.forward.is_tunnel();
    let has = |v6| any || service.listen.vips.iter().any(|vip| vip.addr().is_ipv6() == v6);
    Some(Question { name: name.clone(), srv, v4: has(false), v6: has(true) })
}

/// Makes concrete backends. `serving` tells the backends that a service has now: they stay for as long as one of its names
/// has never been resolved, so that a name in place of an address takes nobody away before there is somebody else.
pub fn expand(
    templates: &Config,
    answers: &Answers,
    directories: &BTreeMap<&Path, &Directory>,
    serving: impl Fn(&Service) -> Vec<Backend>,
) -> Expanded {
    let mut config = templates.clone();
    if !templates.services.iter().any(Service::is_discovered) {
        return Expanded { config, problems: Vec::new() };
    }
    let mut house = House::new(templates);
    for (service, written) in config.services.iter_mut().zip(&templates.services) {
        if !written.is_discovered() {
            continue;
        }
        service.backends_from = None;
        service.backends.retain(|backend| !backend.origin.is_template());
        let mut room = Room::new(service);
        if let Some(from) = &written.backends_from
            && let Some(directory) = directories.get(from.directory.as_path())
        {
            for (path, listed) in directory.lists() {
                for (backend, line) in listed.backends(path, &from.defaults) {
                    let place = format!("{}:{line}", path.display());
                    room.add(service, backend, &place, &mut house);
                }
            }
        }
        let mut waits = false;
        for template in &written.backends {
            let Some(question) = question(written, template) else { continue };
            let Some(found) = answers.get(&question) else {
                waits = true;
                continue;
            };
            let place = format!("{} ({}/{})", question.name, written.name, template.name);
            if found.len() > MOST {
                let count = found.len();
                let text = format!("{place} has {count} addresses: only the first {MOST} are used");
                house.problems.push(text);
            }
            for backend in of_answer(template, &question.name, found) {
                room.add(service, backend, &place, &mut house);
            }
        }
        if waits {
            for backend in serving(written) {
                let held = Backend { origin: held(&backend.origin), ..backend };
                room.hold(service, held, &mut house);
            }
        }
    }
    Expanded { config, problems: house.problems }
}

/// One that stays is as it was, but what the file once told and does not any more is held.
fn held(origin: &Origin) -> Origin {
    match origin {
        Origin::Answer { .. } => origin.clone(),
        _ => Origin::Held,
    }
}

/// The backends of an answer, in the order of their addresses.
fn of_answer<'a>(
    template: &'a Backend,
    name: &'a str,
    found: &'a BTreeSet<Found>,
) -> impl Iterator<Item = Backend> + 'a {
    let priorities: BTreeSet<u16> =
        found.iter().filter_map(|one| Some(one.record.as_ref()?.priority)).collect();
    let mut heaviest: HashMap<u16, u16> = HashMap::new();
    for record in found.iter().filter_map(|one| one.record.as_ref()) {
        let most = heaviest.entry(record.priority).or_default();
        *most = (*most).max(record.weight);
    }
    found.iter().take(MOST).map(move |one| {
        let (port, weight, tier) = match &one.record {
            None => (template.port, template.weight, template.tier),
            Some(record) => {
                let step = priorities.iter().position(|priority| *priority == record.priority);
                let tier = usize::from(template.tier) + step.unwrap_or_default();
                let heaviest = heaviest.get(&record.priority).copied().unwrap_or_default();
                let tier = if template.sorry { 0 } else { tier.min(usize::from(LAST_TIER)) as u8 };
                (record.port, share(template.weight, record, heaviest), tier)
            }
        };
        let origin = Origin::Answer { template: template.name.clone(), name: name.to_owned() };
        let port_of_name = one.record.as_ref().map(|record| record.port);
        Backend {
            name: backend_name(&template.name, one.address, port_of_name),
            address: one.address,
            port,
            weight,
            tier,
            origin,
            ..template.clone()
        }
    })
}

/// The part of a weight that an SRV record asks for: the heaviest of its priority gets all of it. Where all have 0, all are
/// equal; where others have more, 0 is "a very small chance" (RFC 2782).
fn share(weight: u16, record: &SrvRecord, heaviest: u16) -> u16 {
    if weight == 0 || heaviest == 0 {
        return weight;
    }
    let share = (u32::from(weight) * u32::from(record.weight)).div_ceil(u32::from(heaviest));
    share.max(1) as u16
}

/// `app-10.0.0.5`, `app-2001_db8__5`, and `app-10.0.0.5-8080` where records tell ports. The template's part gives way if it
/// gets too long.
fn backend_name(template: &str, address: IpAddr, port: Option<u16>) -> String {
    let mut tail = format!("-{}", address.to_string().replace(':', "_"));
    if let Some(port) = port {
        tail += &format!("-{port}");
    }
    // Names are ASCII.
    let head: String = template.chars().take(LONGEST_NAME - tail.len()).collect();
    head + &tail
}

/// What all services have in common.
struct House {
    vips: HashMap<IpAddr, String>,
    prefixes: Vec<(IpNet, String)>,
    /// Whose answers come from where, in nat.
    replies: HashMap<(IpAddr, u8), Vec<(AnswerPorts, String)>>,
    problems: Vec<String>,
}

impl House {
    fn new(templates: &Config) -> Self {
        let services = templates.services.iter();
        let vips = services
            .clone()
            .flat_map(|one| one.listen.addresses().map(|vip| (vip, one.name.clone())))
            .collect();
        let prefixes = services
            .clone()
            .flat_map(|one| one.listen.prefixes().map(|vip| (vip, one.name.clone())))
            .collect();
        let mut house = Self { vips, prefixes, replies: HashMap::new(), problems: Vec::new() };
        for service in services.filter(|service| service.forward == Forward::Nat) {
            for backend in service.backends.iter().filter(|one| !one.origin.is_template()) {
                house.note(service, backend);
            }
        }
        house
    }

    /// Notes where answers for a nat service come from.
    fn note(&mut self, service: &Service, backend: &Backend) {
        let answers = AnswerPorts::of(&service.listen, backend.port);
        let key = (backend.address, service.listen.protocol.number());
        self.replies.entry(key).or_default().push((answers, service.name.clone()));
    }

    /// Whose VIP an address is.
    fn vip(&self, address: IpAddr) -> Option<&String> {
        let within = || self.prefixes.iter().find(|(prefix, _)| prefix.contains(&address));
        self.vips.get(&address).or_else(|| within().map(|(_, name)| name))
    }
}

/// What is taken in one service.
struct Room {
    names: HashSet<String>,
    addresses: HashMap<(IpAddr, u16), String>,
}

impl Room {
    fn new(service: &Service) -> Self {
        let mut room = Self { names: HashSet::new(), addresses: HashMap::new() };
        service.backends.iter().for_each(|backend| room.note(backend));
        room
    }

    fn note(&mut self, backend: &Backend) {
        self.names.insert(backend.name.clone());
        self.addresses.insert((backend.address, backend.port), backend.name.clone());
    }

    /// Takes a backend in, unless something speaks against it.
    fn add(&mut self, service: &mut Service, backend: Backend, place: &str, house: &mut House) {
        match self.refuse(service, &backend, house) {
            None => self.take(service, backend, house),
            Some(why) => house.problems.push(format!("{place}: {why}; it is left out")),
        }
    }

    /// Lets a backend stay where nothing speaks against it.
    fn hold(&mut self, service: &mut Service, backend: Backend, house: &mut House) {
        if self.refuse(service, &backend, house).is_none() {
            self.take(service, backend, house);
        }
    }

    fn take(&mut self, service: &mut Service, backend: Backend, house: &mut House) {
        self.note(&backend);
        if service.forward == Forward::Nat {
            house.note(service, &backend);
        }
        service.backends.push(Arc::new(backend));
    }

    /// Why a backend cannot be one, and what would be right.
    fn refuse(&self, service: &Service, backend: &Backend, house: &House) -> Option<String> {
        let (address, port, listen) = (backend.address, backend.port, &service.listen);
        if let Some((what, help)) = config::refuse_address(address) {
            return Some(format!("{address} is {what}: {help}"));
        }
        if let Some(other) = house.vip(address) {
            return Some(format!(
                "{address} is the VIP of service `{other}`, packets would run in a circle: write the backend's own address"
            ));
        }
        if !service.forward.is_tunnel() && !listen.has_family_of(address) {
            return Some(format!(
                "{address} is of another family than the VIP {}: use addresses of one family, or `forward: tunnel`",
                listen.address
            ));
        }
        if !listen.has_one_port() && port != 0 {
            return Some(format!(
                "port {port} of {address} does not go with ports {}: leave it out, packets keep theirs",
                listen.ports()
            ));
        }
        if !service.forward.sees_replies() && listen.has_one_port() && port != listen.port {
            return Some(format!(
                "port {port} of {address} is not the service's {}, and only nat changes ports: use `forward: nat`",
                listen.port
            ));
        }
        if let Some(other) = self.addresses.get(&(address, port)) {
            return Some(format!(
                "{address} port {port} is backend `{other}` of `{}` already: remove one of the two",
                service.name
            ));
        }
        if self.names.contains(&backend.name) {
            return Some(format!(
                "the name `{}` is taken in `{}`: give each backend of a service a name of its own",
                backend.name, service.name
            ));
        }
        let answers = AnswerPorts::of(listen, port);
        let known = house.replies.get(&(address, listen.protocol.number()))?;
        let (_, other) = known.iter().find(|(one, other)| {
            service.forward == Forward::Nat && *other != service.name && one.clashes(&answers)
        })?;
        Some(format!(
            "{address} port {port} is a nat backend of `{other}` too, and its answers could not be told apart: let the server listen on a second port or address"
        ))
    }
}

#[cfg(test)]
mod tests {
    use std::{path::PathBuf, time::Duration};

    use super::*;
    use crate::config::{Source, parse};

    fn config(backends: &str, more: &str) -> Config {
        let text = format!(
            "services:\n  - name: web\n    listen: {{address: 192.0.2.10, port: 80}}\n    forward: nat\n    {more}\n    backends: [{backends}]\n"
        );
        let source = Source { path: "lb.yaml".into(), text };
        parse(&source).unwrap_or_else(|errors| panic!("{errors}")).config
    }

    fn addresses(list: &[&str]) -> BTreeSet<Found> {
        let found = |text: &&str| Found { address: text.parse().unwrap(), record: None };
        list.iter().map(found).collect()
    }

    fn records(list: &[(&str, u16, u16, u16)]) -> BTreeSet<Found> {
        let found = |&(address, priority, weight, port): &(&str, u16, u16, u16)| Found {
            address: address.parse().unwrap(),
            record: Some(SrvRecord { priority, weight, port, target: format!("{address}.") }),
        };
        list.iter().map(found).collect()
    }

    fn answers(config: &Config, found: &[BTreeSet<Found>]) -> Answers {
        questions(config).into_iter().zip(found.iter().cloned()).collect()
    }

    fn with(config: &Config, answers: &Answers) -> Expanded {
        expand(config, answers, &BTreeMap::new(), |_| Vec::new())
    }

    fn told(expanded: &Expanded) -> Vec<String> {
        let backends = expanded.config.services[0].backends.iter();
        backends
            .map(|b| format!("{} {}:{} {} {}", b.name, b.address, b.port, b.weight, b.tier))
            .collect()
    }

    #[test]
    fn each_address_of_a_name_is_a_backend_with_the_template_s_settings() {
        let config = config(
            "{name: app, address: 'app.internal:8080', weight: 50, rise: 7}, {name: web1, address: 10.0.0.9}",
            "",
        );
        let mut one = answers(&config, &[addresses(&["10.0.0.6", "10.0.0.5"])]);
        let first = with(&config, &one);
        assert_eq!(
            told(&first),
            [
                "web1 10.0.0.9:80 100 0",
                "app-10.0.0.5 10.0.0.5:8080 50 0",
                "app-10.0.0.6 10.0.0.6:8080 50 0"
            ]
        );
        let backend = &first.config.services[0].backends[1];
        assert_eq!(backend.timing.rise, 7);
        let origin = Origin::Answer { template: "app".into(), name: "app.internal".into() };
        assert_eq!((&backend.origin, first.problems.len()), (&origin, 0));
        assert!(!first.config.services[0].is_discovered());
        // Neither order nor repetition matters.
        let found = one.values_mut().next().unwrap();
        *found = addresses(&["10.0.0.5", "10.0.0.6", "10.0.0.5"]);
        assert_eq!(with(&config, &one).config, first.config);
    }

    #[test]
    fn a_configuration_without_templates_is_as_it_was() {
        let config = config("{name: web1, address: 10.0.0.9}", "");
        assert_eq!(with(&config, &Answers::new()).config, config);
        assert!(questions(&config).is_empty());
    }

    #[test]
    fn records_tell_port_share_and_tier() {
        let config = config("{name: app, srv: _http._tcp.App.internal, weight: 100}", "");
        let asked = questions(&config).into_iter().next().unwrap();
        assert_eq!(asked.to_string(), "_http._tcp.app.internal (SRV, A)");
        let found = records(&[
            ("10.0.0.1", 10, 60, 8_001),
            ("10.0.0.2", 10, 20, 8_002),
            ("10.0.0.3", 10, 0, 8_003),
            ("10.0.0.4", 20, 0, 8_004),
            ("10.0.0.5", 20, 0, 8_005),
        ]);
        assert_eq!(
            told(&with(&config, &answers(&config, &[found]))),
            [
                "app-10.0.0.1-8001 10.0.0.1:8001 100 0",
                "app-10.0.0.2-8002 10.0.0.2:8002 34 0",
                "app-10.0.0.3-8003 10.0.0.3:8003 1 0",
                "app-10.0.0.4-8004 10.0.0.4:8004 100 1",
                "app-10.0.0.5-8005 10.0.0.5:8005 100 1",
            ]
        );
        let many: Vec<(String, u16)> = (0..30).map(|n| (format!("10.0.1.{n}"), n)).collect();
        let many: Vec<_> = many.iter().map(|(a, n)| (a.as_str(), *n, 1, 80)).collect();
        let expanded = with(&config, &answers(&config, &[records(&many)]));
        assert_eq!(expanded.config.services[0].backends[29].tier, 15);
    }

    #[test]
    fn names_are_unique_and_short_enough() {
        let long = "a".repeat(64);
        let v6: IpAddr = "2001:db8:1111:2222:3333:4444:5555:6666".parse().unwrap();
        let name = backend_name(&long, v6, Some(65_535));
        assert_eq!(name.len(), 64);
        assert!(name.ends_with("-2001_db8_1111_2222_3333_4444_5555_6666-65535"), "{name}");
        assert_eq!(backend_name("app", "2001:db8::5".parse().unwrap(), None), "app-2001_db8__5");
        assert!(name.parse::<crate::config::value::Name>().is_ok());
    }

    #[test]
    fn who_serves_stays_until_every_name_has_been_resolved_once() {
        let before = config("{name: web1, address: 10.0.0.9}, {name: web2, address: 10.0.0.5}", "");
        let after =
            config("{name: app, address: app.internal}, {name: web2, address: 10.0.0.5}", "");
        let serving = |_: &Service| {
            before.services[0].backends.iter().map(|one| Backend::clone(one)).collect()
        };
        let waiting = expand(&after, &Answers::new(), &BTreeMap::new(), serving);
        assert_eq!(told(&waiting), ["web2 10.0.0.5:80 100 0", "web1 10.0.0.9:80 100 0"]);
        assert_eq!(waiting.config.services[0].backends[1].origin, Origin::Held);
        assert_eq!(waiting.problems, [""; 0]);
        let answered = answers(&after, &[addresses(&["10.0.0.7"])]);
        let settled = expand(&after, &answered, &BTreeMap::new(), serving);
        assert_eq!(told(&settled), ["web2 10.0.0.5:80 100 0", "app-10.0.0.7 10.0.0.7:80 100 0"]);
        // At the start there is nobody.
        let none: [&str; 0] = [];
        let only = config("{name: app, address: app.internal}", "");
        assert_eq!(told(&with(&only, &Answers::new())), none);
    }

    #[test]
    fn what_cannot_be_a_backend_is_left_out_and_said() {
        let config =
            config("{name: app, address: app.internal}, {name: web1, address: 10.0.0.9}", "");
        let found = ["127.0.0.1", "192.0.2.10", "10.0.0.9", "10.0.0.5", "2001:db8::1"];
        let expanded = with(&config, &answers(&config, &[addresses(&found)]));
        assert_eq!(told(&expanded), ["web1 10.0.0.9:80 100 0", "app-10.0.0.5 10.0.0.5:80 100 0"]);
        for word in [
            "a loopback address",
            "the VIP of service `web`",
            "backend `web1` of `web` already",
            "another family",
        ] {
            let said = expanded.problems.iter().any(|problem| problem.contains(word));
            assert!(said, "{word}: {:?}", expanded.problems);
        }
        assert!(expanded.problems[0].starts_with("app.internal (web/app): "));
        let many: Vec<String> =
            (0..1_100_u32).map(|n| format!("10.1.{}.{}", n / 256, n % 256)).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let expanded = with(&config, &answers(&config, &[addresses(&many)]));
        assert_eq!(expanded.config.services[0].backends.len(), MOST + 1);
        assert!(expanded.problems[0].contains("1100 addresses"));
    }

    #[test]
    fn files_come_in_the_order_of_their_names_and_duplicates_are_refused() {
        let config = config(
            "{name: web1, address: 10.0.0.9}",
            "backends_from: /d\n    backend_defaults: {weight: 40}",
        );
        let file = |name: &str, text: &str| (PathBuf::from(name), Ok(text.to_owned()));
        let mut directory = Directory::default();
        let scan = Ok([
            file("/d/b.yaml", "- {name: b1, address: 10.0.0.2}\n- {name: a1, address: 10.0.0.3}\n- {name: b3, address: 10.0.0.1}\n"),
            file("/d/a.yaml", "- {name: a1, address: 10.0.0.1, weight: 7}\n"),
        ]
        .into_iter()
        .collect());
        directory.take(&scan, Duration::ZERO);
        let directories = [(Path::new("/d"), &directory)].into_iter().collect();
        let expanded = expand(&config, &Answers::new(), &directories, |_| Vec::new());
        assert_eq!(
            told(&expanded),
            ["web1 10.0.0.9:80 40 0", "a1 10.0.0.1:80 7 0", "b1 10.0.0.2:80 40 0"]
        );
        assert_eq!(expanded.problems.len(), 2, "{:?}", expanded.problems);
        assert!(
            expanded.problems[0]
                .starts_with("/d/b.yaml:2: the name `a1` is taken in `web`: give each")
        );
        assert!(
            expanded.problems[1]
                .starts_with("/d/b.yaml:3: 10.0.0.1 port 80 is backend `a1` of `web` already")
        );
    }
}
