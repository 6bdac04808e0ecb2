//! The binary: arguments in, exit code out.

use std::process::ExitCode;

use clap::Parser as _;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match portcullis::cli::Cli::try_parse() {
        Ok(cli) => portcullis::cli::main(cli),
        Err(error) => portcullis::cli::unparsed(&error),
    }
}
