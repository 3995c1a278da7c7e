//! The balancer's program in the real kernel, without a network: packets go in by BPF_PROG_TEST_RUN, and what comes out
//! (action, bytes, counters) is compared with what an independent builder says.
//!
//! [`World`] describes services and backends; [`Kernel::enter`] writes them into the maps; [`Kernel::run`] runs a packet.
//! Nothing of lb's controller is used, so that a mistake there cannot hide one in the program.

pub mod answer;
pub mod bytes;
pub mod case;
pub mod compare;
pub mod count;
pub mod decap;
pub mod interpreter;
pub mod lab;
pub mod packet;
pub mod surroundings;
pub mod world;

use std::{
    borrow::BorrowMut,
    fmt,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use aya::{
    Ebpf, EbpfLoader, Pod, TestRun as _, TestRunOptions,
    maps::{Array, HashMap, MapData, PerCpuArray, PerCpuValues, ProgramArray},
    programs::{ProgramError, Xdp},
    util::nr_cpus,
};
use lb_common::{
    abi::{
        BackendLoad, Clock, FlowKey, PORTS_PER_ADDRESS, Pin, PortSlot, ServiceLoad, Slot,
        SourcePool, entropy, global, map, mode, next_program, program, service_flag,
    },
    hash::{HashKeys, expand_seed},
};
use nix::sched::{CloneFlags, unshare};

pub use count::{Counts, Delta};
pub use world::World;

/// Seed of the flow hash in all tests: results do not change from run to run.
pub const SEED: [u8; 32] = *b"a fixed seed for tests of lb....";

/// XDP actions.
pub mod action {
    /// A fault of the program; never allowed.
    pub const ABORTED: u32 = 0;
    /// Dropped.
    pub const DROP: u32 = 1;
    /// Left to the host.
    pub const PASS: u32 = 2;
    /// Sent by the NIC it came in by.
    pub const TX: u32 = 3;
    /// Sent by another NIC.
    pub const REDIRECT: u32 = 4;
}

/// The NIC that BPF_PROG_TEST_RUN says frames came in by: the loopback device.
pub const INGRESS: u32 = 1;

/// Sizes and features that are fixed when the program is loaded.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Every packet leaves where it came in.
    pub single_nic: bool,
    /// Slots of all rings.
    pub arena: u32,
    /// Backends.
    pub backends: u32,
    /// Entries of each pin table.
    pub pins: u32,
    /// Services may observe their backends.
    pub observe: bool,
    /// Services may limit openings and have SYN-flood stages.
    pub limit_openings: bool,
    /// Entries of each table of flows; 0 = no service tracks its flows.
    pub flows: u32,
    /// Remembered clients.
    pub sources: u32,
    /// Connections that can be counted.
    pub connections: u32,
    /// Without the fast path, as captures and dry runs have it.
    pub alone: bool,
    /// Tagged frames are balanced.
    pub vlan: bool,
    /// Services may use gue.
    pub gue: bool,
    /// Tunnels of ipip may send from a prefix.
    pub outer_source: bool,
    /// Services may be QUIC's.
    pub quic: bool,
    /// Addresses that full nat may have; 0 = no service does it.
    pub fullnat: u32,
    /// Services that do may tell servers the clients' addresses.
    pub toa: bool,
    /// Services may have several ports (1), and prefixes of VIPs (2).
    pub ports: u32,
    /// Entries of `SERVICES`.
    pub services: u32,
    /// Buckets of `SERVICE_TABLE`, a power of two.
    pub service_buckets: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            single_nic: false,
            arena: 1 << 18,
            backends: 1024,
            pins: 1 << 16,
            observe: false,
            limit_openings: false,
            flows: 0,
            sources: 1,
            connections: 1 << 16,
            alone: false,
            vlan: false,
            gue: false,
            outer_source: false,
            quic: false,
            fullnat: 0,
            toa: false,
            ports: 0,
            services: 64,
            service_buckets: 512,
        }
    }
}

/// The loaded balancer.
pub struct Kernel {
    ebpf: Ebpf,
    /// The program that frames come to.
    entry: &'static str,
    world: World,
    written: world::Written,
}

/// A loaded balancer, or why there is none.
pub type Shared = OnceLock<Result<Mutex<Kernel>, String>>;

/// What became of one packet.
#[derive(Clone, PartialEq, Eq)]
pub struct Outcome {
    /// One of [`action`].
    pub action: u32,
    /// The frame as the program left it.
    pub frame: Vec<u8>,
}

impl fmt::Debug for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "action {} ({} bytes) {}",
            self.action,
            self.frame.len(),
            packet::hex(&self.frame)
        )
    }
}

impl Kernel {
    /// The one balancer of this test binary (loading takes long), for one test at a time. The test's thread moves into
    /// a network namespace of its own, where only what the test makes can be found.
    pub fn shared() -> MutexGuard<'static, Kernel> {
        Self::shared_with(Options::default())
    }

    /// The same, loaded in another way: every test of a binary has to want the same.
    pub fn shared_with(options: Options) -> MutexGuard<'static, Kernel> {
        static KERNEL: Shared = OnceLock::new();
        Self::shared_in(&KERNEL, options)
    }

    /// The same for the tests of one file, where files that want different ones are built into one binary.
    pub fn shared_in(shared: &'static Shared, options: Options) -> MutexGuard<'static, Kernel> {
        unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace (is this root?)");
        let loaded = shared.get_or_init(|| match Kernel::load(options) {
            Ok(kernel) => Ok(Mutex::new(kernel)),
            Err(error) => Err(format!("{error:#}")),
        });
        let kernel = loaded.as_ref().unwrap_or_else(|error| panic!("{error}"));
        // A failed test leaves maps that the next test's `enter` overwrites.
        kernel.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Loads the balancer.
    pub fn load(options: Options) -> Result<Self> {
        let path = object("balancer")?;
        let mut loader = EbpfLoader::new();
        let keys = hash_keys();
        let (mask, single) = (options.service_buckets - 1, u32::from(options.single_nic));
        let limit_openings = u32::from(options.limit_openings);
        let (observe, track) = (u32::from(options.observe), u32::from(options.flows > 0));
        let vlan = u32::from(options.vlan);
        let mut entropy = if options.gue { entropy::SOURCE_PORT } else { 0 };
        entropy |= if options.outer_source { entropy::SOURCE_ADDRESS } else { 0 };
        let mut beside = if options.quic { service_flag::QUIC } else { 0 };
        beside |= if options.fullnat > 0 { service_flag::FULLNAT } else { 0 };
        beside |= if options.toa { service_flag::TOA } else { 0 };
        let slots = (options.fullnat * PORTS_PER_ADDRESS).max(1);
        loader
            .override_global(global::HASH_KEYS, &keys[..], true)
            .override_global(global::SERVICE_MASK, &mask, true)
            .override_global(global::SINGLE_NIC, &single, true)
            .override_global(global::HAVE_NAT, &1u32, true)
            .override_global(global::OBSERVE, &observe, true)
            .override_global(global::TRACK, &track, true)
            .override_global(global::HAVE_V6, &1u32, true)
            .override_global(global::ENTROPY, &entropy, true)
            .override_global(global::BESIDE, &beside, true)
            .override_global(global::PORTS, &options.ports, true)
            .override_global(global::VLAN, &vlan, true)
            .override_global(global::LIMIT_OPENINGS, &limit_openings, true)
            .map_max_entries(map::SERVICE_TABLE, options.service_buckets)
            .map_max_entries(map::SERVICES, options.services)
            .map_max_entries(map::ARENA, options.arena)
            .map_max_entries(map::BACKENDS, options.backends)
            .map_max_entries(map::REPLIES, options.backends)
            .map_max_entries(map::COUNTERS, options.backends)
            .map_max_entries(map::OBSERVED, options.backends)
            .map_max_entries(map::LOADS, options.backends)
            .map_max_entries(map::QUIC_FORMATS, options.services)
            .map_max_entries(map::POLICIES, options.services)
            .map_max_entries(map::OPENING_RULES, options.services)
            .map_max_entries(map::OPENING_STATES, options.services)
            .map_max_entries(map::SERVICE_LOADS, options.services)
            .map_max_entries(map::FLOWS, options.flows.max(1))
            .map_max_entries(map::FLOWS_NEW, options.flows.max(1))
            .map_max_entries(map::SOURCES, options.sources)
            .map_max_entries(map::CONNECTIONS, options.connections)
            .map_max_entries(map::REASON_COUNTS, options.services * lb_common::abi::REASONS)
            .map_max_entries(map::DENY, 1 << 18)
            .map_max_entries(map::PORT_SLOTS, slots)
            .map_max_entries(map::PORT_FLOWS, slots)
            .map_max_entries(map::PINS, options.pins)
            .map_max_entries(map::PINS_NEW, options.pins);
        let mut ebpf =
            loader.load_file(&path).with_context(|| format!("cannot load {}", path.display()))?;
        for name in [program::FAST_PATH, program::BALANCER, program::CLOCK] {
            load_program(&mut ebpf, name)?;
        }
        set_program(&mut ebpf, next_program::BALANCER, program::BALANCER)?;
        if options.fullnat > 0 {
            load_program(&mut ebpf, program::FULLNAT)?;
            set_program(&mut ebpf, mode::PLAIN, program::FULLNAT)?;
        }
        let entry = if options.alone { program::BALANCER } else { program::FAST_PATH };
        Ok(Self { ebpf, entry, world: World::default(), written: world::Written::default() })
    }

    /// Replaces what the maps say by this world. Pins are removed, counters stay.
    pub fn enter(&mut self, world: World) {
        self.reset_limits();
        self.written.erase(&mut self.ebpf, &self.world).expect("erasing the last world");
        self.written = world::Written::write(&mut self.ebpf, &world).expect("writing a world");
        self.world = world;
    }

    /// The world entered last.
    pub fn world(&self) -> &World {
        &self.world
    }

    /// Runs one frame through the balancer.
    pub fn run(&self, frame: &[u8]) -> Outcome {
        run(self.balancer(), frame)
    }

    /// Runs one frame, and tells by how much each counter has changed.
    pub fn count(&mut self, frame: &[u8]) -> (Outcome, Delta) {
        let before = self.counts();
        let outcome = self.run(frame);
        (outcome, self.counts().since(&before))
    }

    /// All counters of the world.
    pub fn counts(&mut self) -> Counts {
        Counts::read(&mut self.ebpf, &self.world)
    }

    /// The program that NICs get: the fast path, if the balancer is not to be alone.
    pub fn balancer(&self) -> &Xdp {
        let program = self.ebpf.program(self.entry).expect("it was loaded");
        program.try_into().expect("it is an XDP program")
    }

    /// What it goes on to.
    pub fn slow_path(&self) -> &Xdp {
        let program = self.ebpf.program(program::BALANCER).expect("it was loaded");
        program.try_into().expect("it is an XDP program")
    }

    /// The program of full nat.
    pub fn fullnat(&self) -> &Xdp {
        let program = self.ebpf.program(program::FULLNAT).expect("it was loaded");
        program.try_into().expect("it is an XDP program")
    }

    /// Whether the balancer can go on to full nat.
    pub fn set_fullnat(&mut self, on: bool) {
        if on {
            let of_mode = set_program(&mut self.ebpf, mode::PLAIN, program::FULLNAT);
            of_mode.expect("it was loaded");
            return;
        }
        let map = self.ebpf.map_mut(map::PROGRAMS).expect("the program declares it");
        let mut programs = ProgramArray::try_from(map).expect("its type");
        programs.clear_index(&mode::PLAIN).expect("it is there");
    }

    /// The slot of a port of an address of the pool.
    pub fn port_slot(&mut self, address: u32, port: u16) -> PortSlot {
        let index = PortSlot::index(address, port);
        self.array(map::PORT_SLOTS).get(&index, 0).expect("within")
    }

    /// Replaces it.
    pub fn set_port_slot(&mut self, address: u32, port: u16, slot: PortSlot) {
        let index = PortSlot::index(address, port);
        self.array(map::PORT_SLOTS).set(index, slot, 0).expect("within");
    }

    /// Replaces what full nat sends from.
    pub fn set_pool(&mut self, pool: SourcePool) {
        self.array(map::SOURCE_POOL).set(0, pool, 0).expect("one entry");
    }

    /// The same, to be attached.
    pub fn balancer_mut(&mut self) -> &mut Xdp {
        let program = self.ebpf.program_mut(self.entry).expect("it was loaded");
        program.try_into().expect("it is an XDP program")
    }

    /// An array map.
    pub fn array<T: Pod>(&mut self, name: &str) -> Array<&mut MapData, T> {
        array(&mut self.ebpf, name)
    }

    /// A hash map.
    pub fn hash_map<K: Pod, V: Pod>(&mut self, name: &str) -> HashMap<&mut MapData, K, V> {
        hash_map(&mut self.ebpf, name)
    }

    /// Forgets the packets whose first fragment has come.
    pub fn forget_fragments(&mut self) {
        let name = map::FRAGMENTS;
        let mut fragments = self.hash_map::<[u64; 5], [u64; 6]>(name);
        clear(&mut fragments).expect("removing fragments");
    }

    /// Replaces one slot; `index` counts from the first slot of the service's ring.
    pub fn set_slot(&mut self, service: u32, index: u32, slot: Slot) {
        let ring = self.written.rings[service as usize - 1].start;
        self.array::<u64>(map::ARENA).set(ring + index, slot.0, 0).expect("within the arena");
    }

    /// Confirmed and unconfirmed pin of a flow.
    pub fn pins(&mut self, flow: &FlowKey) -> (Option<Pin>, Option<Pin>) {
        let confirmed = self.hash_map::<FlowKey, Pin>(map::PINS).get(flow, 0).ok();
        (confirmed, self.hash_map::<FlowKey, Pin>(map::PINS_NEW).get(flow, 0).ok())
    }

    /// Number of confirmed and unconfirmed pins.
    pub fn pin_counts(&mut self) -> (usize, usize) {
        let confirmed = self.hash_map::<FlowKey, Pin>(map::PINS).keys().count();
        (confirmed, self.hash_map::<FlowKey, Pin>(map::PINS_NEW).keys().count())
    }

    /// Confirmed and unconfirmed entry of a tracked flow.
    pub fn flows(&mut self, flow: &FlowKey) -> (Option<Pin>, Option<Pin>) {
        let confirmed = self.hash_map::<FlowKey, Pin>(map::FLOWS).get(flow, 0).ok();
        (confirmed, self.hash_map::<FlowKey, Pin>(map::FLOWS_NEW).get(flow, 0).ok())
    }

    /// Open connections of a backend, as the program counts them.
    pub fn connections(&mut self, backend: u32) -> u64 {
        self.array::<BackendLoad>(map::LOADS).get(&backend, 0).expect("within").connections
    }

    /// What the program counts of a service.
    pub fn service_load(&mut self, service: u32) -> ServiceLoad {
        self.array(map::SERVICE_LOADS).get(&service, 0).expect("within")
    }

    /// Now, in the kernel's jiffies.
    pub fn jiffies(&mut self) -> u64 {
        let program: &Xdp =
            self.ebpf.program(program::CLOCK).expect("loaded").try_into().expect("XDP");
        assert_eq!(run(program, &[0; 64]).action, action::PASS, "the clock program");
        self.array::<Clock>(map::CLOCK).get(&0, 0).expect("one entry").jiffies
    }

    /// Gives back what earlier tests took from the rate limits.
    fn reset_limits(&mut self) {
        let map = self.ebpf.map_mut("LIMITS").expect("the program declares it");
        let mut limits: PerCpuArray<_, u64> = PerCpuArray::try_from(map).expect("its type");
        for index in 0..limits.len() {
            let zeros = vec![0; nr_cpus().expect("the kernel says it")];
            limits
                .set(index, PerCpuValues::try_from(zeros).expect("one a CPU"), 0)
                .expect("within");
        }
    }

    /// The object, for maps of any type.
    pub fn ebpf(&mut self) -> &mut Ebpf {
        &mut self.ebpf
    }
}

/// The keys of the flow hash in all tests.
pub fn hash_keys() -> HashKeys {
    expand_seed(&SEED)
}

/// Runs one frame through a program.
///
/// # Panics
/// If the kernel does not run it: frames have at least 14 bytes.
pub fn run(program: &Xdp, frame: &[u8]) -> Outcome {
    let mut out = vec![0; frame.len() + 256];
    let result = program
        .test_run(TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut out),
            ..TestRunOptions::new()
        })
        .unwrap_or_else(|error| panic!("test run of {}: {error}", packet::hex(frame)));
    out.truncate(result.data_size_out as usize);
    Outcome { action: result.return_value, frame: out }
}

/// Runs a program `repeat` times on its own output; the last action and the mean time of a run.
pub fn repeat(program: &Xdp, frame: &[u8], repeat: u32) -> Result<(u32, Duration)> {
    let result = program.test_run(TestRunOptions {
        data_in: Some(frame),
        repeat,
        ..TestRunOptions::new()
    })?;
    Ok((result.return_value, result.duration))
}

/// Where an object lies.
fn object(name: &str) -> Result<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/ebpf").join(name);
    if !path.is_file() {
        bail!("{} is not built: run `cargo xtask build` once", path.display());
    }
    Ok(path)
}

/// The most instructions that the kernel's verifier looks at in a program.
pub const VERIFIER_LIMIT: u32 = 1_000_000;

/// Loads some programs of an object as it is.
pub fn load_object(name: &str, programs: &[&str]) -> Result<Ebpf> {
    let path = object(name)?;
    let mut ebpf = EbpfLoader::new()
        .load_file(&path)
        .with_context(|| format!("cannot load {}", path.display()))?;
    for program in programs {
        load_program(&mut ebpf, program)?;
    }
    Ok(ebpf)
}

/// Lets programs go on to another one, by this index.
fn set_program(ebpf: &mut Ebpf, index: u32, name: &str) -> Result<()> {
    let program: &Xdp =
        ebpf.program(name).with_context(|| format!("no program `{name}`"))?.try_into()?;
    let descriptor = program.fd()?.try_clone()?;
    let map = ebpf.map_mut(map::PROGRAMS).context("no map PROGRAMS")?;
    ProgramArray::try_from(map)?.set(index, &descriptor, 0)?;
    Ok(())
}

/// Loads a program of an object, with the end of the verifier's log in the error.
fn load_program(ebpf: &mut Ebpf, name: &str) -> Result<()> {
    let program = ebpf.program_mut(name).with_context(|| format!("no program `{name}`"))?;
    let program: &mut Xdp = program.try_into()?;
    match program.load() {
        Ok(()) => Ok(()),
        Err(ProgramError::LoadError { io_error, verifier_log }) => {
            let log = verifier_log.to_string();
            let lines: Vec<&str> = log.lines().collect();
            let end = lines[lines.len().saturating_sub(40)..].join("\n");
            bail!("the kernel refuses `{name}` (is this root, with BPF?): {io_error}\n{end}")
        }
        Err(error) => Err(error).with_context(|| format!("cannot load `{name}`")),
    }
}

fn array<'a, T: Pod>(ebpf: &'a mut Ebpf, name: &str) -> Array<&'a mut MapData, T> {
    let map = ebpf.map_mut(name).unwrap_or_else(|| panic!("no map {name}"));
    Array::try_from(map).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn hash_map<'a, K: Pod, V: Pod>(ebpf: &'a mut Ebpf, name: &str) -> HashMap<&'a mut MapData, K, V> {
    let map = ebpf.map_mut(name).unwrap_or_else(|| panic!("no map {name}"));
    HashMap::try_from(map).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Removes every entry.
fn clear<T: BorrowMut<MapData>, K: Pod, V: Pod>(map: &mut HashMap<T, K, V>) -> Result<()> {
    let keys: Vec<K> = map.keys().collect::<Result<_, _>>()?;
    for key in keys {
        map.remove(&key)?;
    }
    Ok(())
}
