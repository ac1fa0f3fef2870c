//! The messages between the driver and a pooler, so that no statement outlives its batch.
//!
//! A pooler lends a server from the first message of a batch to the end of its transaction, so a statement that was
//! prepared in one batch may not be there in the next. Here, every statement is the unnamed one: what the driver names
//! is remembered, and prepared again in front of each use, in the same batch. Everything else passes as it is.

use std::{
    collections::{HashMap, VecDeque},
    io,
    sync::{Arc, OnceLock},
};

/// In front of every message but the first: its kind, and the length of the rest with these four bytes.
const HEADER: usize = 5;
/// Names of portals and statements end before that; the driver's have up to 30 bytes.
const LONGEST_NAMES: usize = 1 << 10;

/// What the driver has prepared, and which answers it has coming.
#[derive(Default)]
pub(super) struct Statements {
    prepared: HashMap<Box<[u8]>, Arc<Statement>>,
    /// What the server has as the unnamed statement once it is through with the messages so far, in this batch.
    unnamed: Option<Arc<Statement>>,
    expected: VecDeque<Expected>,
    /// A statement whose parameters have been told, and whose columns come next; whether the driver asked for it.
    describing: Option<(Arc<Statement>, bool, Vec<u8>)>,
    started: bool,
    /// Whether a batch is on its way. The next one waits: a pooler takes a session for free once one batch is answered,
    /// and when the driver ends then, lends it with the other answer on its way.
    asked: bool,
    /// How many bytes of the message on its way pass as they are.
    of_request: usize,
    of_answer: usize,
}

struct Statement {
    name: Box<[u8]>,
    /// The message that prepares it as the unnamed one.
    parse: Box<[u8]>,
    /// Its parameters and columns as the driver knows them: it asks for them once, and reads every row by them.
    description: OnceLock<Box<[u8]>>,
}

/// An answer that is to come, in this order, unless an error takes the place of all up to the next `Ready`.
enum Expected {
    Parsed { statement: Arc<Statement>, by_driver: bool },
    Described { statement: Arc<Statement>, by_driver: bool },
    Ready,
}

impl Statements {
    /// Puts into `output` what the pooler is to see of `input`, and returns how much of that is done with. The rest waits
    /// for more of it, or for the answers to what was asked: see [`Self::is_free`].
    pub(super) fn requests(&mut self, input: &[u8], output: &mut Vec<u8>) -> io::Result<usize> {
        let mut rest = input;
        loop {
            pass(&mut rest, &mut self.of_request, output);
            if !self.started {
                let Some(length) = rest.first_chunk() else { break };
                self.of_request = length_of(*length)?;
                self.started = true;
                self.asked = true;
                self.expected.push_back(Expected::Ready);
                continue;
            }
            let Some((kind, length)) = header(rest)? else { break };
            // What goes on in a batch: a password, the data of a copy and its end; and the end of the connection.
            if self.asked && !matches!(kind, b'p' | b'd' | b'c' | b'f' | b'X') {
                break;
            }
            if !matches!(kind, b'P' | b'B' | b'D' | b'C') {
                if matches!(kind, b'S' | b'Q' | b'F') {
                    self.unnamed = None;
                    self.asked = true;
                    self.expected.push_back(Expected::Ready);
                }
                self.of_request = length;
                continue;
            }
            let body = rest.get(HEADER..length);
            if kind == b'B' {
                // Its arguments may be long: they pass as they come.
                let start = body.unwrap_or(&rest[HEADER..]);
                let names = nul(start, 0).and_then(|portal| Some((portal, nul(start, portal)?)));
                let Some((portal, statement)) = names else {
                    if body.is_some() || start.len() > LONGEST_NAMES {
                        return Err(malformed("a Bind without names"));
                    }
                    break;
                };
                let name = &start[portal..statement - 1];
                self.prepare(name, output)?;
                output.push(kind);
                output.extend_from_slice(&length_to_send(length - name.len())?);
                output.extend_from_slice(&start[..portal]);
                output.push(0);
                rest = &rest[HEADER + statement..];
                self.of_request = length - HEADER - statement;
                continue;
            }
            let Some(body) = body else { break };
            match (kind, body.first()) {
                (b'P', _) => self.parse(body, output)?,
                (b'D', Some(b'S')) => {
                    let statement = self.prepare(name(&body[1..])?, output)?;
                    output.extend_from_slice(DESCRIBE);
                    self.expected.push_back(Expected::Described { statement, by_driver: true });
                }
                (b'C', Some(b'S')) => {
                    self.prepared.remove(name(&body[1..])?);
                    self.unnamed = None;
                    output.extend_from_slice(CLOSE);
                }
                _ => output.extend_from_slice(&rest[..length]),
            }
            rest = &rest[length..];
        }
        Ok(input.len() - rest.len())
    }

    /// Whether the next batch may go.
    pub(super) fn is_free(&self) -> bool {
        !self.asked
    }

    /// Puts into `output` what the driver is to see of `input`, and returns how much of that is done with.
    pub(super) fn answers(&mut self, input: &[u8], output: &mut Vec<u8>) -> io::Result<usize> {
        let mut rest = input;
        loop {
            pass(&mut rest, &mut self.of_answer, output);
            let Some((kind, length)) = header(rest)? else { break };
            match kind {
                b'1' | b't' => {
                    let Some(message) = rest.get(..length) else { break };
                    let by_driver = match (kind, self.expected.pop_front()) {
                        (b'1', Some(Expected::Parsed { by_driver, .. })) => by_driver,
                        (b't', Some(Expected::Described { statement, by_driver })) => {
                            self.describing = Some((statement, by_driver, message.to_vec()));
                            by_driver
                        }
                        _ => return Err(malformed("an answer that nobody waits for")),
                    };
                    if !by_driver {
                        rest = &rest[length..];
                        continue;
                    }
                }
                b'T' | b'n' if self.describing.is_some() => {
                    let Some(message) = rest.get(..length) else { break };
                    let Some((statement, by_driver, mut description)) = self.describing.take() else { break };
                    description.extend_from_slice(message);
                    if **statement.description.get_or_init(|| description.clone().into()) != description[..] {
                        // The driver would read the new rows by the old columns, and has no way to hear of the new ones.
                        return Err(malformed("a statement whose columns have changed since it was prepared"));
                    }
                    if !by_driver {
                        rest = &rest[length..];
                        continue;
                    }
                }
                b'Z' => self.ready()?,
                _ => {}
            }
            self.of_answer = length;
        }
        Ok(input.len() - rest.len())
    }

    /// Remembers a statement and sends it on without its name.
    fn parse(&mut self, body: &[u8], output: &mut Vec<u8>) -> io::Result<()> {
        let name = name(body)?;
        let rest = &body[name.len()..];
        let mut parse = Vec::with_capacity(HEADER + rest.len());
        parse.push(b'P');
        parse.extend_from_slice(&length_to_send(HEADER + rest.len())?);
        parse.extend_from_slice(rest);
        output.extend_from_slice(&parse);
        let statement = Arc::new(Statement { name: name.into(), parse: parse.into(), description: OnceLock::new() });
        self.prepared.insert(name.into(), statement.clone());
        self.unnamed = Some(statement.clone());
        self.expected.push_back(Expected::Parsed { statement, by_driver: true });
        Ok(())
    }

    /// Sees to it that the unnamed statement is the one that the driver calls so.
    fn prepare(&mut self, name: &[u8], output: &mut Vec<u8>) -> io::Result<Arc<Statement>> {
        // Passed on, a name could be that of somebody else's statement.
        let statement = self.prepared.get(name).ok_or_else(|| malformed("a statement that was not prepared"))?.clone();
        if self.unnamed.as_ref().is_none_or(|unnamed| !Arc::ptr_eq(unnamed, &statement)) {
            output.extend_from_slice(&statement.parse);
            output.extend_from_slice(DESCRIBE);
            self.expected.push_back(Expected::Parsed { statement: statement.clone(), by_driver: false });
            self.expected.push_back(Expected::Described { statement: statement.clone(), by_driver: false });
            self.unnamed = Some(statement.clone());
        }
        Ok(statement)
    }

    /// A batch has ended; what has not been answered by now is behind an error in it.
    fn ready(&mut self) -> io::Result<()> {
        self.describing = None;
        self.asked = false;
        loop {
            match self.expected.pop_front() {
                Some(Expected::Ready) => return Ok(()),
                // The driver forgets what it could not prepare, and does not close it.
                Some(Expected::Parsed { statement, by_driver: true }) => {
                    if self.prepared.get(&statement.name).is_some_and(|now| Arc::ptr_eq(now, &statement)) {
                        self.prepared.remove(&statement.name);
                    }
                }
                Some(_) => {}
                None => return Err(malformed("the end of a batch that nobody sent")),
            }
        }
    }
}

/// Of the unnamed statement.
const DESCRIBE: &[u8] = b"D\0\0\0\x06S\0";
const CLOSE: &[u8] = b"C\0\0\0\x06S\0";

/// Moves as much of the message on its way as there is.
fn pass(rest: &mut &[u8], left: &mut usize, output: &mut Vec<u8>) {
    let (now, later) = rest.split_at((*left).min(rest.len()));
    output.extend_from_slice(now);
    *left -= now.len();
    *rest = later;
}

/// The kind and the whole length of the next message, as soon as there is enough of it.
fn header(rest: &[u8]) -> io::Result<Option<(u8, usize)>> {
    let Some([kind, length @ ..]) = rest.first_chunk::<HEADER>() else { return Ok(None) };
    Ok(Some((*kind, 1 + length_of(*length)?)))
}

fn length_of(bytes: [u8; 4]) -> io::Result<usize> {
    let length = u32::from_be_bytes(bytes);
    // The server takes no more than that, either.
    if (4..1 << 30).contains(&length) { Ok(length as usize) } else { Err(malformed("a message of no length")) }
}

/// Of a message with its kind.
fn length_to_send(whole: usize) -> io::Result<[u8; 4]> {
    u32::try_from(whole - 1).map(u32::to_be_bytes).map_err(|_| malformed("a message of no length"))
}

fn name(body: &[u8]) -> io::Result<&[u8]> {
    nul(body, 0).map(|end| &body[..end - 1]).ok_or_else(|| malformed("a name without an end"))
}

/// Where what begins at `from` goes on behind the next NUL.
fn nul(bytes: &[u8], from: usize) -> Option<usize> {
    bytes[from..].iter().position(|byte| *byte == 0).map(|at| from + at + 1)
}

fn malformed(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u8, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len() + 4).expect("short").to_be_bytes();
        [&[kind], &length[..], body].concat()
    }

    fn startup() -> Vec<u8> {
        b"\0\0\0\x08\0\x03\0\0".to_vec()
    }

    /// What the driver says to prepare two statements and use them, in turn.
    fn session() -> Vec<u8> {
        let mut said = startup();
        for name in ["one", "two"] {
            said.extend(message(b'P', format!("{name}\0SELECT '{name}'\0\0\0").as_bytes()));
            said.extend(message(b'D', format!("S{name}\0").as_bytes()));
            said.extend(message(b'S', b""));
        }
        for name in ["one", "two", "one"] {
            said.extend(message(b'B', &[b"\0", name.as_bytes(), b"\0", &[7; 300]].concat()));
            said.extend(message(b'E', b"\0\0\0\0\0"));
            said.extend(message(b'C', b"P\0"));
            said.extend(message(b'S', b""));
        }
        said.extend(message(b'Q', b"SELECT 1\0"));
        said.extend(message(b'C', b"Sone\0"));
        said.extend(message(b'S', b""));
        said
    }

    fn kinds(mut messages: &[u8]) -> String {
        let mut kinds = String::new();
        while let Some((kind, length)) = header(messages).expect("a message") {
            kinds.push(char::from(kind));
            messages = &messages[length..];
        }
        kinds
    }

    /// What a server says to what is expected.
    fn good_answers(statements: &Statements) -> Vec<u8> {
        let answer = |expected: &Expected| match expected {
            Expected::Parsed { .. } => message(b'1', b""),
            Expected::Described { .. } => [message(b't', b"\0\0"), message(b'T', b"\0\0")].concat(),
            Expected::Ready => message(b'Z', b"I"),
        };
        statements.expected.iter().flat_map(answer).collect()
    }

    /// As it comes out when it goes in by pieces of these lengths, and each batch is answered.
    fn by_pieces(said: &[u8], mut length: impl FnMut() -> usize) -> Vec<u8> {
        let mut statements = Statements::default();
        let (mut input, mut output, mut rest) = (Vec::new(), Vec::new(), said);
        while !rest.is_empty() || !input.is_empty() {
            if !rest.is_empty() {
                let (piece, later) = rest.split_at(length().clamp(1, rest.len()));
                input.extend_from_slice(piece);
                rest = later;
            }
            let done = statements.requests(&input, &mut output).expect("fine messages");
            input.drain(..done);
            if !statements.is_free() {
                let answers = good_answers(&statements);
                let done = statements.answers(&answers, &mut Vec::new()).expect("fine answers");
                assert_eq!(done, answers.len());
            }
        }
        output
    }

    #[test]
    fn every_use_brings_its_statement_along_and_no_name() {
        let sent = by_pieces(&session(), || usize::MAX);
        let (first, rest) = sent.split_at(8);
        assert_eq!(first, startup());
        assert_eq!(kinds(rest), ["PDS", "PDS", "PDBECS", "PDBECS", "PDBECS", "Q", "CS"].concat());
        assert!(!rest.windows(5).any(|window| window == b"one\0S" || window == b"\0one\0"), "no name");
    }

    #[test]
    fn it_does_not_matter_how_the_bytes_come() {
        let whole = by_pieces(&session(), || usize::MAX);
        for n in 1..40 {
            assert_eq!(by_pieces(&session(), || n), whole, "by {n}");
        }
    }

    #[test]
    fn the_answers_to_what_the_driver_did_not_ask_go_no_further() {
        let mut statements = Statements::default();
        let row = message(b'T', b"\0\0");
        let described = [message(b'1', b""), message(b't', b"\0\0"), row.clone()].concat();
        let ready = message(b'Z', b"I");
        let used =
            [message(b'2', b""), message(b'D', b"\0\0"), message(b'C', b"SELECT 1\0"), message(b'3', b"")].concat();
        let error = message(b'E', b"\0");
        let answers = [
            [message(b'R', b"\0\0\0\0"), ready.clone()].concat(),
            [&described[..], &ready].concat(),
            [&described[..], &ready].concat(),
            [&described[..], &used, &ready].concat(),
            [&error[..], &ready].concat(),
            [&described[..], &error, &ready].concat(),
            // The columns of a simple query are the driver's.
            [&row[..], &message(b'C', b"\0"), &ready].concat(),
            [message(b'3', b""), ready.clone()].concat(),
            // It cannot be prepared.
            [&error[..], &ready].concat(),
        ];
        let (mut input, mut seen) = (session(), Vec::new());
        input.extend(message(b'P', b"three\0SELECT\0\0\0"));
        input.extend(message(b'S', b""));
        for said in answers {
            let done = statements.requests(&input, &mut Vec::new()).expect("fine messages");
            input.drain(..done);
            assert!(!statements.is_free());
            assert_eq!(statements.requests(&input, &mut Vec::new()).expect("fine messages"), 0, "one batch at a time");
            assert_eq!(statements.answers(&said, &mut seen).expect("fine answers"), said.len());
            assert!(statements.is_free());
        }
        assert!(input.is_empty());
        assert_eq!(kinds(&seen), ["RZ", "1tTZ", "1tTZ", "2DC3Z", "EZ", "EZ", "TCZ", "3Z", "EZ"].concat());
        assert!(statements.expected.is_empty());
        let known: Vec<_> = statements.prepared.keys().map(|name| &**name).collect();
        assert_eq!(known, [b"two"], "one was closed, and three was never there");
    }

    #[test]
    fn a_copy_goes_on_and_what_comes_after_it_waits_for_its_end() {
        let mut statements = Statements { started: true, ..Statements::default() };
        let copy = [message(b'Q', b"COPY\0"), message(b'd', b"1\n"), message(b'f', b"dropped\0")].concat();
        let input = [&copy[..], &message(b'Q', b"SELECT 1\0")].concat();
        let mut sent = Vec::new();
        assert_eq!(statements.requests(&input, &mut sent).expect("fine messages"), copy.len());
        assert_eq!(kinds(&sent), "Qdf");
        let end = [message(b'G', b"\0\0\0"), message(b'E', b"\0"), message(b'Z', b"I")].concat();
        statements.answers(&end, &mut Vec::new()).expect("fine answers");
        assert_eq!(
            statements.requests(&input[copy.len()..], &mut sent).expect("fine messages"),
            input.len() - copy.len()
        );
        assert_eq!(kinds(&sent), "QdfQ");
    }

    #[test]
    fn nothing_malformed_panics_or_grows() {
        let mut seed = 1_u64;
        let mut random = || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            usize::try_from(seed >> 40).expect("24 bits")
        };
        let fine = session();
        let mut refused = 0;
        for _ in 0..20_000 {
            let mut broken = fine.clone();
            for _ in 0..=random() % 3 {
                let at = random() % broken.len();
                broken[at] = u8::try_from(random() % 256).expect("a byte");
            }
            let mut statements = Statements::default();
            let mut output = Vec::new();
            let mut rest = &broken[..];
            loop {
                let Ok(done) = statements.requests(rest, &mut output) else {
                    refused += 1;
                    break;
                };
                rest = &rest[done..];
                if statements.is_free() || done == 0 {
                    break;
                }
                statements.answers(&good_answers(&statements), &mut Vec::new()).expect("fine answers");
            }
            assert!(output.len() < 8 * fine.len());
            refused += usize::from(statements.answers(&broken[8..], &mut output).is_err());
        }
        assert!(refused > 1_000, "{refused}");
        for long in [[b'B', 0x3f, 0, 0, 0], [b'1', 0, 0, 0, 3], [b'Z', 0xff, 0, 0, 0]] {
            let mut statements = Statements { started: true, ..Statements::default() };
            let input = [&long[..], &[1; 5_000]].concat();
            let refused = if long[0] == b'B' {
                statements.requests(&input, &mut Vec::new())
            } else {
                statements.answers(&input, &mut Vec::new())
            };
            assert!(refused.is_err(), "{long:?}");
        }
    }
}
