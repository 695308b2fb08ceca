//! The manual pages: what `--help` and the option reference say, in the language of man(7).

use std::collections::BTreeMap;
use std::io::{self, Write};

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

/// The pages of `command` and all its subcommands, and pgimbal.toml(5), by the names of their files.
///
/// # Errors
/// Never: they are written to memory.
pub(super) fn pages(command: Command) -> io::Result<BTreeMap<String, Vec<u8>>> {
    let reference = pgimbal_config::manual_page().into_bytes();
    let mut pages = BTreeMap::from([("pgimbal.toml.5".to_owned(), reference)]);
    let mut command = command.disable_help_subcommand(true);
    command.build();
    let mut commands = vec![command];
    while let Some(command) = commands.pop() {
        commands.extend(command.get_subcommands().cloned());
        let mut page = Vec::new();
        let name = Man::new(command.clone()).get_filename();
        write(command, &mut page)?;
        pages.insert(name, page);
    }
    Ok(pages)
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
