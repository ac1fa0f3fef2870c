//! A terminal: tmux is one, and says what is on it.

use crate::support::{CODERDB, rows::Rows};
use std::{
    process::Command,
    time::{Duration, Instant},
};
use tempfile::TempDir;
use tokio::task::{block_in_place, yield_now};

pub const LONG: Duration = Duration::from_mins(2);

/// A terminal with a shell, for which the program is `coderdb` and the database is this one.
pub struct Terminal {
    pub dir: TempDir,
}

impl Terminal {
    pub fn open(rows: &Rows, size: (u32, u32)) -> Self {
        let organization = [("CODER_ORGANIZATION", "org1")];
        Self::with_shell(&["sh"], rows.database.environment().into_iter().chain(organization), size)
    }

    pub fn with_shell<'e>(
        program: &[&str],
        environment: impl IntoIterator<Item = (&'static str, &'e str)>,
        (width, height): (u32, u32),
    ) -> Self {
        let terminal = Self { dir: tempfile::tempdir().expect("a directory") };
        let path = std::env::var("PATH").unwrap_or_default();
        let coderdb = std::path::Path::new(CODERDB).parent().expect("a directory").display();
        let mut shell = vec![format!("PATH={coderdb}:{path}"), "PS1=$ ".to_owned()];
        shell.extend(environment.into_iter().map(|(name, value)| format!("{name}={value}")));
        let mut open = terminal.tmux();
        open.args([
            "new-session",
            "-d",
            "-x",
            &width.to_string(),
            "-y",
            &height.to_string(),
            "env",
            "-i",
            "TERM=screen",
        ]);
        let opened = open.args(shell).args(program).output().expect("install tmux");
        assert!(opened.status.success(), "{}", String::from_utf8_lossy(&opened.stderr));
        terminal
    }

    pub fn tmux(&self) -> Command {
        let mut tmux = Command::new("tmux");
        tmux.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("TERM", "screen");
        tmux.env("TMUX_TMPDIR", self.dir.path()).args(["-u", "-f", "/dev/null"]);
        tmux
    }

    pub fn ask(&self, args: &[&str]) -> String {
        let answer = block_in_place(|| self.tmux().args(args).output().expect("tmux"));
        String::from_utf8(answer.stdout).expect("UTF-8")
    }

    pub fn screen(&self) -> String {
        self.ask(&["capture-pane", "-p"])
    }

    pub fn press(&self, keys: &[&str]) {
        self.ask(&[&["send-keys"], keys].concat());
    }

    /// Waits until this is on the screen.
    pub async fn shows(&self, is_there: impl Fn(&str) -> bool) -> String {
        // Longer than anything here takes: a screen that never comes is to be shown, and not waited for.
        let began = Instant::now();
        loop {
            let screen = self.screen();
            if is_there(&screen) {
                return screen;
            }
            assert!(began.elapsed() < LONG, "the screen is still:\n{screen}");
            yield_now().await;
        }
    }

    /// Runs a command of the shell, and says what it left behind: its exit code, and a terminal as it was.
    pub async fn ends(&self, code: u32) {
        let expected = format!("code {code} end");
        self.shows(|screen| screen.contains(&expected)).await;
        // The screen of before, its cursor, and a shell that gets lines and shows what is typed.
        assert_eq!(self.ask(&["display-message", "-p", "#{alternate_on} #{cursor_flag} #{mouse_any_flag}"]), "0 1 0\n");
        self.press(&["clear; stty -a | tr ' ;' '\\n\\n' | grep -cx -e icanon -e echo -e isig -e icrnl", "Enter"]);
        self.shows(|screen| screen.lines().any(|line| line.trim() == "4")).await;
        self.press(&["clear", "Enter"]);
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.tmux().arg("kill-server").output();
    }
}
