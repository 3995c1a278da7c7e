//! Frames that the program sees a second time.

use anyhow::Context as _;
use aya::{TestRun as _, TestRunAttrs, TestRunOptions, programs::Xdp};
use lb_common::abi::program;

use super::{Dataplane, dry_run::context};

impl Dataplane {
    /// Gives the program a frame as if it came in by a NIC now, with all that follows: it is sent, passed up or dropped, and
    /// counted. Linux 5.18 and later; a driver that cannot send other NICs' frames (`ndo_xdp_xmit`) loses it.
    pub fn receive_again(&self, frame: &[u8], ifindex: u32) -> anyhow::Result<()> {
        let program: &Xdp = self
            .ebpf
            .program(program::FAST_PATH)
            .with_context(|| format!("the object has no program `{}`", program::FAST_PATH))?
            .try_into()?;
        let context = context(frame.len() as u32, ifindex);
        program.test_run(TestRunOptions {
            data_in: Some(frame),
            ctx_in: Some(&context),
            repeat: 1,
            attrs: TestRunAttrs::new().xdp_live_frames(1),
            ..TestRunOptions::new()
        })?;
        Ok(())
    }
}
