//! `feed_filter`: the XDP program. Parse → rule → source → socket → stamp → redirect; everything else passes on.
//!
//! One instance is loaded per interface, so each has its own maps. What is not ours, or what no socket waits for, goes to
//! the kernel's network stack as if the program were absent. Only where the interface is said to carry nothing but feeds
//! is multicast dropped that no rule takes ([`decide`] says just what): the stack would spend far more on throwing it away.
//!
//! There are two builds of it, of which the loader takes one. [`feed_filter`] is for packets that lie in one buffer each:
//! the kernel lets it onto no interface whose MTU allows more. [`feed_filter_sg`] takes packets over several buffers, too
//! (multi-buffer XDP, Linux 5.18). The headers must lie in the first, as every driver has it.
//!
//! Build with the BPF toolchain only (userspace/build.rs does).
#![no_std]
#![no_main]

use aya_ebpf::Global;
use aya_ebpf::bindings::{xdp_action, xdp_md};
use aya_ebpf::helpers::bpf_ktime_get_ns;
use aya_ebpf::helpers::generated::{bpf_xdp_adjust_meta, bpf_xdp_get_buff_len};
use aya_ebpf::macros::{map, xdp};
use aya_ebpf::maps::{HashMap, PerCpuArray, XskMap};
use aya_ebpf::programs::XdpContext;
use xdp_ebpf::decide::{RuleLookup, decide};
use xdp_ebpf::headers::{FrameBytes, Parsed};
use xdp_ebpf::{FrameMeta, GroupKey, GroupRule, LineStats, MAX_LINES, MAX_QUEUES, MAX_RULES, SourceKey, Verdict};

/// Marks this instance's stamps; set by the loader before the program is verified.
#[unsafe(no_mangle)]
static COOKIE: Global<u16> = Global::new(0);

/// Whether multicast that no rule takes is dropped (1) or passes (0); set by the loader, so the verifier sees a constant
/// and throws the other branch away.
#[unsafe(no_mangle)]
static DROP_UNSUBSCRIBED: Global<u8> = Global::new(0);

/// Subscribed groups: the first rule of each.
#[map]
static RULES: HashMap<GroupKey, GroupRule> = HashMap::with_max_entries(MAX_RULES, 0);

/// Further sources of groups that have several.
#[map]
static SOURCE_RULES: HashMap<SourceKey, GroupRule> = HashMap::with_max_entries(MAX_RULES, 0);

/// AF_XDP sockets by receive queue: the kernel refuses a socket that is bound to another queue.
#[map]
static XSKS: XskMap = XskMap::with_max_entries(MAX_QUEUES, 0);

/// Frames by [`Verdict`].
#[map]
static VERDICTS: PerCpuArray<u64> = PerCpuArray::with_max_entries(Verdict::COUNT as u32, 0);

/// Redirected frames by line.
#[map]
static LINE_STATS: PerCpuArray<LineStats> = PerCpuArray::with_max_entries(MAX_LINES, 0);

/// No helper that is used here is restricted to GPL programs.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 11] = *b"Apache-2.0\0";

#[xdp]
pub fn feed_filter(ctx: XdpContext) -> u32 {
    filter::<false>(&ctx)
}

#[xdp(frags)]
pub fn feed_filter_sg(ctx: XdpContext) -> u32 {
    filter::<true>(&ctx)
}

#[inline(always)]
fn filter<const SG: bool>(ctx: &XdpContext) -> u32 {
    let (verdict, action) = match redirect::<SG>(ctx) {
        Ok(action) => (Verdict::Redirected, action),
        Err(verdict) if verdict.is_drop() => (verdict, xdp_action::XDP_DROP),
        Err(verdict) => (verdict, xdp_action::XDP_PASS),
    };
    if let Some(count) = VERDICTS.get_ptr_mut(verdict as u32) {
        // SAFETY: the map returned a valid, aligned u64 of this CPU; programs do not preempt each other on a CPU's
        // receive path, and user space only reads.
        unsafe { *count += 1 };
    }
    action
}

/// Chooses the socket and stamps the frame. The action to return, or why the frame passes or is dropped.
#[inline(always)]
fn redirect<const SG: bool>(ctx: &XdpContext) -> Result<u32, Verdict> {
    let packet = Packet::<SG> { start: ctx.data(), end: ctx.data_end(), ctx: ctx.ctx };
    let (parsed, rule) = decide(&packet, &Maps, DROP_UNSUBSCRIBED.load() != 0)?;
    // Choosing the target first costs one lookup where "is there a socket?" and then "redirect" would cost two, and
    // keeps a frame that passes free of our stamp. The helper only notes the target: the frame may still be stamped.
    let action = XSKS
        .redirect(ctx.rx_queue_index(), u64::from(xdp_action::XDP_PASS))
        .map_err(|_empty_slot| Verdict::PassNoSocket)?;
    let received_ns = monotonic_ns();
    count_line(rule.line, packet.len(), received_ns);
    stamp(ctx, &parsed, rule.line, received_ns);
    Ok(action)
}

/// The rules as the loader keeps them.
struct Maps;

impl RuleLookup for Maps {
    #[inline(always)]
    fn group(&self, key: GroupKey) -> Option<GroupRule> {
        // SAFETY: the map returned a pointer to a live value; values are 8 bytes and replaced whole, never edited in place.
        RULES.get_ptr(key).map(|rule| unsafe { *rule })
    }

    #[inline(always)]
    fn source(&self, key: SourceKey) -> Option<GroupRule> {
        // SAFETY: as above.
        SOURCE_RULES.get_ptr(key).map(|rule| unsafe { *rule })
    }
}

/// CLOCK_MONOTONIC now, nanoseconds.
#[inline(always)]
fn monotonic_ns() -> u64 {
    // SAFETY: the helper takes no argument and cannot fail.
    unsafe { bpf_ktime_get_ns() }
}

#[inline(always)]
fn count_line(line: u16, frame_bytes: usize, now_ns: u64) {
    if let Some(stats) = LINE_STATS.get_ptr_mut(u32::from(line)) {
        // SAFETY: as for the verdict counters: this CPU's own value, written here only.
        unsafe {
            (*stats).packets += 1;
            (*stats).bytes += frame_bytes as u64;
            (*stats).last_seen_ns = now_ns;
        }
    }
}

/// Writes the [`FrameMeta`] directly before the frame. A driver without room for metadata refuses; the frame is then
/// redirected bare, and user space parses it again.
#[inline(always)]
fn stamp(ctx: &XdpContext, parsed: &Parsed, line: u16, received_ns: u64) {
    let meta = FrameMeta {
        received_ns,
        line,
        payload_offset: parsed.payload_offset,
        payload_len: parsed.payload_len,
        cookie: COOKIE.load(),
    };
    // SAFETY: the context is the one that the program was called with. The call invalidates all packet pointers; none
    // from before is used again.
    if unsafe { bpf_xdp_adjust_meta(ctx.ctx, -(size_of::<FrameMeta>() as i32)) } != 0 {
        return;
    }
    let start = ctx.metadata();
    if start + size_of::<FrameMeta>() > ctx.metadata_end() {
        return;
    }
    // SAFETY: the room between data_meta and data was just checked (the verifier insists). Frames start at any address,
    // so the write must not assume alignment.
    unsafe { (start as *mut FrameMeta).write_unaligned(meta) };
}

/// The frame in the driver's buffer: addresses of its first byte and of the byte after the last that can be read. With
/// `SG` it may go on in further buffers, which cannot be read from here.
struct Packet<const SG: bool> {
    start: usize,
    end: usize,
    ctx: *mut xdp_md,
}

impl<const SG: bool> Packet<SG> {
    /// Bytes in all buffers.
    #[inline(always)]
    fn len(&self) -> usize {
        if SG {
            // SAFETY: the context is the one that the program was called with; the helper only reads.
            unsafe { bpf_xdp_get_buff_len(self.ctx) as usize }
        } else {
            self.end - self.start
        }
    }
}

impl<const SG: bool> FrameBytes for Packet<SG> {
    #[inline(always)]
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        let at = self.start + offset;
        if at + N > self.end {
            return None;
        }
        // SAFETY: `at..at + N` lies within the packet, as just compared; byte arrays need no alignment.
        Some(unsafe { *(at as *const [u8; N]) })
    }

    #[inline(always)]
    fn is_at_least(&self, len: usize) -> bool {
        self.start + len <= self.end || (SG && len <= self.len())
    }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
