//! Pixels on their way into the window: by the GPU through `pixels`, or without one through `softbuffer`.

use std::num::NonZeroU32;
use std::sync::Arc;

use pixels::wgpu;
use pixels::{Pixels, PixelsBuilder, SurfaceTexture};
use quintet_protocol::framebuffer::Rect;
use winit::event_loop::OwnedDisplayHandle;
use winit::window::Window;

use super::scale::{Dot, Scaler};

/// What is to be shown.
#[derive(Debug)]
pub struct Frame<'a> {
    /// All dots of the picture, line by line.
    pub dots: &'a [Dot],
    /// How they become pixels.
    pub scaler: &'a Scaler,
    /// Rectangles of the window that differ from the frame before.
    pub changed: &'a [Rect],
    /// What is drawn over the picture: pixels line by line and where they go.
    pub overlay: Option<(&'a [Dot], Rect)>,
}

/// Why nothing can be shown.
#[derive(Debug, thiserror::Error)]
pub enum PresentError {
    /// Nothing to draw with.
    #[error("No window surface: {0}")]
    Software(#[from] softbuffer::SoftBufferError),
    /// The GPU, or its driver.
    #[error("The GPU does not draw: {0}")]
    Gpu(String),
}

/// A window's surface.
pub enum Presenter {
    /// Drawn by the GPU.
    Gpu(Box<Gpu>),
    /// Written by the processor.
    Software(Software),
}

impl std::fmt::Debug for Presenter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl Presenter {
    /// A surface of `window`; by the GPU if `gpu` allows it and there is one that is not a processor itself.
    ///
    /// # Errors
    /// [`PresentError`] when there is no surface at all.
    pub fn new(
        display: OwnedDisplayHandle,
        window: &Arc<Window>,
        gpu: GpuChoice,
    ) -> Result<Self, PresentError> {
        if gpu != GpuChoice::Never {
            match Gpu::new(window, gpu == GpuChoice::Any) {
                Ok(gpu) => return Ok(Self::Gpu(Box::new(gpu))),
                Err(error) => tracing::info!("{error}; drawing without it"),
            }
        }
        Ok(Self::Software(Software::new(display, window)?))
    }

    /// What draws, for people.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Gpu(_) => "GPU",
            Self::Software(_) => "software",
        }
    }

    /// Shows a frame in a window of `size` pixels; with `all`, nothing of the frame before is taken to be there.
    ///
    /// # Errors
    /// [`PresentError`].
    pub fn show(&mut self, size: (u32, u32), frame: &Frame<'_>, all: bool) -> Result<(), PresentError> {
        match self {
            Self::Gpu(gpu) => gpu.show(size, frame, all),
            Self::Software(software) => software.show(size, frame, all),
        }
    }
}

/// Whether to draw by the GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GpuChoice {
    /// Not even if there is one.
    Never,
    /// If there is one.
    Real,
    /// Even if it is a processor in disguise: for tests of that path.
    Any,
}

/// Writes a frame's pixels.
fn draw<P: Copy>(
    frame: &Frame<'_>,
    size: (u32, u32),
    all: bool,
    into: &mut [P],
    pixel: impl Fn(Dot) -> P + Copy,
) {
    let whole = Rect {
        x: 0,
        y: 0,
        width: size.0,
        height: size.1,
    };
    if all {
        into.fill(pixel([0, 0, 0, 255]));
        frame.scaler.draw(frame.dots, whole, into, pixel);
    } else {
        for area in frame.changed {
            frame.scaler.draw(frame.dots, *area, into, pixel);
        }
    }
    let Some((dots, at)) = frame.overlay else { return };
    for (row, line) in dots.chunks_exact(at.width as usize).enumerate() {
        let y = at.y as usize + row;
        let width = at.width.min(size.0.saturating_sub(at.x)) as usize;
        if y >= size.1 as usize {
            break;
        }
        let to = &mut into[y * size.0 as usize + at.x as usize..][..width];
        for (to, dot) in to.iter_mut().zip(line) {
            *to = pixel(*dot);
        }
    }
}

/// Drawn by the GPU.
pub struct Gpu {
    pixels: Pixels<'static>,
    size: (u32, u32),
}

impl Gpu {
    fn new(window: &Arc<Window>, any: bool) -> Result<Self, PresentError> {
        let gpu = |error: &dyn std::fmt::Display| PresentError::Gpu(error.to_string());
        let size = (
            window.inner_size().width.max(1),
            window.inner_size().height.max(1),
        );
        let surface = SurfaceTexture::new(size.0, size.1, Arc::clone(window));
        let pixels = PixelsBuilder::new(size.0, size.1, surface)
            .wgpu_backend(wgpu::Backends::VULKAN | wgpu::Backends::GL)
            // Neither torn nor waited for: the pace is the guest's.
            .present_mode(wgpu::PresentMode::Mailbox)
            .build()
            .map_err(|e| gpu(&e))?;
        let info = pixels.adapter().get_info();
        tracing::info!("{} ({:?}, {:?})", info.name, info.device_type, info.backend);
        if info.device_type == wgpu::DeviceType::Cpu && !any {
            return Err(PresentError::Gpu(format!("{} is no GPU", info.name)));
        }
        Ok(Self { pixels, size })
    }

    fn show(&mut self, size: (u32, u32), frame: &Frame<'_>, all: bool) -> Result<(), PresentError> {
        let resized = size != self.size;
        if resized {
            let gpu = |error: &dyn std::fmt::Display| PresentError::Gpu(error.to_string());
            self.pixels.resize_surface(size.0, size.1).map_err(|e| gpu(&e))?;
            self.pixels.resize_buffer(size.0, size.1).map_err(|e| gpu(&e))?;
            self.size = size;
        }
        let into = self.pixels.frame_mut().as_chunks_mut().0;
        draw(frame, size, all || resized, into, |dot| dot);
        self.pixels.render().map_err(|e| PresentError::Gpu(e.to_string()))
    }
}

/// Written by the processor.
pub struct Software {
    surface: softbuffer::Surface<OwnedDisplayHandle, Arc<Window>>,
    size: (u32, u32),
}

impl Software {
    fn new(display: OwnedDisplayHandle, window: &Arc<Window>) -> Result<Self, PresentError> {
        let context = softbuffer::Context::new(display)?;
        Ok(Self {
            surface: softbuffer::Surface::new(&context, Arc::clone(window))?,
            size: (0, 0),
        })
    }

    fn show(&mut self, size: (u32, u32), frame: &Frame<'_>, all: bool) -> Result<(), PresentError> {
        let (Some(width), Some(height)) = (NonZeroU32::new(size.0), NonZeroU32::new(size.1)) else {
            return Ok(());
        };
        let resized = size != self.size;
        if resized {
            self.surface.resize(width, height)?;
            self.size = size;
        }
        let mut buffer = self.surface.buffer_mut()?;
        // Only the buffer of the frame before holds what has not changed.
        let all = all || resized || buffer.age() != 1;
        draw(frame, size, all, &mut buffer, word);
        if all {
            buffer.present()?;
            return Ok(());
        }
        let changed: Vec<softbuffer::Rect> = frame.changed.iter().filter_map(rect).collect();
        buffer.present_with_damage(&changed)?;
        Ok(())
    }
}

/// A dot as softbuffer wants it, 00RRGGBBh; by words, which the compiler takes several of at a time.
#[inline]
fn word(dot: Dot) -> u32 {
    let word = u32::from_le_bytes(dot);
    word & 0xFF00 | word >> 16 & 0xFF | (word & 0xFF) << 16
}

fn rect(rect: &Rect) -> Option<softbuffer::Rect> {
    Some(softbuffer::Rect {
        x: rect.x,
        y: rect.y,
        width: NonZeroU32::new(rect.width)?,
        height: NonZeroU32::new(rect.height)?,
    })
}
