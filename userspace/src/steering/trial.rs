//! Running the loaded program on a frame that nobody sent (BPF_PROG_TEST_RUN).
#![forbid(unsafe_code)]

use aya::programs::{TestRun as _, TestRunOptions, Xdp};
use xdp_ebpf::FrameMeta;

use super::SteeringError;

/// Action `XDP_DROP`: the frame ends here.
pub const XDP_DROP: u32 = 1;
/// Action `XDP_PASS`: on to the kernel's network stack.
pub const XDP_PASS: u32 = 2;
/// Action `XDP_REDIRECT`: to the AF_XDP socket.
pub const XDP_REDIRECT: u32 = 4;

/// What the program did with one frame in a test run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TestRun {
    /// XDP action: [`XDP_DROP`], [`XDP_PASS`] or [`XDP_REDIRECT`].
    pub action: u32,
    /// The stamp that was written in front of the frame, if one was.
    pub meta: Option<FrameMeta>,
    /// The frame after the run.
    pub frame: Vec<u8>,
}

/// The same, with the frame still in the buffer that the kernel wrote it to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trial<'a> {
    /// As [`TestRun::action`].
    pub action: u32,
    /// As [`TestRun::meta`].
    pub meta: Option<FrameMeta>,
    /// As [`TestRun::frame`].
    pub frame: &'a [u8],
}

/// Runs frame after frame, each with one system call and no allocation.
#[derive(Debug)]
pub struct Trials<'a> {
    program: &'a Xdp,
    out: Vec<u8>,
}

impl<'a> Trials<'a> {
    /// More than the kernel takes of a packet in one buffer, and all of the largest jumbo packet.
    const MOST_BYTES: usize = 16 * 1024;

    pub(super) fn new(program: &'a Xdp) -> Self {
        Self { program, out: vec![0; Self::MOST_BYTES + FrameMeta::BYTES] }
    }

    /// Runs the program once on a frame, as if it had come in on queue 0; the counters count it. Nothing is delivered, even
    /// when the action is redirect.
    ///
    /// # Errors
    /// The kernel's: it takes frames from 14 bytes to about a page, and with multi-buffer longer ones.
    pub fn run(&mut self, frame: &[u8]) -> Result<Trial<'_>, SteeringError> {
        let options = TestRunOptions { data_in: Some(frame), data_out: Some(&mut self.out), ..TestRunOptions::new() };
        let result = self.program.test_run(options)?;
        // The kernel hands out everything from the metadata on.
        let out = self.out.get(..result.data_size_out as usize).unwrap_or_default();
        let (meta, frame) = match out.split_first_chunk() {
            Some((meta, behind)) if behind.len() == frame.len() => (Some(FrameMeta::from_bytes(*meta)), behind),
            _ => (None, out),
        };
        Ok(Trial { action: result.return_value, meta, frame })
    }
}
