//! The dashboard's listener, kept as the configuration wants it.

use super::{Node, reload::ReloadError};
use crate::{
    api::server::dashboard::{Access, serve_dashboard},
    config::Parsed,
};

impl Node {
    /// Listens where the configuration says, with the token that is in the file now; what does not work is tried again.
    pub(super) fn follow_dashboard(&mut self) {
        let wanted = self.config.as_ref().and_then(|config| config.dashboard.clone());
        let Some(wanted) = wanted else {
            self.dashboard = None;
            self.dashboard_problem = None;
            return;
        };
        let address = wanted.listen;
        let result = Access::new(&wanted).map_err(|error| error.to_string()).and_then(|access| {
            if let Some(running) = self.dashboard.as_ref().filter(|d| d.address() == address) {
                running.set_access(access);
                return Ok(());
            }
            self.dashboard = None;
            let serving = serve_dashboard(address, access, self.commands.clone());
            self.dashboard =
                Some(serving.map_err(|error| format!("cannot listen on {address}: {error}"))?);
            tracing::info!(%address, "the dashboard is served");
            Ok(())
        });
        let problem =
            result.err().map(|error| format!("dashboard: {error}; tried again every 2 s"));
        if let Some(problem) = &problem {
            // Without the right token nobody may look.
            self.dashboard = None;
            if self.dashboard_problem.as_ref() != Some(problem) {
                tracing::error!("{problem}");
            }
        }
        self.dashboard_problem = problem;
    }

    /// A configuration whose token cannot be used is refused; at a start it is a warning, because traffic matters more.
    pub(super) fn check_dashboard(&self, parsed: &Parsed) -> Result<(), ReloadError> {
        let Some(dashboard) = parsed.config.dashboard.as_ref().filter(|_| self.started) else {
            return Ok(());
        };
        match Access::new(dashboard) {
            Ok(_) => Ok(()),
            Err(error) => {
                let (line, column) = parsed.locate("dashboard.token_file");
                let file = parsed.source().path.display();
                Err(ReloadError::Host(format!("{file}:{line}:{column}: {error}")))
            }
        }
    }
}
