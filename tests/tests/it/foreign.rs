//! Somebody else's XDP program: the smallest there is, written by hand.
#![forbid(unsafe_code)]

use aya::Ebpf;
use aya::programs::{Xdp, XdpMode};
use feedhandler::net::interface::Interface;
use feedhandler_testkit::lab::Namespace;
use object::write::{Object, Symbol, SymbolSection};
use object::{Architecture, BinaryFormat, Endianness, SectionKind, SymbolFlags, SymbolKind, SymbolScope};

/// Its name, as the kernel has it.
pub const NAME: &str = "somebody_else";

/// Attaches it natively to an interface; it goes when the result is dropped.
pub fn attach(namespace: &Namespace, interface: &str) -> Ebpf {
    let attach = || {
        let mut ebpf = Ebpf::load(&program()).expect("loads");
        let program: &mut Xdp = ebpf.program_mut(NAME).expect("is there").try_into().expect("is for XDP");
        program.load().expect("the verifier has nothing against it");
        let index = Interface::read(interface).expect("the interface").index;
        program.attach_to_if_index(index, XdpMode::Driver).expect("attaches");
        ebpf
    };
    namespace.enter(attach).expect("the namespace")
}

/// An ELF object with the whole program: `return XDP_PASS`.
fn program() -> Vec<u8> {
    const XDP_PASS: u8 = 2;
    // r0 = XDP_PASS; exit
    const CODE: [u8; 16] = [0xb7, 0, 0, 0, XDP_PASS, 0, 0, 0, 0x95, 0, 0, 0, 0, 0, 0, 0];
    let mut object = Object::new(BinaryFormat::Elf, Architecture::Bpf, Endianness::Little);
    let section = object.add_section(Vec::new(), b"xdp".to_vec(), SectionKind::Text);
    object.append_section_data(section, &CODE, 8);
    object.add_symbol(Symbol {
        name: NAME.into(),
        value: 0,
        size: CODE.len() as u64,
        kind: SymbolKind::Text,
        scope: SymbolScope::Linkage,
        weak: false,
        section: SymbolSection::Section(section),
        flags: SymbolFlags::None,
    });
    object.write().expect("an object")
}
