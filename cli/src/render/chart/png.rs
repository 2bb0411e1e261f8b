//! A picture as PNG, with letters of its own: a server has no fonts.

use std::convert::Infallible;

use embedded_graphics::{
    Drawable as _, Pixel,
    draw_target::DrawTarget,
    geometry::{OriginDimensions, Point, Size},
    mono_font::{MonoTextStyle, iso_8859_1::FONT_8X13},
    pixelcolor::{Rgb888, RgbColor as _},
    primitives::{Polyline, Primitive as _, PrimitiveStyle},
    text::{Alignment, Text},
};
use thiserror::Error;

use super::{Anchor, Chart, Color, Picture, Shape, TEXT};

/// A picture that could not be encoded.
#[derive(Debug, Error)]
#[error("failed to encode the picture")]
pub(crate) struct PngError(#[from] png::EncodingError);

/// The chart as the bytes of a file; `show` says what a value is in its unit.
pub(crate) fn png(chart: &Chart<'_>, show: &dyn Fn(f64) -> String) -> Result<Vec<u8>, PngError> {
    let Picture { width, height, shapes } = chart.picture(show);
    let mut pixels = Pixels::white(width as u32, height as u32);
    for shape in &shapes {
        let Ok(()) = pixels.draw(shape);
    }
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, pixels.width, pixels.height);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.write_header()?.write_image_data(&pixels.bytes)?;
    Ok(bytes)
}

/// Three bytes a pixel, line by line.
struct Pixels {
    width: u32,
    height: u32,
    bytes: Vec<u8>,
}

impl Pixels {
    fn white(width: u32, height: u32) -> Self {
        Self { width, height, bytes: vec![0xFF; width as usize * height as usize * 3] }
    }

    fn draw(&mut self, shape: &Shape) -> Result<(), Infallible> {
        match shape {
            Shape::Line { points, color, width } => {
                let points: Vec<Point> = points.iter().map(|&place| point(place)).collect();
                let style = PrimitiveStyle::with_stroke(rgb(*color), *width as u32);
                Polyline::new(&points).into_styled(style).draw(self)
            }
            Shape::Text { x, y, text, anchor } => {
                let alignment = match anchor {
                    Anchor::Start => Alignment::Left,
                    Anchor::Middle => Alignment::Center,
                    Anchor::End => Alignment::Right,
                };
                // What the letters do not have stands as one that they have.
                let text: String = text.chars().map(|c| if c == '…' { '.' } else { c }).collect();
                let style = MonoTextStyle::new(&FONT_8X13, rgb(TEXT));
                Text::with_alignment(&text, point((*x, *y)), style, alignment).draw(self).map(|_| ())
            }
        }
    }
}

impl OriginDimensions for Pixels {
    fn size(&self) -> Size {
        Size::new(self.width, self.height)
    }
}

impl DrawTarget for Pixels {
    type Color = Rgb888;
    type Error = Infallible;

    fn draw_iter<I: IntoIterator<Item = Pixel<Rgb888>>>(&mut self, pixels: I) -> Result<(), Infallible> {
        for Pixel(Point { x, y }, color) in pixels {
            let (Ok(x), Ok(y)) = (u32::try_from(x), u32::try_from(y)) else { continue };
            if x >= self.width {
                continue;
            }
            let at = (y as usize * self.width as usize + x as usize) * 3;
            if let Some(place) = self.bytes.get_mut(at..at + 3) {
                place.copy_from_slice(&[color.r(), color.g(), color.b()]);
            }
        }
        Ok(())
    }
}

fn point((x, y): (f32, f32)) -> Point {
    Point::new(x.round() as i32, y.round() as i32)
}

fn rgb(Color(red, green, blue): Color) -> Rgb888 {
    Rgb888::new(red, green, blue)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_has_its_curve_in_it() {
        let curves = vec![("°C ✓".to_owned(), vec![(0, 1.0), (10, 2.0)])];
        let chart = Chart { heading: "up", curves, from_ms: 0, until_ms: 10, gap_ms: 10 };
        let bytes = png(&chart, &|value| value.to_string()).unwrap();
        let mut reader = png::Decoder::new(std::io::Cursor::new(&bytes)).read_info().unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        reader.next_frame(&mut pixels).unwrap();
        let count = |color: [u8; 3]| pixels.chunks(3).filter(|pixel| **pixel == color).count();
        assert!(count([31, 119, 180]) > 1_000, "the curve");
        assert!(count([40, 40, 40]) > 100, "the letters");
    }
}
