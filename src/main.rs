//! The `coderdb` binary.
use std::{env, process::ExitCode, thread};

use coderdb::postgres::{self, Server, Settings, Stopped};

fn main() -> ExitCode {
    let mut args = env::args_os().skip(2);
    let command = args.next().unwrap_or_default();
    let run = || -> Result<(), Box<dyn std::error::Error>> {
        let settings =
            if env::var_os("CODERDB_THROW_AWAY").is_some() { Settings::throw_away() } else { Settings::development()? };
        let open = || Server::open(&settings, |notice| eprintln!("{notice}"));
        match command.to_str().unwrap_or_default() {
            "url" => println!("{}", open()?.url(postgres::DATABASE)),
            "run" => {
                let server = open()?;
                println!("{}", server.url(postgres::DATABASE));
                loop {
                    thread::park();
                }
            }
            "psql" => {
                let server = open()?;
                let mut psql = server.psql_command(postgres::DATABASE)?;
                if !psql.args(env::args_os().skip(3)).status()?.success() {
                    return Err("psql failed".into());
                }
            }
            "status" => println!("{:#?}", postgres::status(&settings)?),
            "stop" => match postgres::stop(&settings, env::args().any(|arg| arg == "--force"))? {
                Stopped::Stopped => println!("stopped"),
                Stopped::NotRunning => println!("not running"),
            },
            _ => return Err("usage: coderdb postgres url|status|stop|run|psql".into()),
        }
        Ok(())
    };
    if command == "supervise" {
        return postgres::supervise(args);
    }
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
