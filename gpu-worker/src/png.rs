//! Screenshots as PNG files.

use crate::render::Picture;

/// Why a picture could not be encoded.
#[derive(Debug, thiserror::Error)]
#[error("Cannot encode a picture of {width}x{height} pixels")]
pub struct EncodeError {
    /// Width in pixels.
    pub width: u32,
    /// Height in lines.
    pub height: u32,
    /// The encoder's answer.
    source: png::EncodingError,
}

/// The picture as a PNG file of three bytes per pixel. Equal pictures give equal files.
///
/// # Errors
/// [`EncodeError`] when the encoder refuses, which a picture that could be drawn gives it no reason to.
pub fn encode(picture: &Picture) -> Result<Vec<u8>, EncodeError> {
    let layout = picture.layout();
    let (width, height) = (layout.width, layout.height);
    let failed = |source| EncodeError {
        width,
        height,
        source,
    };
    let rgb: Vec<u8> = picture
        .pixels()
        .as_chunks::<4>()
        .0
        .iter()
        .flat_map(|&[r, g, b, _]| [r, g, b])
        .collect();
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, width, height);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    // The default takes seconds for the largest picture of noise, and a worker that long without a beat counts as hung.
    encoder.set_compression(png::Compression::Fast);
    let mut writer = encoder.write_header().map_err(failed)?;
    writer.write_image_data(&rgb).map_err(failed)?;
    writer.finish().map_err(failed)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_comes_back_from_its_png() {
        let picture = Picture::black(33, 7).expect("a possible size");
        let file = encode(&picture).expect("encodes");
        let mut reader = png::Decoder::new(std::io::Cursor::new(&file))
            .read_info()
            .expect("a PNG");
        let mut pixels = vec![1; reader.output_buffer_size().expect("a size")];
        let info = reader.next_frame(&mut pixels).expect("a frame");
        assert_eq!((info.width, info.height), (33, 7));
        assert_eq!(pixels, vec![0; 33 * 7 * 3]);
    }
}
