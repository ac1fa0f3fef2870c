//! Every test connects with a password, and nothing that anybody could read may show it.

use std::{
    fs, io, panic,
    process::abort,
    sync::{
        Once,
        atomic::{AtomicU64, Ordering},
    },
};

use tracing_subscriber::{
    filter::LevelFilter, filter::filter_fn, fmt, layer::SubscriberExt as _, util::SubscriberInitExt as _,
};

/// The password in the URL of every test's database.
pub const CANARY: &str = "canary-c0ffee-s3cret";

/// The secret of every session token that the tests sign in with.
pub const TOKEN: &str = "canaryC0ffeeS3cretTok1";

/// How much has been looked through, in bytes.
static SEEN: AtomicU64 = AtomicU64::new(0);

pub fn seen() -> u64 {
    SEEN.load(Ordering::Relaxed)
}

/// Looks through everything that this process logs, at every level and from every crate, and through its panics.
pub fn watch() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let log = fmt::layer().with_ansi(false).with_span_events(fmt::format::FmtSpan::NEW).with_writer(|| Log);
        // The client of the tests logs what it sends itself.
        let others = filter_fn(|of| of.target() != "tungstenite::handshake::client");
        tracing_subscriber::registry().with(LevelFilter::TRACE).with(others).with(log).init();
        let print = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            check("a panic", &panic.to_string());
            print(panic);
        }));
    });
}

/// Ends the tests when the text shows the password or a token: the test that leaks is not always the one that sees it.
pub fn check(place: &str, text: &str) {
    SEEN.fetch_add(text.len() as u64, Ordering::Relaxed);
    if text.contains(CANARY) || text.contains(TOKEN) {
        let hidden = text.replace(CANARY, "<the password>").replace(TOKEN, "<the token>");
        eprintln!("a secret is in {place}: {hidden}");
        abort();
    }
}

/// Looks through the arguments of all processes of this machine.
pub fn check_process_list() {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    for arguments in processes.filter_map(|process| fs::read(process.path().join("cmdline")).ok()) {
        check("the process list", &String::from_utf8_lossy(&arguments));
    }
}

struct Log;

impl io::Write for Log {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        check("the log", &String::from_utf8_lossy(line));
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
