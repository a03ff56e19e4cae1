//! `sandbox-mcp serve`: MCP on standard input and output, or over HTTP.

use std::net::SocketAddr;

use clap::Args;

use super::{block_on, complain};
use crate::config::{Config, LoadOptions};
use crate::mcp::{Listen, serve_http, serve_stdio};
use crate::runner::Runner;
use crate::stderr;

#[derive(Debug, Default, Args)]
pub struct ServeArgs {
    /// Serve over HTTP at this address, such as 127.0.0.1:8443; port 0 is any free one. Clients
    /// need the token that `sandbox-mcp token` prints
    #[arg(long, value_name = "ADDR:PORT")]
    http: Option<SocketAddr>,
    /// Listen on an address that other machines can reach
    #[arg(long, requires = "http")]
    allow_remote: bool,
}

pub fn run(
    config: Config,
    options: LoadOptions,
    args: &ServeArgs,
    quiet: bool,
) -> anyhow::Result<u8> {
    // A host may never read it, and has closed it perhaps; what breaks down is for the log too.
    stderr::detach();
    std::panic::set_hook(Box::new(|panic| tracing::error!("{panic}")));
    let runner = Runner::new(config, options)?.detached();
    match args.http {
        Some(address) => {
            let listen = Listen { address, allow_remote: args.allow_remote };
            let ready = |address| {
                if !quiet {
                    complain(&format!("serving MCP at http://{address}/mcp"));
                }
            };
            block_on(serve_http(runner, listen, ready))?;
        }
        None => block_on(async {
            runner.look_around();
            serve_stdio(runner).await
        })?,
    }
    Ok(0)
}
