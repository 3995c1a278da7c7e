//! A NIC: whether it is there and up, and whether XDP runs, or can run, in its driver.

use super::{
    Finding, Severity, advice, command,
    facts::{Facts, Nic},
};
use crate::config::model::XdpMode;

/// Drivers with native XDP since Linux 6.1 or earlier, for kernels that do not say it themselves.
const NATIVE: [&str; 27] = [
    "veth",
    "virtio_net",
    "tun",
    "ixgbe",
    "ixgbevf",
    "i40e",
    "ice",
    "igb",
    "igc",
    "mlx4_en",
    "mlx5_core",
    "bnxt_en",
    "ena",
    "gve",
    "nfp",
    "qede",
    "sfc",
    "thunder-nicvf",
    "hv_netvsc",
    "netvsc",
    "fsl_dpaa2_eth",
    "mvneta",
    "mvpp2",
    "stmmac",
    "st_gmac",
    "xen-netfront",
    "bonding",
];

/// Judges one NIC.
pub(super) fn check(nic: &Nic, facts: &Facts) -> Vec<Finding> {
    if nic.ifindex.is_none() {
        return vec![Finding::bad(
            Severity::Error,
            &nic.name,
            "nic",
            format!("there is no NIC {}", nic.name),
            "lb cannot attach to it (it does as soon as the NIC appears)",
            command("ip -brief link"),
        )];
    }
    let mut findings = vec![link(nic), xdp(nic, facts)];
    findings.extend(redirect(nic, facts));
    findings
}

fn link(nic: &Nic) -> Finding {
    let driver = nic.driver.as_deref().unwrap_or("unknown");
    if nic.up {
        return Finding::ok(&nic.name, "link", format!("up, driver {driver}"));
    }
    Finding::bad(
        Severity::Error,
        &nic.name,
        "link",
        format!("down, or without carrier (driver {driver})"),
        "no packet comes or goes",
        command(format!("ip link set dev {} up", nic.word())),
    )
}

fn xdp(nic: &Nic, facts: &Facts) -> Finding {
    match &nic.program {
        Some(program) if !program.ours && !nic.decapsulates => Finding::bad(
            Severity::Error,
            &nic.name,
            "xdp",
            format!("{} is attached ({}), which is not lb's", program.name, program.mode),
            "a NIC takes one XDP program; lb does not replace another's",
            command(format!("ip link set dev {} xdp off", nic.word())),
        ),
        Some(program) if program.mode == "generic" => generic(nic, facts),
        Some(program) => Finding::ok(
            &nic.name,
            "xdp",
            format!("{} is attached, in the driver ({})", program.name, program.mode),
        ),
        None => possible(nic, facts),
    }
}

fn mode(facts: &Facts) -> XdpMode {
    facts.config().map(|config| config.xdp_mode).unwrap_or_default()
}

fn generic(nic: &Nic, facts: &Facts) -> Finding {
    const WHY: &str = "packets meet XDP after the kernel has made its buffers for them: several times slower than in the driver";
    let (severity, cause) = match mode(facts) {
        XdpMode::Generic => (Severity::Note, "as configured"),
        XdpMode::Auto | XdpMode::Native => (Severity::Warning, "the driver has refused native XDP"),
    };
    let cause = if nic.decapsulates { "lb decap" } else { cause };
    let remedy = match nic.xdp_features {
        Some(features) if !features.basic => advice(
            "use a NIC whose driver has native XDP; this one says that it has none (see its other findings)",
        ),
        _ if nic.decapsulates => command(format!(
            "lb decap --detach --iface {nic} && lb decap --mode native --iface {nic}",
            nic = nic.word()
        )),
        _ => advice(
            "say `xdp_mode: native` in the configuration and run `lb reload`: lb attaches anew, or says what the driver objects to",
        ),
    };
    Finding::bad(severity, &nic.name, "xdp", format!("generic mode ({cause})"), WHY, remedy)
}

/// Nothing is attached yet: what would happen.
fn possible(nic: &Nic, facts: &Facts) -> Finding {
    const WHY: &str = "lb attaches in the driver unless told otherwise, and would refuse to start";
    if mode(facts) == XdpMode::Generic {
        let found = "nothing attached; generic mode, as configured, works with every driver";
        return Finding::ok(&nic.name, "xdp", found);
    }
    let driver = nic.driver.as_deref().unwrap_or("unknown");
    if let Some(features) = nic.xdp_features {
        if features.basic {
            let found = format!("nothing attached; the driver ({driver}) has native XDP");
            return Finding::ok(&nic.name, "xdp", found);
        }
        let severity =
            if mode(facts) == XdpMode::Auto { Severity::Warning } else { Severity::Error };
        let remedy = match driver {
            "veth" => {
                let most = nic.channels.map_or(1, |channels| channels.max_rx);
                command(format!("ethtool -L {} rx {most}", nic.word()))
            }
            _ => advice("say `xdp_mode: auto` (several times slower), or use another NIC"),
        };
        let found = match driver {
            "veth" => "no native XDP: a veth needs as many receive queues as its far end has transmit queues".to_owned(),
            _ => format!("the driver ({driver}) says that it has no native XDP"),
        };
        return Finding::bad(severity, &nic.name, "xdp", found, WHY, remedy);
    }
    if NATIVE.contains(&driver) {
        let found = format!("nothing attached; drivers like {driver} have native XDP");
        return Finding::ok(&nic.name, "xdp", found);
    }
    Finding::bad(
        Severity::Note,
        &nic.name,
        "xdp",
        format!("not known whether {driver} has native XDP: the kernel (before 6.3) does not say"),
        WHY,
        advice("start lb and see; `xdp_mode: auto` falls back to the slower generic mode"),
    )
}

/// With several NICs, packets go from one to another.
fn redirect(nic: &Nic, facts: &Facts) -> Option<Finding> {
    let features = nic.xdp_features?;
    let several = facts.nics.iter().filter(|other| !other.decapsulates).count() > 1;
    // Many drivers become a target only when a program is attached; nobody knows before.
    let native = nic.program.as_ref().is_some_and(|program| program.mode == "native");
    if !several || !features.basic || !native {
        return None;
    }
    if features.redirect && features.target {
        return Some(Finding::ok(
            &nic.name,
            "redirect",
            "packets may be redirected from and to it",
        ));
    }
    let what = if features.redirect { "to" } else { "from" };
    Some(Finding::bad(
        Severity::Error,
        &nic.name,
        "redirect",
        format!("the driver says that XDP cannot redirect packets {what} this NIC"),
        "packets that leave by another NIC than they came by would be lost (`egress_failed`)",
        advice("use one NIC for clients and backends, or `xdp_mode: generic`"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::{
        facts::{Program, XdpFeatures},
        testing::{assert_finds, config},
    };

    const ALL: XdpFeatures = XdpFeatures { basic: true, redirect: true, target: true };

    fn good() -> Nic {
        Nic {
            name: "eth0".into(),
            ifindex: Some(2),
            up: true,
            driver: Some("ice".into()),
            xdp_features: Some(ALL),
            ..Nic::default()
        }
    }

    fn program(mode: &str, ours: bool) -> Option<Program> {
        Some(Program { name: "balancer".into(), mode: mode.into(), ours })
    }

    fn facts(nics: &[Nic], settings: &str) -> Facts {
        let mut config = config("forward: nat", "10.0.0.1:80");
        config.xdp_mode = match settings {
            "auto" => XdpMode::Auto,
            "generic" => XdpMode::Generic,
            _ => XdpMode::Native,
        };
        Facts { nics: nics.to_vec(), config: Some(Ok(config)), ..Facts::default() }
    }

    #[test]
    fn native_is_ok_and_generic_is_named() {
        let check = |nic: Nic, mode| check(&nic, &facts(std::slice::from_ref(&nic), mode));
        assert_finds(&check(good(), "native"), "xdp", Severity::Ok, "");
        let native = Nic { program: program("native", true), ..good() };
        assert_finds(&check(native, "native"), "xdp", Severity::Ok, "");
        let generic = Nic { program: program("generic", true), ..good() };
        assert_finds(&check(generic.clone(), "auto"), "xdp", Severity::Warning, "lb reload");
        assert_finds(&check(generic, "generic"), "xdp", Severity::Note, "xdp_mode: native");
        let other = Nic { program: program("native", false), ..good() };
        assert_finds(
            &check(other, "native"),
            "xdp",
            Severity::Error,
            "ip link set dev eth0 xdp off",
        );
    }

    #[test]
    fn a_driver_without_xdp_is_an_error_unless_generic_is_allowed() {
        let bad = Nic { xdp_features: Some(XdpFeatures::default()), ..good() };
        let check = |nic: &Nic, mode| check(nic, &facts(std::slice::from_ref(nic), mode));
        assert_finds(&check(&bad, "native"), "xdp", Severity::Error, "xdp_mode: auto");
        assert_finds(&check(&bad, "auto"), "xdp", Severity::Warning, "another NIC");
        assert_finds(&check(&bad, "generic"), "xdp", Severity::Ok, "");
        let veth = Nic { driver: Some("veth".into()), ..bad };
        assert_finds(&check(&veth, "native"), "xdp", Severity::Error, "ethtool -L eth0 rx");
        // Before 6.3 only what is known about drivers helps.
        let silent = Nic { xdp_features: None, ..good() };
        assert_finds(&check(&silent, "native"), "xdp", Severity::Ok, "");
        let stranger = Nic { driver: Some("r8169".into()), ..silent };
        assert_finds(&check(&stranger, "native"), "xdp", Severity::Note, "xdp_mode: auto");
    }

    #[test]
    fn a_nic_that_is_down_or_missing_is_an_error() {
        let down = Nic { up: false, ..good() };
        assert_finds(&check(&down, &facts(&[], "")), "link", Severity::Error, "eth0 up");
        let gone = Nic { ifindex: None, ..good() };
        assert_finds(&check(&gone, &facts(&[], "")), "nic", Severity::Error, "ip -brief link");
    }

    #[test]
    fn with_two_nics_both_must_redirect() {
        let attached = Nic { program: program("native", true), ..good() };
        let half =
            Nic { xdp_features: Some(XdpFeatures { target: false, ..ALL }), ..attached.clone() };
        let both = [half.clone(), attached];
        assert_finds(&check(&half, &facts(&both, "")), "redirect", Severity::Error, "one NIC");
        assert_finds(&check(&both[1], &facts(&both, "")), "redirect", Severity::Ok, "");
        assert!(
            !check(&half, &facts(std::slice::from_ref(&half), ""))
                .iter()
                .any(|f| f.check == "redirect")
        );
    }
}
