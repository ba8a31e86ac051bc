//! BPF programs of a few instructions, which need no compiler.
#![forbid(unsafe_code)]

use anyhow::Result;
use object::write::{Object, Symbol, SymbolSection};
use object::{Architecture, BinaryFormat, Endianness, SectionKind, SymbolFlags, SymbolKind, SymbolScope};

/// An ELF object with one program; `section` says of which kind it is (`xdp`, `classifier`), `code` are its instructions,
/// eight bytes each, little-endian.
///
/// # Errors
/// If the object cannot be written.
pub fn object(section: &str, name: &str, code: &[[u8; 8]]) -> Result<Vec<u8>> {
    let code = code.concat();
    let mut object = Object::new(BinaryFormat::Elf, Architecture::Bpf, Endianness::Little);
    let section = object.add_section(Vec::new(), section.into(), SectionKind::Text);
    object.append_section_data(section, &code, 8);
    object.add_symbol(Symbol {
        name: name.into(),
        value: 0,
        size: code.len() as u64,
        kind: SymbolKind::Text,
        scope: SymbolScope::Linkage,
        weak: false,
        section: SymbolSection::Section(section),
        flags: SymbolFlags::None,
    });
    Ok(object.write()?)
}
