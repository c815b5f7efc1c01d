//! What people see: the only place that writes to stdout and stderr, besides the log.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "this is where the program speaks to people")]

use std::error::Error;
use std::io::Write;
use std::process::ExitCode;

use qrcode::QrCode;
use qrcode::render::unicode::Dense1x2;

/// A line on stdout, at once, even into a pipe.
pub(crate) fn say(line: &str) {
    println!("{line}");
    let _ = std::io::stdout().flush();
}

/// A line on stderr.
pub(crate) fn warn(line: &str) {
    eprintln!("{line}");
}

/// Shows a failure with everything that caused it.
pub(crate) fn fail(error: &(dyn Error + 'static)) -> ExitCode {
    let mut text = format!("error: {error}");
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!("\n  because: {error}"));
        cause = error.source();
    }
    eprintln!("{text}");
    ExitCode::FAILURE
}

/// A QR code drawn with half blocks, with the quiet zone that scanners need.
pub(crate) fn draw_qr(text: &str) -> Result<String, qrcode::types::QrError> {
    let code = QrCode::new(text)?;
    Ok(code.render::<Dense1x2>().dark_color(Dense1x2::Light).light_color(Dense1x2::Dark).quiet_zone(true).build())
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn a_qr_code_is_as_wide_in_every_line() {
        let drawn = draw_qr("2@simulated").unwrap();
        let widths: Vec<_> = drawn.lines().map(|line| line.chars().count()).collect();
        assert!(widths.len() > 10 && widths.iter().all(|width| *width == widths[0]), "{drawn}");
    }
}
