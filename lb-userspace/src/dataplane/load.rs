//! Loading the object: checks first, then one attempt that either adopts every pin or makes it.

use std::{
    fs,
    path::{Path, PathBuf},
};

use aya::{
    Ebpf, EbpfLoader,
    maps::{Map, MapData, RingBuf},
    programs::{ProgramError, Xdp},
};
use lb_common::abi::{REASONS, global, map, mode, next_program, program, service_flag};

use super::{
    Dataplane, Failures, LoadError, Options, Samples, Sizes, Wanted,
    bpffs::PinDirectory,
    connections::Connections,
    counters::Counters,
    error::chain,
    few_routes::Few,
    flows::Flows,
    fullnat::Fullnat,
    layout,
    mapped::{Row, Table, Words},
    next,
    openings::Openings,
    permission, pinned,
    pins::Pins,
    ports::Ports,
    prefix_lists::PrefixLists,
    quic::QuicIds,
    routes::{Neighbours, Routes},
    table::ServiceTable,
};

impl Dataplane {
    /// Loads the object, adopting every pinned map. Attaches nothing yet.
    pub fn open(options: &Options) -> Result<Self, LoadError> {
        options.sizes.check()?;
        permission::check()?;
        let directory = PinDirectory::new(&options.pin_root);
        let hold = directory.prepare(options.take_over)?;
        let (sizes, adopted) = pinned::examine(&directory, options)?;
        let mut ebpf = load(&directory.maps(), options, &sizes)?;
        let routes = Routes::adopt(
            take(&mut ebpf, map::ROUTES)?,
            mapped(&mut ebpf, map::NEXTHOPS)?,
            Few::adopt(mapped(&mut ebpf, map::FEW_ROUTES)?),
        )
        .map_err(|error| LoadError::map(map::ROUTES, error))?;
        let neighbours = Neighbours::adopt(take(&mut ebpf, map::NEIGHBOURS)?)
            .map_err(|error| LoadError::map(map::NEIGHBOURS, error))?;
        let allow = prefix_lists(&mut ebpf, map::ALLOW)?;
        let deny = prefix_lists(&mut ebpf, map::DENY)?;
        let table = ServiceTable::adopt(
            mapped(&mut ebpf, map::SERVICE_TABLE)?,
            words(&mut ebpf, map::PRESENCE)?,
        );
        let ports = Ports::adopt(
            mapped(&mut ebpf, map::PORT_LISTS)?,
            take(&mut ebpf, map::VIP_PREFIXES)?,
            &table,
        )
        .map_err(|error| LoadError::map(map::VIP_PREFIXES, error))?;
        Ok(Self {
            arena: mapped(&mut ebpf, map::ARENA)?,
            services: mapped(&mut ebpf, map::SERVICES)?,
            listens: mapped(&mut ebpf, map::LISTENS)?,
            backends: mapped(&mut ebpf, map::BACKENDS)?,
            replies: mapped(&mut ebpf, map::REPLIES)?,
            table,
            ports,
            resting: 0,
            pins: pins(&mut ebpf, map::PINS)?,
            pins_new: pins(&mut ebpf, map::PINS_NEW)?,
            connections: connections(&mut ebpf)?,
            flows: Flows::of(&mut ebpf)?,
            fullnat: Fullnat::of(&mut ebpf)?,
            policies: mapped(&mut ebpf, map::POLICIES)?,
            service_loads: mapped(&mut ebpf, map::SERVICE_LOADS)?,
            loads: mapped(&mut ebpf, map::LOADS)?,
            observed: mapped(&mut ebpf, map::OBSERVED)?,
            openings: Openings::adopt(
                mapped(&mut ebpf, map::OPENING_RULES)?,
                mapped(&mut ebpf, map::OPENING_STATES)?,
                mapped(&mut ebpf, map::COOKIE_KEYS)?,
            ),
            quic_ids: QuicIds::adopt(
                take(&mut ebpf, map::QUIC_IDS)?,
                take(&mut ebpf, map::QUIC_FORMATS)?,
            )
            .map_err(|error| LoadError::map(map::QUIC_IDS, error))?,
            counters: counters(&mut ebpf, adopted)?,
            routes,
            neighbours,
            allow,
            deny,
            devices: take(&mut ebpf, map::DEVICES)?,
            interfaces: take(&mut ebpf, map::INTERFACES)?,
            clock: take(&mut ebpf, map::CLOCK)?,
            ebpf,
            capture: None,
            logger: None,
            directory,
            adopted,
            options: options.clone(),
            sizes,
            _hold: hold,
        })
    }

    /// Loads the program anew over the same maps, and puts it on every NIC in place of the old one, which ends a capture.
    pub fn reload_program(&mut self, options: &Options) -> anyhow::Result<()> {
        let wanted = Sizes {
            flows: self.sizes.flows.max(options.sizes.flows),
            flows_unconfirmed: self.sizes.flows_unconfirmed.max(options.sizes.flows_unconfirmed),
            source_addresses: self.sizes.source_addresses.max(options.sizes.source_addresses),
            sources: self.sizes.sources.max(options.sizes.sources),
            ..self.sizes
        };
        self.check_features(&wanted)?;
        let maps = self.directory.maps();
        let layout = layout::wanted(&Options { sizes: wanted, ..options.clone() });
        pinned::make_room(&maps, &layout)?;
        self.ebpf = load(&maps, options, &wanted)?;
        self.flows = Flows::of(&mut self.ebpf)?;
        self.fullnat = Fullnat::of(&mut self.ebpf)?;
        self.sizes = wanted;
        self.options = options.clone();
        if self.logger.is_some() {
            self.spawn_logger();
        }
        let capture = self.capture.take();
        let put = self.put_on_all();
        drop(capture);
        put
    }
}

impl Dataplane {
    /// Tables that are in use cannot grow while they are.
    fn check_features(&self, wanted: &Sizes) -> Result<(), LoadError> {
        let (found, wanted) = (&self.sizes, wanted);
        let tables = [
            (map::FLOWS, found.flows, wanted.flows, "flows"),
            (
                map::FLOWS_NEW,
                found.flows_unconfirmed,
                wanted.flows_unconfirmed,
                "flows_unconfirmed",
            ),
            (map::SOURCES, found.sources, wanted.sources, "sources"),
            (map::PORT_SLOTS, found.port_slots(), wanted.port_slots(), "source_addresses"),
        ];
        match tables.into_iter().find(|(_, found, wanted, _)| *found > 1 && wanted > found) {
            Some((name, found, wanted, limit)) => {
                Err(LoadError::TooSmall { name: name.to_owned(), found, wanted, limit })
            }
            None => Ok(()),
        }
    }
}

/// Everything it takes to load another copy of the program over the maps of a loaded one; loading takes a moment.
#[derive(Clone, Debug)]
pub struct Recipe {
    maps: PathBuf,
    options: Options,
    sizes: Sizes,
}

/// How a copy differs from the program on the NICs.
pub(super) struct Variant<'a> {
    /// One of [`lb_common::abi::mode`].
    pub(super) mode: u32,
    /// Maps that it does not share.
    pub(super) own: &'a [&'a str],
    /// Sizes of maps that are not pinned.
    pub(super) entries: &'a [(&'a str, u32)],
}

const PLAIN: Variant<'_> = Variant { mode: mode::PLAIN, own: &[], entries: &[] };

impl Dataplane {
    /// For other copies of the loaded program.
    pub fn recipe(&self) -> Recipe {
        Recipe { maps: self.directory.maps(), options: self.options.clone(), sizes: self.sizes }
    }
}

/// Loads another copy of the balancer.
pub(super) fn load_copy(recipe: &Recipe, variant: &Variant<'_>) -> Result<Ebpf, LoadError> {
    let Recipe { maps, options, sizes } = recipe;
    let quiet = Options { log_level: 0, ..options.clone() };
    let mut ebpf = load_object(maps, &quiet, sizes, variant)?;
    load_balancer(&mut ebpf, &quiet, variant.mode)?;
    Ok(ebpf)
}

/// The balancer of an object, and what it goes on to.
fn load_balancer(ebpf: &mut Ebpf, options: &Options, mode: u32) -> Result<(), LoadError> {
    if options.fullnat {
        load_program(ebpf, program::FULLNAT, &options.run_dir)?;
        next::set(ebpf, mode, program::FULLNAT)?;
    }
    load_program(ebpf, program::BALANCER, &options.run_dir)
}

/// The fast path, and the balancer that it goes on to. A fast path that is on the NICs already goes on to the new balancer from here on:
/// both look at a packet from its beginning, and at the same maps.
fn load_fast_path(ebpf: &mut Ebpf, options: &Options) -> Result<(), LoadError> {
    load_program(ebpf, program::FAST_PATH, &options.run_dir)?;
    load_balancer(ebpf, options, PLAIN.mode)?;
    next::set(ebpf, next_program::BALANCER, program::BALANCER)
}

/// Object and programs.
fn load(maps: &Path, options: &Options, sizes: &Sizes) -> Result<Ebpf, LoadError> {
    let mut ebpf = load_object(maps, options, sizes, &PLAIN)?;
    load_fast_path(&mut ebpf, options)?;
    load_program(&mut ebpf, program::CLOCK, &options.run_dir)?;
    Ok(ebpf)
}

fn load_object(
    maps: &Path,
    options: &Options,
    sizes: &Sizes,
    variant: &Variant<'_>,
) -> Result<Ebpf, LoadError> {
    static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("LB_OBJECT_BALANCER"));
    let effective = Options { sizes: *sizes, ..options.clone() };
    let wanted = layout::wanted(&effective);
    let paths: Vec<PathBuf> = wanted.iter().map(|wanted| maps.join(wanted.name)).collect();
    let mask = sizes.table_buckets - 1;
    let flag = |on: bool| u32::from(on);
    let (single_nic, have_nat, have_v6) =
        (flag(options.single_nic), flag(options.have_nat), flag(options.have_v6));
    let limit_openings = flag(options.limit_openings);
    let (observe, track, vlan) = (flag(options.observe), flag(options.track), flag(options.vlan));
    let level = options.log_level;
    let mut beside = if options.quic { service_flag::QUIC } else { 0 };
    beside |= if options.fullnat { service_flag::FULLNAT } else { 0 };
    beside |= if options.toa { service_flag::TOA } else { 0 };
    let mut loader = EbpfLoader::new();
    loader
        .override_global(global::HASH_KEYS, &options.hash_keys, true)
        .override_global(global::SERVICE_MASK, &mask, true)
        .override_global(global::SINGLE_NIC, &single_nic, true)
        .override_global(global::HAVE_NAT, &have_nat, true)
        .override_global(global::HAVE_V6, &have_v6, true)
        .override_global(global::OBSERVE, &observe, true)
        .override_global(global::LIMIT_OPENINGS, &limit_openings, true)
        .override_global(global::TRACK, &track, true)
        .override_global(global::PORTS, &options.ports, true)
        .override_global(global::ENTROPY, &options.entropy, true)
        .override_global(global::BESIDE, &beside, true)
        .override_global(global::VLAN, &vlan, true)
        .override_global(global::MODE, &variant.mode, true)
        .override_global("AYA_LOG_LEVEL", &level, false);
    for (wanted, path) in wanted.iter().zip(&paths) {
        loader.map_max_entries(wanted.name, wanted.entries);
        if !variant.own.contains(&wanted.name) {
            loader.map_pin_path(wanted.name, path.as_path());
        }
    }
    if !options.limit_openings {
        loader.map_max_entries(map::SOURCE_RATES, 1);
    }
    for (name, entries) in variant.entries {
        loader.map_max_entries(name, *entries);
    }
    Ok(loader.load(OBJECT)?)
}

fn load_program(ebpf: &mut Ebpf, name: &str, run_dir: &Path) -> Result<(), LoadError> {
    let program: &mut Xdp = ebpf
        .program_mut(name)
        .ok_or_else(|| LoadError::Load(format!("the object has no program `{name}`")))?
        .try_into()
        .map_err(|error: ProgramError| LoadError::Load(error.to_string()))?;
    match program.load() {
        Ok(()) => Ok(()),
        Err(ProgramError::LoadError { io_error, verifier_log }) => {
            let text = verifier_log.to_string();
            let log = run_dir.join("verifier.log");
            if let Err(error) = fs::write(&log, &text) {
                tracing::warn!(%error, "the verifier's log could not be written");
            }
            Err(LoadError::Verifier { cause: format!("{io_error}: {}", cause(&text)), log })
        }
        Err(error) => Err(LoadError::Load(chain(&error))),
    }
}

/// The last line of a verifier's log that is not a statistic.
pub(super) fn cause(log: &str) -> &str {
    const STATISTICS: [&str; 4] =
        ["processed ", "verification time ", "stack depth ", "max_states"];
    log.lines()
        .rev()
        .map(str::trim)
        .find(|line| {
            !line.is_empty() && !STATISTICS.iter().any(|statistic| line.starts_with(statistic))
        })
        .unwrap_or("no log")
}

pub(super) fn take_map(ebpf: &mut Ebpf, name: &str) -> Result<Map, LoadError> {
    ebpf.take_map(name).ok_or_else(|| LoadError::Load(format!("the object has no map `{name}`")))
}

pub(super) fn take<T: TryFrom<Map, Error = aya::maps::MapError>>(
    ebpf: &mut Ebpf,
    name: &str,
) -> Result<T, LoadError> {
    T::try_from(take_map(ebpf, name)?).map_err(|error| LoadError::map(name, error))
}

pub(super) fn mapped<T: Row>(ebpf: &mut Ebpf, name: &str) -> Result<Table<T>, LoadError> {
    match take_map(ebpf, name)? {
        Map::Array(data) => Table::new(&data).map_err(|error| LoadError::map(name, error)),
        other => Err(unexpected(name, &other)),
    }
}

fn words(ebpf: &mut Ebpf, name: &str) -> Result<Words, LoadError> {
    match take_map(ebpf, name)? {
        Map::Array(data) => Words::of_map(&data).map_err(|error| LoadError::map(name, error)),
        other => Err(unexpected(name, &other)),
    }
}

pub(super) fn pins(ebpf: &mut Ebpf, name: &str) -> Result<Pins, LoadError> {
    match take_map(ebpf, name)? {
        Map::HashMap(data) => Pins::new(data).map_err(|error| LoadError::map(name, error)),
        other => Err(unexpected(name, &other)),
    }
}

fn prefix_lists(ebpf: &mut Ebpf, name: &str) -> Result<PrefixLists, LoadError> {
    match take_map(ebpf, name)? {
        Map::LpmTrie(data) => PrefixLists::adopt(data).map_err(|error| LoadError::map(name, error)),
        other => Err(unexpected(name, &other)),
    }
}

fn connections(ebpf: &mut Ebpf) -> Result<Connections, LoadError> {
    match take_map(ebpf, map::CONNECTIONS)? {
        Map::HashMap(data) => {
            Connections::new(data).map_err(|error| LoadError::map(map::CONNECTIONS, error))
        }
        other => Err(unexpected(map::CONNECTIONS, &other)),
    }
}

fn counters(ebpf: &mut Ebpf, adopted: bool) -> Result<Counters, LoadError> {
    let mut per_cpu = |name| match take_map(ebpf, name)? {
        Map::PerCpuArray(data) => Ok(data),
        other => Err(unexpected(name, &other)),
    };
    let (backends, reasons) = (per_cpu(map::COUNTERS)?, per_cpu(map::REASON_COUNTS)?);
    let handshakes = match take_map(ebpf, map::HANDSHAKE_TIMES)? {
        Map::Array(data) => data,
        other => return Err(unexpected(map::HANDSHAKE_TIMES, &other)),
    };
    Counters::new(backends, reasons, handshakes, adopted)
        .map_err(|error| LoadError::map(map::COUNTERS, error))
}

pub(super) fn unexpected(name: &str, map: &Map) -> LoadError {
    LoadError::Load(format!("the object's map `{name}` is {map:?}"))
}

/// See [`Dataplane::wanted`].
pub(super) fn wanted(ebpf: &mut Ebpf) -> anyhow::Result<Wanted> {
    let ring: RingBuf<MapData> = take(ebpf, map::WANTED)?;
    Ok(Wanted::new(ring)?)
}

/// See [`Dataplane::samples`].
pub(super) fn samples(ebpf: &mut Ebpf) -> anyhow::Result<Samples> {
    let ring: RingBuf<MapData> = take(ebpf, map::SAMPLES)?;
    Ok(Samples::new(ring)?)
}

/// See [`Dataplane::failures`].
pub(super) fn failures(ebpf: &mut Ebpf) -> anyhow::Result<Failures> {
    let ring: RingBuf<MapData> = take(ebpf, map::FAILURES)?;
    Ok(Failures::new(ring)?)
}

/// See [`Dataplane::spawn_logger`].
pub(super) fn spawn_logger(ebpf: &mut Ebpf) -> Option<tokio::task::JoinHandle<()>> {
    let logger = match aya_log::EbpfLogger::init(ebpf) {
        Ok(logger) => logger,
        Err(error) => {
            tracing::warn!(%error, "the packet path's log cannot be read");
            return None;
        }
    };
    Some(tokio::spawn(async move {
        // SAFETY: an `EbpfLogger` keeps its map's descriptor open and the same for as long as it lives.
        let logger = unsafe {
            tokio::io::unix::AsyncFd::register_with_interest(logger, tokio::io::Interest::READABLE)
        };
        let Ok(mut logger) = logger else { return };
        while let Ok(mut ready) = logger.readable_mut().await {
            ready.get_inner_mut().flush();
            ready.clear_ready();
        }
    }))
}

const _: () = assert!(REASONS == 64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verifiers_log_ends_with_its_cause() {
        let log = "0: R1=ctx()\n5: (61) r2 = *(u32 *)(r1 +4)\nR2 invalid mem access 'scalar'\n\
                   verification time 12 usec\nstack depth 0\nprocessed 6 insns (limit 1000000)\n\n";
        assert_eq!(cause(log), "R2 invalid mem access 'scalar'");
        assert_eq!(cause(""), "no log");
    }
}
