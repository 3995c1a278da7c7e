//! Loading the object: checks first, then one attempt that either adopts every pin or makes it.

use std::{
    fs, io,
    os::fd::AsFd as _,
    path::{Path, PathBuf},
};

use aya::{
    Ebpf, EbpfError, EbpfLoader, Pod,
    maps::{HashMap, Map, MapData, RingBuf},
    programs::{ProgramError, Xdp},
};
use lb_common::abi::{REASONS, global, map, program};

use super::{
    Dataplane, Options, Sizes, Wanted, bpffs::PinDirectory, counters::Counters, layout,
    mapped::Table, pins::Pins, routes::Routes, table::ServiceTable,
};

/// Lines of a verifier log that say why.
const LOG_TAIL: usize = 40;

/// Why the data plane is not loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// Not allowed to.
    #[error(
        "lb needs {missing} to load its program: run it as root, or give it these capabilities (systemd: AmbientCapabilities=)"
    )]
    Capability {
        /// `CAP_BPF and CAP_NET_ADMIN`, or one of them.
        missing: String,
    },
    /// No bpffs.
    #[error("{} is not on a BPF file system, and without pins the service would end with the daemon: run `mount -t bpf bpf /sys/fs/bpf`", path.display())]
    NoBpffs {
        /// The pin root.
        path: PathBuf,
    },
    /// Something in the pin directory is not of this version.
    #[error("{} is there, but this lb keeps its pins in v{version}: they are another version's or somebody else's; run `lb detach` (of the version that made them, if it still forwards), or remove it", path.display())]
    OtherVersion {
        /// The stranger.
        path: PathBuf,
        /// Our ABI version.
        version: u32,
    },
    /// The directory is another user's.
    #[error("{} belongs to user {uid}: whoever owns it can redirect all traffic; remove it, or run lb as that user", path.display())]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// Its owner.
        uid: u32,
    },
    /// The pin directory cannot be used.
    #[error("cannot use the pin directory {}: {source}", path.display())]
    Pins {
        /// Where.
        path: PathBuf,
        /// The kernel's word.
        source: io::Error,
    },
    /// A pinned map of another layout.
    #[error("the pinned map {} is {found}, this lb needs {wanted}: run `lb detach`, then start lb (flows of nat services that were moved by recent changes may break)", path.display())]
    Layout {
        /// The pin.
        path: PathBuf,
        /// What it is.
        found: String,
        /// What it must be.
        wanted: String,
    },
    /// A pinned map that is too small for the configuration.
    #[error(
        "the loaded map {name} has room for {found} entries, the configuration asks for {wanted}: lower `limits.{limit}`, or run `lb detach` and start lb to load it with the new size"
    )]
    TooSmall {
        /// The map.
        name: String,
        /// Entries it has.
        found: u32,
        /// Entries asked for.
        wanted: u32,
        /// The key of `limits:`.
        limit: &'static str,
    },
    /// A map cannot be opened.
    #[error("cannot open the map {name}: {source}")]
    Map {
        /// The map.
        name: String,
        /// Why.
        source: anyhow::Error,
    },
    /// The kernel refuses the program.
    #[error("the kernel refuses lb's program: {cause}; the verifier's log is in {}", log.display())]
    Verifier {
        /// Its last words.
        cause: String,
        /// The whole log.
        log: PathBuf,
    },
    /// Anything else.
    #[error("cannot load lb's program: {0}")]
    Load(String),
}

impl From<EbpfError> for LoadError {
    fn from(error: EbpfError) -> Self {
        Self::Load(chain(&error))
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

impl Dataplane {
    /// Loads the object, adopting every pinned map.
    pub fn open(options: &Options) -> Result<Self, LoadError> {
        check_capabilities()?;
        let directory = PinDirectory::new(&options.pin_root);
        directory.prepare()?;
        let (sizes, adopted) = existing_sizes(&directory.maps(), options)?;
        let mut ebpf = load_object(&directory.maps(), options, &sizes)?;
        load_program(&mut ebpf, program::BALANCER, &options.run_dir)?;
        load_program(&mut ebpf, program::CLOCK, &options.run_dir)?;
        let mut routes = Routes {
            trie: take(&mut ebpf, map::ROUTES)?,
            rows: mapped(&mut ebpf, map::NEXTHOPS, layout::ROUTES + 1)?,
            neighbours: take(&mut ebpf, map::NEIGHBOURS)?,
            allow: take(&mut ebpf, map::ALLOW)?,
            known: Default::default(),
            known_neighbours: Default::default(),
            known_allow: Default::default(),
        };
        routes.adopt().map_err(|error| named(map::ROUTES, error))?;
        Ok(Self {
            arena: mapped(&mut ebpf, map::ARENA, sizes.ring_slots)?,
            services: mapped(&mut ebpf, map::SERVICES, sizes.services * 2 + 1)?,
            backends: mapped(&mut ebpf, map::BACKENDS, sizes.backends)?,
            replies: mapped(&mut ebpf, map::REPLIES, sizes.backends)?,
            table: ServiceTable::adopt(mapped(&mut ebpf, map::SERVICE_TABLE, sizes.table_buckets)?),
            resting: 0,
            pins: pins(&mut ebpf, map::PINS)?,
            pins_new: pins(&mut ebpf, map::PINS_NEW)?,
            counters: Counters {
                backends: take(&mut ebpf, map::COUNTERS)?,
                reasons: take(&mut ebpf, map::REASON_COUNTS)?,
            },
            routes,
            devices: take(&mut ebpf, map::DEVICES)?,
            interfaces: take(&mut ebpf, map::INTERFACES)?,
            clock: take(&mut ebpf, map::CLOCK)?,
            ebpf,
            directory,
            adopted,
            options: options.clone(),
            sizes,
        })
    }

    /// Loads the program anew over the same maps, and puts it on every NIC in place of the old one.
    pub fn reload_program(&mut self, options: &Options) -> anyhow::Result<()> {
        let mut ebpf = load_object(&self.directory.maps(), options, &self.sizes)?;
        load_program(&mut ebpf, program::BALANCER, &options.run_dir)?;
        load_program(&mut ebpf, program::CLOCK, &options.run_dir)?;
        self.ebpf = ebpf;
        self.options = options.clone();
        for attachment in self.attachments().into_iter().filter(|a| a.ifindex != 0) {
            let mode = crate::config::model::XdpMode::Auto;
            self.attach(attachment.ifindex, &attachment.ifname, mode, false)?;
        }
        Ok(())
    }
}

/// Sizes in force: those of existing pins, else those asked for. The flag tells whether any pin exists.
fn existing_sizes(maps: &Path, options: &Options) -> Result<(Sizes, bool), LoadError> {
    let mut sizes = options.sizes;
    let mut adopted = false;
    for wanted in layout::wanted(options) {
        let path = maps.join(wanted.name);
        if !path.exists() {
            continue;
        }
        let entries = layout::compare(&path, &wanted)?;
        match wanted.name {
            map::SERVICE_TABLE => {
                sizes.table_buckets = entries;
                adopted = true;
            }
            map::SERVICES => sizes.services = (entries - 1) / 2,
            map::ARENA => sizes.ring_slots = entries,
            map::BACKENDS => sizes.backends = entries,
            map::PINS => sizes.pins = entries,
            map::PINS_NEW => sizes.pins_unconfirmed = entries,
            map::ALLOW => sizes.allow_prefixes = entries,
            _ => {}
        }
    }
    Ok((sizes, adopted))
}

fn load_object(maps: &Path, options: &Options, sizes: &Sizes) -> Result<Ebpf, LoadError> {
    static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("LB_OBJECT_BALANCER"));
    let effective = Options { sizes: *sizes, ..options.clone() };
    let wanted = layout::wanted(&effective);
    let paths: Vec<PathBuf> = wanted.iter().map(|wanted| maps.join(wanted.name)).collect();
    let mask = sizes.table_buckets - 1;
    let flag = |on: bool| u32::from(on);
    let (single_nic, have_nat, have_v6) =
        (flag(options.single_nic), flag(options.have_nat), flag(options.have_v6));
    let level = options.log_level;
    let mut loader = EbpfLoader::new();
    loader
        .override_global(global::HASH_KEYS, &options.hash_keys, true)
        .override_global(global::SERVICE_MASK, &mask, true)
        .override_global(global::SINGLE_NIC, &single_nic, true)
        .override_global(global::HAVE_NAT, &have_nat, true)
        .override_global(global::HAVE_V6, &have_v6, true)
        .override_global("AYA_LOG_LEVEL", &level, false);
    for (wanted, path) in wanted.iter().zip(&paths) {
        loader.map_max_entries(wanted.name, wanted.entries);
        loader.map_pin_path(wanted.name, path.as_path());
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
            let tail: Vec<&str> = text.lines().rev().take(LOG_TAIL).collect();
            let cause = tail
                .into_iter()
                .find(|line| !line.trim().is_empty() && !line.starts_with("processed"))
                .unwrap_or("no log");
            Err(LoadError::Verifier { cause: format!("{io_error}: {cause}"), log })
        }
        Err(error) => Err(LoadError::Load(chain(&error))),
    }
}

fn check_capabilities() -> Result<(), LoadError> {
    const CAP_NET_ADMIN: u32 = 12;
    const CAP_SYS_ADMIN: u32 = 21;
    const CAP_BPF: u32 = 39;
    let status = fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|value| u64::from_str_radix(value.trim(), 16).ok())
        .unwrap_or(u64::MAX);
    let has = |capability: u32| effective & (1 << capability) != 0;
    let mut missing = Vec::new();
    if !has(CAP_BPF) && !has(CAP_SYS_ADMIN) {
        missing.push("CAP_BPF");
    }
    if !has(CAP_NET_ADMIN) {
        missing.push("CAP_NET_ADMIN");
    }
    if missing.is_empty() {
        Ok(())
    } else {
        Err(LoadError::Capability { missing: missing.join(" and ") })
    }
}

fn named(name: &str, error: impl Into<anyhow::Error>) -> LoadError {
    LoadError::Map { name: name.to_owned(), source: error.into() }
}

fn take<T>(ebpf: &mut Ebpf, name: &str) -> Result<T, LoadError>
where
    T: TryFrom<aya::maps::Map, Error = aya::maps::MapError>,
{
    let map = ebpf
        .take_map(name)
        .ok_or_else(|| LoadError::Load(format!("the object has no map `{name}`")))?;
    T::try_from(map).map_err(|error| named(name, error))
}

fn mapped<T: Pod + Default>(
    ebpf: &mut Ebpf,
    name: &str,
    entries: u32,
) -> Result<Table<T>, LoadError> {
    let array = ebpf.take_map(name);
    let Some(Map::Array(data)) = array else {
        return Err(LoadError::Load(format!("the object has no array `{name}`")));
    };
    Table::new(data.fd(), entries).map_err(|error| named(name, error))
}

fn pins(ebpf: &mut Ebpf, name: &str) -> Result<Pins, LoadError> {
    let Some(Map::HashMap(data)) = ebpf.take_map(name) else {
        return Err(LoadError::Load(format!("the object has no hash map `{name}`")));
    };
    let fd = data.fd().as_fd().try_clone_to_owned().map_err(|error| named(name, error))?;
    let map = HashMap::try_from(Map::HashMap(data)).map_err(|error| named(name, error))?;
    Ok(Pins { fd, map })
}

/// See [`Dataplane::wanted`].
pub(super) fn wanted(ebpf: &mut Ebpf) -> anyhow::Result<Wanted> {
    let ring: RingBuf<MapData> = take(ebpf, map::WANTED)?;
    Ok(Wanted::new(ring)?)
}

/// See [`Dataplane::spawn_logger`].
pub(super) fn spawn_logger(ebpf: &mut Ebpf) {
    let logger = match aya_log::EbpfLogger::init(ebpf) {
        Ok(logger) => logger,
        Err(error) => {
            tracing::warn!(%error, "the packet path's log cannot be read");
            return;
        }
    };
    tokio::spawn(async move {
        // SAFETY: an `EbpfLogger` keeps its map's descriptor open and the same for as long as it lives.
        let logger = unsafe {
            tokio::io::unix::AsyncFd::register_with_interest(logger, tokio::io::Interest::READABLE)
        };
        let Ok(mut logger) = logger else { return };
        while let Ok(mut ready) = logger.readable_mut().await {
            ready.get_inner_mut().flush();
            ready.clear_ready();
        }
    });
}

const _: () = assert!(REASONS == 64);
