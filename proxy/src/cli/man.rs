//! The manual pages: what `--help` and the option reference say, in the language of man(7).

use std::io::{self, Write};
use std::path::Path;

use clap::Command;
use clap_mangen::Man;

/// Behind the page of `pgimbal` itself. docs/operations.md has the signals and exit codes too.
const PROCESS: &str = r"
.SH FILES
.TP
\fIpgimbal.toml\fR, \fI/etc/pgimbal/pgimbal.toml\fR
The configuration, the first of them that is there: \fBpgimbal.toml\fR(5).
.SH ENVIRONMENT
.TP
\fBPGIMBAL_\fIKEY\fR
The option \fIKEY\fR; it wins over the file. The names are in \fBpgimbal.toml\fR(5).
.TP
\fBLISTEN_FDS\fR, \fBNOTIFY_SOCKET\fR, \fBWATCHDOG_USEC\fR
Set by \fBsystemd\fR(1): sockets that are used for the addresses they are bound to, where to tell
that pgimbal serves, and how often to tell that it lives.
.SH SIGNALS
.TP
\fBSIGTERM\fR
Drains: accepts nobody, lets transactions come to their end, and cuts what is left after
\fBshutdown_grace\fR.
.TP
\fBSIGINT\fR
Ends at once, as SIGTERM does during the start.
.TP
\fBSIGHUP\fR
Reads the configuration again.
.TP
\fBSIGUSR2\fR
Starts the program of the same path anew, which takes over the listening sockets; this process then
drains. If the new one does not come to serve, this one goes on.
.SH EXIT STATUS
.TP
\fB0\fR
Ended as told.
.TP
\fB1\fR
It could not begin (an address in use, say).
.TP
\fB2\fR
A flag that does not exist.
.TP
\fB78\fR
The configuration cannot be used.
";

/// Writes the page of `command` itself to `out`.
///
/// # Errors
/// The error of `out`.
pub(super) fn write_page(command: Command, out: &mut impl Write) -> io::Result<()> {
    write(built(command), out)
}

/// Writes the pages of `command` and all its subcommands, and pgimbal.toml(5), into `folder`, which
/// must exist.
///
/// # Errors
/// The operating system's error when a file cannot be written.
pub(super) fn write_pages(command: Command, folder: &Path) -> io::Result<()> {
    let mut commands = vec![built(command)];
    while let Some(command) = commands.pop() {
        commands.extend(command.get_subcommands().cloned());
        let mut page = Vec::new();
        let name = Man::new(command.clone()).get_filename();
        write(command, &mut page)?;
        std::fs::write(folder.join(name), page)?;
    }
    std::fs::write(folder.join("pgimbal.toml.5"), pgimbal_config::manual_page())
}

fn built(command: Command) -> Command {
    let mut command = command.disable_help_subcommand(true);
    command.build();
    command
}

fn write(command: Command, out: &mut impl Write) -> io::Result<()> {
    let is_program = command.get_version().is_some();
    let has_subcommands = command.has_subcommands();
    let man = Man::new(command).source(concat!("pgimbal ", env!("CARGO_PKG_VERSION")));
    man.render_title(out)?;
    man.render_name_section(out)?;
    man.render_synopsis_section(out)?;
    man.render_description_section(out)?;
    man.render_options_section(out)?;
    if has_subcommands {
        man.render_subcommands_section(out)?;
    }
    if is_program {
        out.write_all(PROCESS.as_bytes())?;
    }
    let see = if is_program { r"\fBpgimbal.toml\fR(5)" } else { r"\fBpgimbal\fR(1)" };
    writeln!(out, ".SH SEE ALSO\n{see}")
}
