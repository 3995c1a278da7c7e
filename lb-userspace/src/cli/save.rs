//! `lb save`

use clap::Args;

use super::{
    Exit,
    client::{Connection, block_on},
    diff, output,
};
use crate::api::types::{self, Saved};

/// Write what `lb set` and `lb weight` have set into the configuration file
///
/// Only the lines concerned change: comments, order and notation stay. What is written is a revision of its own (`lb history`,
/// `lb rollback`), and beside the file nothing is left. Administrative states stay beside it: the file has no word for them. A weight that
/// becomes the file's may move some flows once more, as rings are made from the file's weights: --dry-run shows the lines first.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  lb save --dry-run
  lb save")]
pub struct Save {
    /// Only show what would be written
    #[arg(long)]
    dry_run: bool,
    /// Print JSON: {"before": .., "text": .., "written": [..], "left": [..], "applied": ..}
    #[arg(long)]
    json: bool,
}

impl Save {
    /// Does it.
    pub fn execute(self, connection: &Connection) -> anyhow::Result<Exit> {
        let client = connection.client();
        let save = types::Save { dry_run: self.dry_run };
        let saved = block_on(async { Ok(client.save(save).await?) })?;
        match self.json {
            true => output::print_json(&saved)?,
            false => output::print(&render(&saved, self.dry_run))?,
        }
        Ok(Exit::Ok)
    }
}

fn render(saved: &Saved, dry_run: bool) -> String {
    let mut text =
        output::clean_lines(&diff::unified("the file", &saved.before, "as saved", &saved.text));
    if saved.written.is_empty() {
        text.push_str("nothing to write\n");
    }
    for line in &saved.left {
        text.push_str(&format!("stays beside the file: {}\n", output::clean(line)));
    }
    if let Some(applied) = &saved.applied {
        text.push_str(&output::lines(applied.changes.iter()));
        text.push_str(&format!("revision {} is in force, and in the file\n", applied.revision));
    } else if dry_run && !saved.written.is_empty() {
        text.push_str("nothing was written (--dry-run)\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::types::Applied;

    #[test]
    fn what_is_written_and_what_is_not_is_said() {
        let mut saved = Saved {
            before: "a: 1\n".into(),
            text: "a: 2\n".into(),
            written: vec!["global a=2".into()],
            left: vec!["web/web1 is in drain: the file has no word for that".into()],
            applied: None,
        };
        let text = render(&saved, true);
        assert!(text.contains("-a: 1\n+a: 2\n") && text.ends_with("(--dry-run)\n"), "{text}");
        assert!(text.contains("stays beside the file: web/web1 is in drain"), "{text}");
        saved.applied = Some(Applied { revision: 3, ..Applied::default() });
        assert!(render(&saved, false).ends_with("revision 3 is in force, and in the file\n"));
        assert_eq!(render(&Saved::default(), true), "nothing to write\n");
    }
}
