//! The rights of the process, given up piece by piece as soon as they are not needed.
//!
//! Capabilities belong to threads, and so does Landlock: what is given up before a thread is started is given up for it
//! too. Never takes anything back, and never ends the process: a kernel without one of these is a reason to go on without.

mod calls;

use std::{
    collections::BTreeMap,
    fs::{self, DirBuilder},
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
};

use caps::{CapSet, Capability, CapsHashSet};
use landlock::{
    ABI, Access, AccessFs, CompatLevel, Compatible, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetStatus,
    path_beneath_rules,
};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};

/// The newest rights of Landlock that we know of; the kernel takes those it knows.
const LANDLOCK: ABI = ABI::V5;
/// A directory made for the store or the socket.
const DIRECTORY_MODE: u32 = 0o750;

/// Why a part of the sandbox was not entered.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// Capabilities could not be given up.
    #[error("give up capabilities: {0}")]
    Capabilities(String),
    /// Landlock said no, or the kernel has none.
    #[error("confine writing to files (Landlock): {0}")]
    Landlock(String),
    /// The filter of system calls could not be made or installed.
    #[error("confine system calls (seccomp): {0}")]
    Seccomp(String),
}

/// Lets a program that is about to be started have `CAP_NET_ADMIN` where we have it without being root, and takes that back
/// when dropped. Root's programs have it anyway.
#[derive(Debug)]
pub struct InheritedCaps(());

impl InheritedCaps {
    /// Does so, as far as it can be done.
    #[must_use]
    pub fn net_admin() -> Self {
        // Neither can be done without having it, and then there is nothing to hand on.
        let _ = caps::raise(None, CapSet::Inheritable, Capability::CAP_NET_ADMIN);
        let _ = caps::raise(None, CapSet::Ambient, Capability::CAP_NET_ADMIN);
        Self(())
    }
}

impl Drop for InheritedCaps {
    fn drop(&mut self) {
        let _ = caps::drop(None, CapSet::Ambient, Capability::CAP_NET_ADMIN);
    }
}

/// Gives up every capability of this thread but those in `keep`. Root keeps `CAP_DAC_OVERRIDE`, as store and
/// certificates may belong to another user.
///
/// # Errors
/// If the system refuses.
pub fn drop_capabilities(keep: &[Capability]) -> Result<(), SandboxError> {
    let fail = |error: caps::errors::CapsError| SandboxError::Capabilities(error.to_string());
    let mut keep: CapsHashSet = keep.iter().copied().collect();
    keep.insert(Capability::CAP_DAC_OVERRIDE);
    let held = caps::read(None, CapSet::Permitted).map_err(fail)?;
    let keep: CapsHashSet = held.intersection(&keep).copied().collect();
    caps::clear(None, CapSet::Ambient).map_err(fail)?;
    caps::clear(None, CapSet::Inheritable).map_err(fail)?;
    caps::set(None, CapSet::Effective, &keep).map_err(fail)?;
    caps::set(None, CapSet::Permitted, &keep).map_err(fail)
}

/// The capabilities that [`drop_capabilities`] leaves to a thread that asks for none.
///
/// # Errors
/// If the system does not tell.
pub fn capabilities() -> Result<Vec<Capability>, SandboxError> {
    let held = caps::read(None, CapSet::Permitted).map_err(|error| SandboxError::Capabilities(error.to_string()))?;
    Ok(held.into_iter().collect())
}

/// From now on this thread and those it starts read no homes and no secrets of the system, write and make files only below
/// `writable`, run programs only if `programs`, and gain no rights by running one. What is below `readable` can be read wherever
/// it is.
///
/// # Errors
/// If the kernel has no Landlock or refuses.
pub fn confine_files(writable: &[PathBuf], readable: &[PathBuf], programs: bool) -> Result<(), SandboxError> {
    for path in writable {
        // A directory that cannot be made is an error of the first write to it.
        let _ = make_directory(path);
    }
    let mut reading = AccessFs::from_read(LANDLOCK);
    if !programs {
        reading &= !AccessFs::Execute;
    }
    let confine = || {
        Ruleset::default()
            .set_compatibility(CompatLevel::BestEffort)
            .handle_access(AccessFs::from_all(LANDLOCK))?
            .create()?
            .add_rules(path_beneath_rules(everything_but_secrets().iter().chain(readable), reading))?
            .add_rules(path_beneath_rules(writable, AccessFs::from_all(LANDLOCK) & !AccessFs::Execute))?
            // Devices that every process may write to.
            .add_rules(path_beneath_rules(["/dev/null"], AccessFs::WriteFile | AccessFs::ReadFile))?
            .restrict_self()
    };
    let status = confine().map_err(|error: landlock::RulesetError| SandboxError::Landlock(error.to_string()))?;
    if status.ruleset == RulesetStatus::NotEnforced {
        return Err(SandboxError::Landlock("the kernel has none".into()));
    }
    Ok(())
}

/// Directories of the root that hold nothing a server of DNS reads: homes, and the boot loader.
const HIDDEN: [&str; 4] = ["/root", "/home", "/boot", "/srv"];
/// Secrets of a machine's users in `/etc`.
const HIDDEN_IN_ETC: [&str; 9] =
    ["shadow", "shadow-", "gshadow", "gshadow-", "sudoers", "sudoers.d", "ssh", "security", "krb5.keytab"];
/// The file that decides how much of `/etc` can be hidden.
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// Every path of the root but [`HIDDEN`], and of `/etc` every one but [`HIDDEN_IN_ETC`].
///
/// A rule names a file or a directory as it is now. Where programs put another `/etc/resolv.conf` in the place of the old one,
/// which a mounted one and a link to elsewhere rule out, only a rule for all of `/etc` lets it be read again.
fn everything_but_secrets() -> Vec<PathBuf> {
    let below = |path: &str| -> Vec<PathBuf> {
        fs::read_dir(path).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path())).collect()
    };
    let mut paths = below("/");
    paths.retain(|path| !HIDDEN.iter().any(|hidden| path == Path::new(hidden)));
    if !is_replaced_in_place(Path::new(RESOLV_CONF)) {
        paths.retain(|path| path != Path::new("/etc"));
        let hidden = |path: &PathBuf| HIDDEN_IN_ETC.iter().any(|hidden| path.ends_with(hidden));
        paths.extend(below("/etc").into_iter().filter(|path| !hidden(path)));
    }
    paths
}

/// Whether a file is one of its directory: no link, and no mount of its own.
fn is_replaced_in_place(path: &Path) -> bool {
    let device = |path: &Path| fs::symlink_metadata(path).map(|file| file.dev());
    let Ok(file) = fs::symlink_metadata(path) else { return true };
    let mounted = fs::read_to_string("/proc/self/mountinfo")
        .is_ok_and(|mounts| mounts.lines().any(|line| line.split(' ').nth(4).is_some_and(|at| Path::new(at) == path)));
    let same_device = device(&directory_of(path)).is_ok_and(|device| device == file.dev());
    !file.is_symlink() && !mounted && same_device
}

/// The directory a file is in, as something that can be opened: the current one for a bare name.
#[must_use]
pub fn directory_of(file: &Path) -> PathBuf {
    file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_owned()
}

fn make_directory(path: &Path) -> std::io::Result<()> {
    DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(path)
}

/// From now on every thread of the process makes only the system calls a server needs; others fail with EPERM. Programs
/// can be started only if `programs`.
///
/// # Errors
/// If the kernel has no seccomp or refuses.
pub fn confine_calls(programs: bool) -> Result<(), SandboxError> {
    let fail = |error: &dyn std::fmt::Display| SandboxError::Seccomp(error.to_string());
    let errno = |code: libc::c_int| SeccompAction::Errno(code.cast_unsigned());
    let arch = || std::env::consts::ARCH.try_into().map_err(|error: seccompiler::BackendError| fail(&error));
    let install = |rules, otherwise, matched| -> Result<(), SandboxError> {
        let filter = SeccompFilter::new(rules, otherwise, matched, arch()?);
        let program: BpfProgram = filter.and_then(TryInto::try_into).map_err(|error| fail(&error))?;
        seccompiler::apply_filter_all_threads(&program).map_err(|error| fail(&error))
    };
    // Its flags are in memory, where no filter sees them. C libraries that are told it is not there use `clone`.
    let no_clone3 = [(libc::SYS_clone3, Vec::new())].into();
    install(no_clone3, SeccompAction::Allow, errno(libc::ENOSYS))?;
    let mut allowed: BTreeMap<i64, Vec<_>> = calls::SERVER.iter().map(|call| (*call, Vec::new())).collect();
    if programs {
        allowed.extend(calls::PROGRAMS.iter().map(|call| (*call, Vec::new())));
    }
    allowed.extend(calls::by_arguments(programs).map_err(|error| fail(&error))?);
    install(allowed, errno(libc::EPERM), SeccompAction::Allow)
}
