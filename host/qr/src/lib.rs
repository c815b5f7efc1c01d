//! Pictures of a QR code, for whoever asks for one and for receivers of webhooks that expect one.
//!
//! The text of a code comes from the engine and is a credential while it lives; so is a picture of it, and no cache may keep one.
//! Pictures are made to be scanned from a screen: the lowest error correction, because a screen has no scratches and fewer modules
//! are larger ones, and a white quiet zone, because the page around them may be dark.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use qrcode::types::QrError as MatrixError;
use qrcode::{Color, EcLevel, QrCode};

/// How many modules of white a scanner needs on every side.
const QUIET_ZONE: usize = 4;
/// How wide a PNG should come out, in pixels. It is the nearest multiple of its modules.
const PNG_WIDTH: usize = 350;

/// Why there is no picture.
#[derive(Debug, thiserror::Error)]
pub enum QrError {
    /// No QR code holds so much.
    #[error("a text of {bytes} bytes does not fit into a QR code")]
    TooLong {
        /// The length of the text.
        bytes: usize,
    },
    /// The modules were not laid out.
    #[error("the modules of the QR code could not be laid out")]
    Layout(#[source] MatrixError),
    /// The picture was not written.
    #[error("the QR code could not be written as a PNG")]
    Png(#[source] png::EncodingError),
}

/// A PNG of one bit per pixel, about 350 wide.
///
/// # Errors
/// If no QR code holds so long a text.
pub fn png(text: &str) -> Result<Vec<u8>, QrError> {
    let matrix = Matrix::of(text)?;
    // The largest code is 185 modules wide with its quiet zone, so the scale is never zero.
    let scale = (PNG_WIDTH + matrix.size / 2) / matrix.size;
    let width = matrix.size * scale;
    let mut pixels = Vec::with_capacity(width * width.div_ceil(8));
    for y in 0..matrix.size {
        let mut row = vec![0xFF_u8; width.div_ceil(8)];
        for x in (0..width).filter(|x| matrix.is_dark(x / scale, y)) {
            row[x / 8] &= !(0x80 >> (x % 8));
        }
        for _ in 0..scale {
            pixels.extend_from_slice(&row);
        }
    }

    let mut picture = Vec::new();
    let side = u32::try_from(width).unwrap_or(u32::MAX);
    let mut encoder = png::Encoder::new(&mut picture, side, side);
    encoder.set_color(png::ColorType::Grayscale);
    encoder.set_depth(png::BitDepth::One);
    let mut writer = encoder.write_header().map_err(QrError::Png)?;
    writer.write_image_data(&pixels).map_err(QrError::Png)?;
    writer.finish().map_err(QrError::Png)?;
    Ok(picture)
}

/// The PNG as a `data:` URL.
///
/// # Errors
/// If no QR code holds so long a text.
pub fn data_url(text: &str) -> Result<String, QrError> {
    Ok(format!("data:image/png;base64,{}", STANDARD.encode(png(text)?)))
}

/// An SVG of one unit per module: a white ground, and one path with a rectangle for each run of dark modules.
///
/// # Errors
/// If no QR code holds so long a text.
pub fn svg(text: &str) -> Result<String, QrError> {
    let matrix = Matrix::of(text)?;
    let mut path = String::new();
    for y in 0..matrix.size {
        let mut x = 0;
        while x < matrix.size {
            let run = (x..matrix.size).take_while(|x| matrix.is_dark(*x, y)).count();
            if run > 0 {
                path.push_str(&format!("M{x} {y}h{run}v1h-{run}z"));
            }
            x += run + 1;
        }
    }
    let size = matrix.size;
    Ok(format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {size} {size}\" shape-rendering=\"crispEdges\">\
         <path fill=\"#fff\" d=\"M0 0h{size}v{size}h-{size}z\"/><path d=\"{path}\"/></svg>"
    ))
}

/// The modules of a code with its quiet zone.
struct Matrix {
    code: QrCode,
    /// Modules on a side, with the quiet zone.
    size: usize,
}

impl Matrix {
    fn of(text: &str) -> Result<Self, QrError> {
        let code = QrCode::with_error_correction_level(text, EcLevel::L).map_err(|error| match error {
            MatrixError::DataTooLong => QrError::TooLong { bytes: text.len() },
            error => QrError::Layout(error),
        })?;
        let size = code.width() + 2 * QUIET_ZONE;
        Ok(Self { code, size })
    }

    fn is_dark(&self, x: usize, y: usize) -> bool {
        let inside = QUIET_ZONE..self.size - QUIET_ZONE;
        inside.contains(&x) && inside.contains(&y) && self.code[(x - QUIET_ZONE, y - QUIET_ZONE)] == Color::Dark
    }
}

#[cfg(test)]
mod test {
    use std::io::Cursor;

    use super::*;

    /// As long as WhatsApp's: a reference and three keys.
    fn whatsapps() -> String {
        format!("2@{},{},{},{}", "r".repeat(88), "a".repeat(44), "b".repeat(44), "c".repeat(44))
    }

    fn longest() -> String {
        "x".repeat(2953)
    }

    /// What a scanner reads from a picture of black and white.
    fn scan(width: usize, is_dark: impl Fn(usize, usize) -> bool) -> String {
        let grey = |x, y| if is_dark(x, y) { 0 } else { 255 };
        let mut picture = rqrr::PreparedImage::prepare_from_greyscale(width, width, grey);
        let grids = picture.detect_grids();
        assert_eq!(grids.len(), 1, "a scanner sees {} codes", grids.len());
        grids[0].decode().unwrap().1
    }

    /// The side of a PNG and whether each of its pixels is dark.
    fn pixels(picture: &[u8]) -> (usize, Vec<bool>) {
        let mut decoder = png::Decoder::new(Cursor::new(picture));
        decoder.set_transformations(png::Transformations::EXPAND);
        let mut reader = decoder.read_info().unwrap();
        let mut grey = vec![0; reader.output_buffer_size().unwrap()];
        let info = reader.next_frame(&mut grey).unwrap();
        assert_eq!((info.width, info.color_type), (info.height, png::ColorType::Grayscale));
        (info.width as usize, grey.into_iter().map(|grey| grey < 128).collect())
    }

    /// The runs of dark modules in the second path of an SVG: where each begins, and how long it is.
    fn runs(svg: &str) -> Vec<(usize, usize, usize)> {
        let path = svg.rsplit_once("d=\"").unwrap().1.split_once('"').unwrap().0;
        let run = |run: &str| {
            let (x, rest) = run.split_once(' ').unwrap();
            let (y, rest) = rest.split_once('h').unwrap();
            let (long, back) = rest.split_once("v1h-").unwrap();
            assert_eq!(back.strip_suffix('z'), Some(long));
            [x, y, long].map(|number| number.parse().unwrap()).into()
        };
        path.split('M').skip(1).map(run).collect()
    }

    #[test]
    fn a_png_scans_and_is_of_a_handy_size() {
        for text in ["x".to_owned(), "2@simulated".to_owned(), whatsapps(), longest()] {
            let picture = png(&text).unwrap();
            let (width, dark) = pixels(&picture);
            assert_eq!(scan(width, |x, y| dark[y * width + x]), text);
            assert!((280..=420).contains(&width), "{} bytes are {width} pixels wide", text.len());
            assert!(picture.len() < 20_000, "{} bytes make a PNG of {}", text.len(), picture.len());
        }
    }

    #[test]
    fn a_png_has_the_quiet_zone_that_scanners_need() {
        let (width, dark) = pixels(&png("2@simulated").unwrap());
        let matrix = Matrix::of("2@simulated").unwrap();
        let zone = width / matrix.size * QUIET_ZONE;
        let first = |x: usize, y: usize| dark[y * width + x];
        assert!(first(zone, zone), "the corner of the finder pattern is dark");
        assert!((0..width).all(|x| (0..zone).all(|y| !first(x, y) && !first(y, x))));
    }

    #[test]
    fn an_svg_has_every_dark_module_and_no_other() {
        for text in ["x".to_owned(), whatsapps(), longest()] {
            let (svg, matrix) = (svg(&text).unwrap(), Matrix::of(&text).unwrap());
            let size = matrix.size;
            assert!(svg.contains(&format!("viewBox=\"0 0 {size} {size}\"")));
            let mut drawn = vec![false; size * size];
            let runs = runs(&svg);
            for (x, y, long) in &runs {
                drawn[y * size + x..y * size + x + long].fill(true);
            }
            let modules = matrix.code.to_colors().into_iter().filter(|color| *color == Color::Dark).count();
            assert_eq!(runs.iter().map(|(_, _, long)| long).sum::<usize>(), modules);
            assert!((0..size * size).all(|at| drawn[at] == matrix.is_dark(at % size, at / size)));
            assert_eq!(scan(size * 4, |x, y| drawn[y / 4 * size + x / 4]), text);
        }
    }

    #[test]
    fn an_svg_is_white_where_it_is_not_dark_whatever_is_behind_it() {
        let svg = svg("2@simulated").unwrap();
        assert!(svg.contains("<path fill=\"#fff\" d=\"M0 0h29v29h-29z\"/>"), "{svg}");
        assert!(svg.contains("shape-rendering=\"crispEdges\""));
    }

    #[test]
    fn a_data_url_holds_the_png() {
        let url = data_url("2@simulated").unwrap();
        let encoded = url.strip_prefix("data:image/png;base64,").unwrap();
        assert_eq!(STANDARD.decode(encoded).unwrap(), png("2@simulated").unwrap());
    }

    #[test]
    fn a_text_that_no_code_holds_is_refused() {
        let text = "x".repeat(longest().len() + 1);
        for refused in [png(&text).map(drop), svg(&text).map(drop), data_url(&text).map(drop)] {
            assert!(matches!(refused, Err(QrError::TooLong { bytes: 2954 })), "{refused:?}");
        }
    }
}
