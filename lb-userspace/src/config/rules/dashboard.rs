//! Who can reach the dashboard has to show a token, unless it is this host alone.

use super::{Context, Findings};

pub fn judge(context: &Context<'_>, findings: &mut Findings<'_>) {
    let Some(dashboard) = &context.config.dashboard else { return };
    let listen = dashboard.listen;
    let path = "dashboard.listen";
    if listen.port() == 0 {
        let help = "write 127.0.0.1:8404 or \"[::1]:8404\"";
        findings.error(path, "dashboard has no port", help);
        return;
    }
    if !listen.ip().is_loopback() && dashboard.token_file.is_none() {
        findings.error(
            path,
            format!(
                "the dashboard at {listen} can be reached by other hosts and asks nobody for a token"
            ),
            "add `token_file:`, or listen on 127.0.0.1 or \"[::1]\"",
        );
    }
    if dashboard.write && dashboard.token_file.is_none() {
        findings.error(
            "dashboard.write",
            "dashboard.write without a token would let everybody on this host change backends",
            "add `token_file:`",
        );
    }
    if context.config.metrics == Some(listen) {
        findings.error(
            path,
            format!("metrics and dashboard cannot both be at {listen}"),
            "choose another port for one of the two",
        );
    }
}
