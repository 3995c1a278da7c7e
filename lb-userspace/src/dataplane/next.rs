//! What the programs on the NICs go on to.

use aya::{
    Ebpf,
    maps::ProgramArray,
    programs::{ProgramError, Xdp},
};
use lb_common::abi::map;

use super::LoadError;

/// Lets programs go on to a loaded one of the object by this index of `PROGRAMS`. Called before those that may go on to it meet packets.
pub(super) fn set(ebpf: &mut Ebpf, index: u32, name: &str) -> Result<(), LoadError> {
    let failed = |error: String| LoadError::Load(format!("the program `{name}`: {error}"));
    let missing = || failed("the object has none".to_owned());
    let program: &Xdp = ebpf
        .program(name)
        .ok_or_else(missing)?
        .try_into()
        .map_err(|error: ProgramError| failed(error.to_string()))?;
    let descriptor = program
        .fd()
        .and_then(|descriptor| Ok(descriptor.try_clone()?))
        .map_err(|error| failed(error.to_string()))?;
    let map = ebpf.map_mut(map::PROGRAMS).ok_or_else(missing)?;
    ProgramArray::try_from(map)
        .and_then(|mut programs| programs.set(index, &descriptor, 0))
        .map_err(|error| LoadError::map(map::PROGRAMS, error))
}
