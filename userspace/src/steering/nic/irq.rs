//! Interrupts of a device: which, and on which cores.
#![forbid(unsafe_code)]

use std::fs;
use std::path::{Path, PathBuf};

/// Interrupts that a driver has taken: number and name. `device` is the device's folder in sysfs, `proc` is /proc.
///
/// A PCI device lists its vectors in `msi_irqs`; those that no driver has taken are not in /proc/interrupts and have no
/// effect. A virtio device has its vectors at the PCI device that it is a child of.
///
/// # Errors
/// Where it looked and found none.
pub(crate) fn irqs(device: &Path, proc: &Path) -> Result<Vec<(u32, String)>, PathBuf> {
    let Ok(device) = device.canonicalize() else { return Err(device.join("msi_irqs")) };
    let is_virtio = device.file_name().is_some_and(|name| name.to_string_lossy().starts_with("virtio"));
    let function = device.parent().filter(|_| is_virtio).unwrap_or(&device);
    let folder = function.join("msi_irqs");
    let mut numbers: Vec<u32> = fs::read_dir(&folder)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    if numbers.is_empty() {
        // The one line of old, without MSI; 0 is none.
        let line = fs::read_to_string(function.join("irq")).ok().and_then(|text| text.trim().parse().ok());
        numbers.extend(line.filter(|number: &u32| *number != 0));
    }
    numbers.sort_unstable();
    let table = fs::read_to_string(proc.join("interrupts")).unwrap_or_default();
    let found: Vec<_> =
        numbers.into_iter().filter_map(|number| Some((number, name_of(&table, number)?.to_owned()))).collect();
    if found.is_empty() { Err(folder) } else { Ok(found) }
}

/// Last word of an interrupt's line in /proc/interrupts.
fn name_of(table: &str, number: u32) -> Option<&str> {
    let line = table.lines().find_map(|line| {
        let (left, right) = line.split_once(':')?;
        (left.trim().parse() == Ok(number)).then_some(right)
    })?;
    line.split_ascii_whitespace().next_back()
}

/// A CPU list in the kernel's form: `0-2,5`. The cores are in ascending order.
pub(crate) fn cpu_list(cores: &[usize]) -> String {
    let mut ranges: Vec<(usize, usize)> = Vec::new();
    for core in cores {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == *core => *last = *core,
            _ => ranges.push((*core, *core)),
        }
    }
    let texts = ranges.iter().map(|(first, last)| match last - first {
        0 => first.to_string(),
        _ => format!("{first}-{last}"),
    });
    texts.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_lists_have_the_kernels_form() {
        assert_eq!([cpu_list(&[]), cpu_list(&[0])], ["", "0"]);
        assert_eq!(cpu_list(&[0, 1, 2, 5, 7, 8]), "0-2,5,7-8");
    }

    #[test]
    fn a_virtio_device_has_the_interrupts_of_its_pci_device() {
        let folder = tempfile::TempDir::new().unwrap();
        let (pci, proc) = (folder.path().join("0000:00:03.0"), folder.path().join("proc"));
        fs::create_dir_all(pci.join("msi_irqs/37")).unwrap();
        fs::create_dir_all(pci.join("virtio2")).unwrap();
        fs::create_dir_all(&proc).unwrap();
        fs::write(proc.join("interrupts"), " 37: 0 PCI-MSIX-0000:00:03.0 1-edge virtio2-input.0\n").unwrap();
        assert_eq!(irqs(&pci.join("virtio2"), &proc), Ok(vec![(37, "virtio2-input.0".to_owned())]));
        // Any other device's parent is a bridge, whose interrupts are not ours.
        fs::create_dir_all(pci.join("0000:01:00.0")).unwrap();
        assert!(irqs(&pci.join("0000:01:00.0"), &proc).is_err());
        fs::write(pci.join("0000:01:00.0/irq"), "37\n").unwrap();
        assert!(irqs(&pci.join("0000:01:00.0"), &proc).is_ok(), "a line without MSI");
    }

    #[test]
    fn an_interrupt_is_named_by_its_last_word() {
        let table =
            "       CPU0  CPU1\n 7: 1 2 IO-APIC 5-edge ens1f0\n37: 0 0 PCI-MSIX-0000:00:03.0 0-edge ens1f0-TxRx-0\n";
        assert_eq!(name_of(table, 37), Some("ens1f0-TxRx-0"));
        assert_eq!(name_of(table, 3), None);
    }
}
