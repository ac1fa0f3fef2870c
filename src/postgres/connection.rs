//! As much of the protocol as it takes to ask whether a server is ready: no driver, so no runtime.
use std::{
    io::{self, Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

pub(super) struct Connection {
    stream: UnixStream,
    /// As `server_version` gives it; unknown when the server is up but refuses, say for too many clients.
    pub(super) version: Option<String>,
}

impl Connection {
    /// Fails when nothing listens, and when the server is starting, recovering or shutting down.
    pub(super) fn open(socket_dir: &Path) -> io::Result<Self> {
        let mut stream = UnixStream::connect(socket_dir.join(".s.PGSQL.5432"))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        let startup = b"\0\x03\0\0user\0postgres\0database\0postgres\0application_name\0coderdb\0\0";
        stream.write_all(&frame(startup))?;
        let mut this = Self { stream, version: None };
        loop {
            match this.read_message()? {
                (b'S', body) => {
                    if let Some(version) = body.strip_prefix(b"server_version\0") {
                        // A distribution's own version follows in brackets.
                        let version = version.split(|b| *b == 0 || *b == b' ').next().unwrap_or_default();
                        this.version = Some(String::from_utf8_lossy(version).into_owned());
                    }
                }
                // 57P03 is "cannot connect now"; any other refusal comes from a server that is up.
                (b'E', body) if contains(&body, b"C57P03\0") => {
                    return Err(io::Error::new(io::ErrorKind::ConnectionRefused, "not accepting connections"));
                }
                (b'E' | b'Z', _) => return Ok(this),
                _ => {}
            }
        }
    }

    /// The first column of the first row, as text.
    pub(super) fn value(&mut self, sql: &str) -> io::Result<String> {
        self.stream.write_all(b"Q")?;
        self.stream.write_all(&frame(&[sql.as_bytes(), b"\0"].concat()))?;
        let mut value = None;
        loop {
            match self.read_message()? {
                (b'D', body) => {
                    let text = body.get(6..).unwrap_or_default();
                    value = Some(String::from_utf8_lossy(text).into_owned());
                }
                (b'Z', _) => return value.ok_or_else(|| io::Error::other("no answer")),
                _ => {}
            }
        }
    }

    fn read_message(&mut self) -> io::Result<(u8, Vec<u8>)> {
        let mut head = [0; 5];
        self.stream.read_exact(&mut head)?;
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
        let mut body = vec![0; length.saturating_sub(4).min(1 << 16) as usize];
        self.stream.read_exact(&mut body)?;
        Ok((head[0], body))
    }
}

/// With a good-bye, or the server's log would complain.
impl Drop for Connection {
    fn drop(&mut self) {
        let _ = self.stream.write_all(b"X\0\0\0\x04");
    }
}

fn frame(body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).expect("our messages are short");
    [&length.to_be_bytes(), body].concat()
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}
