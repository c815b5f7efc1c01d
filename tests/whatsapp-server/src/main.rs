//! The server as a program of its own: `portcullis-whatsapp-server [--listen 127.0.0.1:PORT] [--control 127.0.0.1:PORT]
//! [--certificate good|bad] [--unknown exist|absent] [--addressing number|lid]`.
//!
//! When it is ready it prints one line, `{"url": "...", "control": "..."}`, and serves until it is killed.

use std::io::Write;
use std::net::SocketAddr;
use std::process::ExitCode;

use portcullis_whatsapp_server::{Addressing, Certificate, Server, ServerConfig, UnknownNumbers};

/// What the program is started with.
struct Arguments {
    config: ServerConfig,
    control: SocketAddr,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(complaint) => {
            let _ = writeln!(std::io::stderr(), "{complaint}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), String> {
    let Arguments { config, control } = arguments(std::env::args().skip(1))?;
    let server = Server::start(config).await.map_err(|error| error.to_string())?;
    let control = server.control(control).await.map_err(|error| error.to_string())?;
    let line = serde_json::json!({ "url": server.url(), "control": control });
    let mut out = std::io::stdout();
    writeln!(out, "{line}").and_then(|()| out.flush()).map_err(|error| error.to_string())?;
    std::future::pending::<()>().await;
    Ok(())
}

fn arguments(mut given: impl Iterator<Item = String>) -> Result<Arguments, String> {
    let mut config = ServerConfig::default();
    let mut control = SocketAddr::from(([127, 0, 0, 1], 0));
    while let Some(name) = given.next() {
        let value = given.next().ok_or_else(|| format!("{name} needs a value"))?;
        let wrong = || format!("{name} does not take {value}");
        match name.as_str() {
            "--listen" => config.listen = value.parse().map_err(|_| wrong())?,
            "--control" => control = value.parse().map_err(|_| wrong())?,
            "--certificate" => {
                config.certificate = match value.as_str() {
                    "good" => Certificate::Good,
                    "bad" => Certificate::Bad,
                    _ => return Err(wrong()),
                }
            }
            "--unknown" => {
                config.unknown_numbers = match value.as_str() {
                    "exist" => UnknownNumbers::Exist,
                    "absent" => UnknownNumbers::Absent,
                    _ => return Err(wrong()),
                }
            }
            "--addressing" => {
                config.addressing = match value.as_str() {
                    "number" => Addressing::Number,
                    "lid" => Addressing::Lid,
                    _ => return Err(wrong()),
                }
            }
            _ => return Err(format!("{name} is not known")),
        }
    }
    Ok(Arguments { config, control })
}
