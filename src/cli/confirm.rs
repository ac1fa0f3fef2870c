//! A question before something is deleted or canceled.

use std::{
    fs,
    io::{self, BufRead as _, IsTerminal as _, Write as _},
};

use super::table::one_line;

/// Asks at the terminal, also if input and output are redirected. Without a terminal, as in a script, the answer is
/// yes.
pub(super) fn is_confirmed(question: &str) -> io::Result<bool> {
    let is_attended = io::stdin().is_terminal() || io::stdout().is_terminal() || io::stderr().is_terminal();
    let terminal = || fs::File::options().read(true).write(true).open("/dev/tty").ok();
    let Some(mut terminal) = is_attended.then(terminal).flatten() else { return Ok(true) };
    terminal.write_all(one_line(&format!("{question} [y/N] ")).as_bytes())?;
    let mut answer = String::new();
    io::BufReader::new(terminal).read_line(&mut answer)?;
    Ok(["y", "yes"].contains(&answer.trim().to_lowercase().as_str()))
}
