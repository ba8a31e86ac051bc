//! One interface's device: reads and writes its settings, whichever way they go.
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::error::NicError;
use super::ethtool::Ethtool;
use super::setting::{Queues, Setting};
use super::{flow, irq};
use crate::steering::probe;

/// How long a link may take to come back after its rings or channels changed; autonegotiation takes 2 to 4 s.
const CARRIER_PATIENCE: Duration = Duration::from_secs(10);
const CARRIER_INTERVAL: Duration = Duration::from_millis(20);

/// Where settings are reached; others only in tests.
#[derive(Clone, Debug)]
pub(super) struct Kernel {
    /// /sys
    pub(super) sysfs: PathBuf,
    /// /proc
    pub(super) proc: PathBuf,
    /// Program and first arguments.
    pub(super) ethtool: Vec<OsString>,
    /// Index of an interface in the caller's network namespace, if it is there.
    pub(super) index_of: fn(&Path, &str) -> Option<u32>,
}

impl Kernel {
    /// This host's.
    pub(super) fn this() -> Self {
        Self {
            sysfs: "/sys".into(),
            proc: "/proc".into(),
            ethtool: vec!["ethtool".into()],
            index_of: |_, name| probe::interface_index(name).ok(),
        }
    }

    /// Identifies this run of the kernel.
    pub(super) fn boot_id(&self) -> io::Result<String> {
        fs::read_to_string(self.proc.join("sys/kernel/random/boot_id")).map(|text| text.trim().to_owned())
    }

    /// Number of the caller's network namespace.
    pub(super) fn namespace(&self) -> io::Result<u64> {
        fs::metadata(self.proc.join("thread-self/ns/net")).map(|file| file.ino())
    }
}

/// An interface that is there.
#[derive(Debug)]
pub(super) struct Device<'a> {
    pub(super) kernel: &'a Kernel,
    name: String,
    /// Kernel index: never given twice in one namespace and boot, whatever becomes of name and address.
    pub(super) index: u32,
    /// Bus address, such as `0000:3b:00.0`; none for what is only software.
    pub(super) bus: Option<String>,
}

impl<'a> Device<'a> {
    /// Finds the interface.
    pub(super) fn open(kernel: &'a Kernel, name: &str) -> Result<Self, NicError> {
        let index = (kernel.index_of)(&kernel.sysfs, name);
        let index = index.ok_or_else(|| NicError::NoInterface { interface: name.to_owned() })?;
        let folder = kernel.sysfs.join("class/net").join(name);
        let shown = fs::read_to_string(folder.join("ifindex")).ok();
        if shown.and_then(|text| text.trim().parse().ok()) != Some(index) {
            return Err(NicError::OtherNamespace { interface: name.to_owned() });
        }
        let bus = fs::canonicalize(folder.join("device")).ok();
        let bus = bus.and_then(|path| Some(path.file_name()?.to_string_lossy().into_owned()));
        Ok(Self { kernel, name: name.to_owned(), index, bus })
    }

    /// Kernel name.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The present value.
    pub(super) fn read(&self, setting: &Setting) -> Result<String, NicError> {
        let ethtool = self.ethtool(setting);
        let known = |value: Option<u32>| {
            let value = value.ok_or_else(|| ethtool.unsupported("`ethtool` shows n/a".to_owned()))?;
            Ok(value.to_string())
        };
        match setting {
            Setting::Channels(queues) => known(ethtool.channels(*queues, false)?),
            Setting::Ring(direction) => known(ethtool.ring(*direction, false)?),
            Setting::RxUsecs => known(ethtool.rx_usecs()?),
            Setting::AdaptiveRx => {
                ethtool.adaptive_rx()?.ok_or_else(|| ethtool.unsupported("`ethtool` shows n/a".to_owned()))
            }
            Setting::Feature(feature) => ethtool.feature(*feature),
            Setting::Flow { group, vlan } => flow::read(&ethtool, *group, *vlan),
            _ => fs::read_to_string(self.file(setting))
                .map(|text| text.trim().to_owned())
                .map_err(|error| ethtool.unsupported(error.to_string())),
        }
    }

    /// Writes a value.
    pub(super) fn write(&self, setting: &Setting, value: &str) -> Result<(), NicError> {
        let ethtool = self.ethtool(setting);
        let tell = |verb: &str, key: &str| ethtool.tell(verb, &[key, value], value).map(drop);
        match setting {
            Setting::Channels(Queues::Combined) => tell("-L", "combined"),
            Setting::Channels(Queues::Rx) => tell("-L", "rx"),
            Setting::Channels(Queues::Tx) => tell("-L", "tx"),
            Setting::Ring(direction) => tell("-G", direction.word()),
            Setting::RxUsecs => tell("-C", "rx-usecs"),
            Setting::AdaptiveRx => tell("-C", "adaptive-rx"),
            Setting::Feature(feature) => tell("-K", feature.short()),
            Setting::Flow { group, vlan } => flow::write(&ethtool, *group, *vlan, value),
            _ => {
                // Not created: a setting that this kernel does not have must not become a file.
                let file = OpenOptions::new().write(true).truncate(true).open(self.file(setting));
                let written = file.and_then(|mut file| file.write_all(value.as_bytes()));
                written.map_err(|error| ethtool.refused(value, explain(setting, &error)))
            }
        }
    }

    /// Refuses what the driver says beforehand that it cannot do; `old` is the present value.
    pub(super) fn check(&self, setting: &Setting, wanted: &str, old: &str) -> Result<(), NicError> {
        let ethtool = self.ethtool(setting);
        let most = match setting {
            Setting::Channels(queues) => ethtool.channels(*queues, true)?,
            Setting::Ring(direction) => ethtool.ring(*direction, true)?,
            Setting::Feature(feature) => return ethtool.check_changeable(*feature),
            Setting::Flow { .. } if old != flow::NONE => {
                return Err(NicError::OtherRule {
                    interface: self.name.clone(),
                    rule: setting.to_string(),
                    present: old.to_owned(),
                    queue: wanted.to_owned(),
                });
            }
            _ => None,
        };
        match most {
            Some(most) if wanted.parse().is_ok_and(|wanted: u32| wanted > most) => Err(NicError::TooMany {
                interface: self.name.clone(),
                setting: setting.to_string(),
                value: wanted.to_owned(),
                most,
            }),
            _ => Ok(()),
        }
    }

    /// How the driver counts its queues: in pairs if it can, else receive and transmit apart.
    pub(super) fn queue_kinds(&self) -> Result<&'static [Queues], NicError> {
        let setting = Setting::Channels(Queues::Combined);
        let pairs = self.ethtool(&setting).channels(Queues::Combined, true)?;
        // Before netlink, 0 was what n/a is now.
        Ok(if pairs.unwrap_or(0) > 0 { &[Queues::Combined] } else { &[Queues::Rx, Queues::Tx] })
    }

    /// The device's interrupts, as settings.
    pub(super) fn irqs(&self) -> Result<Vec<Setting>, NicError> {
        let irqs = irq::irqs(&self.folder().join("device"), &self.kernel.proc);
        let irqs = irqs.map_err(|looked| NicError::NoInterrupts { interface: self.name.clone(), looked })?;
        Ok(irqs.into_iter().map(|(number, name)| Setting::Irq { number, name }).collect())
    }

    /// Whether the link is up.
    pub(super) fn has_carrier(&self) -> bool {
        // Reading it fails while the interface is down.
        fs::read_to_string(self.folder().join("carrier")).is_ok_and(|text| text.trim() == "1")
    }

    /// Waits until the link is up again.
    pub(super) fn wait_for_carrier(&self) -> Result<(), NicError> {
        let give_up = Instant::now() + CARRIER_PATIENCE;
        while !self.has_carrier() {
            if Instant::now() >= give_up {
                let seconds = CARRIER_PATIENCE.as_secs();
                return Err(NicError::NoCarrier { interface: self.name.clone(), seconds });
            }
            std::thread::sleep(CARRIER_INTERVAL);
        }
        Ok(())
    }

    fn ethtool<'s>(&'s self, setting: &'s Setting) -> Ethtool<'s> {
        Ethtool { program: &self.kernel.ethtool, interface: &self.name, setting }
    }

    fn folder(&self) -> PathBuf {
        self.kernel.sysfs.join("class/net").join(&self.name)
    }

    /// The file of a setting that has one.
    fn file(&self, setting: &Setting) -> PathBuf {
        match setting {
            Setting::Irq { number, .. } => self.kernel.proc.join(format!("irq/{number}/smp_affinity_list")),
            Setting::GroFlushTimeoutNs => self.folder().join("gro_flush_timeout"),
            Setting::NapiThreaded => self.folder().join("threaded"),
            _ => self.folder().join("napi_defer_hard_irqs"),
        }
    }
}

fn explain(setting: &Setting, error: &io::Error) -> String {
    match setting {
        // EIO from a managed interrupt (nvme, some storage and network drivers), EINVAL without an online core.
        Setting::Irq { .. } => {
            format!("{error} (the kernel manages this interrupt's cores itself, or none of these is online)")
        }
        _ => error.to_string(),
    }
}
