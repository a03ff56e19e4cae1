//! Parses, sets up logging on standard error, dispatches, and leaves with the exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    sandbox_mcp::cli::main()
}
