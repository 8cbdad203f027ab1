//! `ghostunnel demo`: mutual TLS around a real service, with nothing to prepare.
//!
//! Mints a throw-away CA, starts an echo backend in this process and two real tunnels as child
//! processes of the same binary (so what runs is what an operator would run, sandbox
//! included), pushes data through, and shows a stranger being refused. Ends with exit code 1
//! when anything did not hold, and says what.

mod backend;
mod certificates;
mod checks;
mod leftovers;
mod tunnels;

use std::io::{IsTerminal, Write as _, stdout};
use std::process::ExitCode;

use anyhow::Context as _;

use self::backend::EchoBackend;
use self::certificates::Files;
use self::leftovers::Leftovers;
use self::tunnels::Tunnels;
use crate::cli::{Breakage, DemoOptions};

/// How much is pushed through both tunnels and back.
const BULK: usize = 64 * 1024 * 1024;

/// Runs the demonstration.
pub(super) fn run(options: DemoOptions) -> ExitCode {
    let outcome = Leftovers::new()
        .context("cannot handle signals")
        .and_then(|leftovers| {
            let outcome = demonstrate(options, &leftovers);
            if outcome.is_err() {
                leftovers.let_a_signal_win();
            }
            outcome
        });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            super::complain(&format!("error: the demo did not hold: {error:#}\n"));
            ExitCode::FAILURE
        }
    }
}

fn demonstrate(options: DemoOptions, leftovers: &Leftovers) -> anyhow::Result<()> {
    let breakage = options.breakage;
    say("ghostunnel demo: mutual TLS around a service that speaks none\n");

    let files =
        Files::mint(breakage == Some(Breakage::Stranger), leftovers).context("cannot mint certificates")?;
    say(&format!(
        "certificates   a throw-away CA with a server, a client and a stranger in {}",
        files.folder()
    ));
    let backend = EchoBackend::start(breakage == Some(Breakage::Byte)).context("cannot start the backend")?;
    say(&format!(
        "backend        plain echo service on {}",
        backend.address()
    ));
    let tunnels = Tunnels::start(&files, backend.address(), breakage, leftovers)?;
    say(&format!(
        "server tunnel  TLS on {}, plaintext to the backend",
        tunnels.server_address()
    ));
    say(&format!(
        "client tunnel  plaintext on {}, TLS to the server tunnel",
        tunnels.client_address()
    ));
    say(&format!("sandbox        {}\n", tunnels.sandbox()));

    let bulk = checks::bulk(&tunnels, BULK)?;
    say(&format!("ok  {bulk}"));
    let latency = checks::latency(&tunnels)?;
    say(&format!("ok  {latency}"));
    let stranger = checks::stranger_is_refused(&tunnels, &files, &backend)?;
    say(&format!("ok  {stranger}\n"));

    say("The same by hand:\n");
    for command in tunnels.commands() {
        say(&format!("  {command}\n"));
    }
    if options.once || !stdout().is_terminal() {
        return Ok(());
    }
    say("Both tunnels stay up until you press Ctrl-C. Try:\n");
    say(&format!(
        "  echo hello | nc -q 1 {} {}",
        tunnels.client_address().ip(),
        tunnels.client_address().port()
    ));
    say(&format!("  curl -s http://{}/_status", tunnels.status_address()));
    leftovers.expect_an_end();
    tunnels.wait_for_end();
    Ok(())
}

/// The demo talks to a person: its words go to stdout as they come. Somebody who has seen
/// enough may have closed it; what was found shows in the exit code too.
fn say(text: &str) {
    let _reader_may_be_gone = writeln!(stdout(), "{text}");
}
