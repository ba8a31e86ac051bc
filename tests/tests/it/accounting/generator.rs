//! Frames, and two ways to send them.
#![forbid(unsafe_code)]

use std::net::SocketAddrV4;
use std::os::fd::AsRawFd;

use aya::Ebpf;
use aya::programs::{TestRun as _, TestRunAttrs, TestRunOptions, Xdp};
use feedhandler::net::headers::{Header, Template};
use feedhandler::net::interface::Interface;
use feedhandler_testkit::bytecode;
use nix::sys::socket::{AddressFamily, SockFlag, SockType};
use socket2::Socket;

/// An untagged frame with a datagram.
pub fn datagram(source: [u8; 4], to: SocketAddrV4, payload: &[u8]) -> Vec<u8> {
    let source = SocketAddrV4::new(source.into(), 30_000);
    let template = Template::new(&Header::multicast([2, 0, 0, 0, 0, 9], 0, source, to, 8).expect("a group"));
    let mut frame = vec![0; template.len()];
    template.write(&mut frame, payload.len());
    frame.extend_from_slice(payload);
    frame
}

/// Sends a frame so often out of an interface of the caller's namespace.
pub fn send_live(interface: &str, frame: &[u8], count: u32) {
    const XDP_TX: u8 = 3;
    /// The most that the kernel puts into the device's queue before it lets the receiver run.
    const BATCH: u32 = 256;
    let code = [[0xb7, 0, 0, 0, XDP_TX, 0, 0, 0], [0x95, 0, 0, 0, 0, 0, 0, 0]];
    let mut ebpf = Ebpf::load(&bytecode::object("xdp", "send_back", &code).unwrap()).unwrap();
    let program: &mut Xdp = ebpf.program_mut("send_back").unwrap().try_into().unwrap();
    program.load().unwrap();
    // struct xdp_md: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
    let words = [0, frame.len() as u32, 0, Interface::read(interface).unwrap().index, 0, 0];
    let metadata: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
    let options = TestRunOptions {
        data_in: Some(frame),
        ctx_in: Some(&metadata),
        repeat: count,
        attrs: TestRunAttrs::new().xdp_live_frames(BATCH),
        ..TestRunOptions::new()
    };
    program.test_run(options).unwrap();
}

/// A packet socket that sends whole frames by one interface and receives nothing.
pub fn raw_socket(interface: &str) -> Socket {
    let socket = nix::sys::socket::socket(AddressFamily::Packet, SockType::Raw, SockFlag::empty(), None).unwrap();
    let mut addresses = nix::ifaddrs::getifaddrs().unwrap().filter(|entry| entry.interface_name == interface);
    let address = addresses.find_map(|entry| entry.address?.as_link_addr().copied()).expect("an Ethernet address");
    nix::sys::socket::bind(socket.as_raw_fd(), &address).unwrap();
    socket.into()
}
