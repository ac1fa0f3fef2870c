//! The `coderdb` binary: see `coderdb --help`.

fn main() -> std::process::ExitCode {
    coderdb::cli::main()
}
