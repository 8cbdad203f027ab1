//! Landlock: access to files and TCP ports, for this thread and all that descend from it.
//!
//! One ruleset handles all rights to files that are known here, so that what no rule
//! grants is denied; older kernels lack some, and those are left out (Linux 5.13 has the
//! first version). UDP, signals and abstract sockets are not handled: the resolver, the
//! service manager and `unix:@` targets need them.

use std::error::Error;
use std::io;

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, LandlockStatus, NetPort, PathBeneath, PathFd,
    PathFdError, RestrictionStatus, Ruleset, RulesetAttr, RulesetCreated, RulesetCreatedAttr, RulesetError,
    RulesetStatus, make_bitflags,
};

use super::{Access, FileRule, Outcome, Plan, PortRule, Report, Skipped, thread_count};

/// Version 10 added rights to UDP only, version 9 is the last with rights to files.
const KNOWN: ABI = ABI::V10;

/// Confines this thread.
pub(super) fn enter(plan: &Plan) -> Report {
    let mut skipped = plan.skipped.clone();
    let outcome = match thread_count() {
        Some(threads) if threads > 1 => Outcome::Failed(format!(
            "{threads} threads are running, and only one of them would be confined"
        )),
        _ => restrict(plan, &mut skipped).map_or_else(|error| Outcome::Failed(in_full(&error)), outcome),
    };
    Report { outcome, skipped }
}

fn restrict(plan: &Plan, skipped: &mut Vec<Skipped>) -> Result<RestrictionStatus, RulesetError> {
    let mut ruleset = Ruleset::default()
        .handle_access(AccessFs::from_all(KNOWN))?
        .handle_access(AccessNet::BindTcp | AccessNet::ConnectTcp)?
        .create()?;
    for rule in &plan.files {
        skipped.extend(allow_file(&mut ruleset, rule));
    }
    for rule in &plan.connect_ports {
        skipped.extend(allow_port(&mut ruleset, rule, AccessNet::ConnectTcp));
    }
    for rule in &plan.bind_ports {
        skipped.extend(allow_port(&mut ruleset, rule, AccessNet::BindTcp));
    }
    // Sets no_new_privs too, also where there is no Landlock.
    ruleset.restrict_self()
}

fn allow_file(ruleset: &mut RulesetCreated, rule: &FileRule) -> Option<Skipped> {
    let skipped = |reason| {
        let what = format!("{} {}", rule.access, rule.path.display());
        Some(Skipped {
            what,
            why: rule.why,
            reason,
        })
    };
    let path = match PathFd::new(&rule.path) {
        Ok(path) => path,
        Err(error) if rule.is_optional && is_missing(&error) => return None,
        Err(error) => return skipped(in_full(&error)),
    };
    match ruleset.add_rule(PathBeneath::new(path, rights(rule.access))) {
        Ok(_) => None,
        Err(error) => skipped(in_full(&error)),
    }
}

fn allow_port(ruleset: &mut RulesetCreated, rule: &PortRule, access: AccessNet) -> Option<Skipped> {
    match ruleset.add_rule(NetPort::new(rule.port, access)) {
        Ok(_) => None,
        Err(error) => Some(Skipped {
            what: format!("port {}", rule.port),
            why: rule.why,
            reason: in_full(&error),
        }),
    }
}

/// Executing is allowed nowhere, as this program starts no other. Devices, pipes and
/// links can be made nowhere. The right to connect to sockets exists from version 9 on
/// (Linux 7.1); before, everybody has it.
fn rights(access: Access) -> BitFlags<AccessFs> {
    match access {
        Access::Read => make_bitflags!(AccessFs::{ReadFile | ReadDir}),
        Access::ReadWrite => make_bitflags!(AccessFs::{
            ReadFile | ReadDir | WriteFile | Truncate | MakeReg | MakeDir | MakeSock | RemoveFile
                | RemoveDir | ResolveUnix
        }),
        // Connecting tells a dead socket from a live one.
        Access::Listen => make_bitflags!(AccessFs::{MakeSock | RemoveFile | ResolveUnix}),
        Access::Connect => AccessFs::ResolveUnix.into(),
    }
}

fn outcome(status: RestrictionStatus) -> Outcome {
    match (status.landlock, status.ruleset) {
        (LandlockStatus::NotImplemented, _) => Outcome::Unsupported("landlock is not built into it"),
        (LandlockStatus::NotEnabled, _) => Outcome::Unsupported("landlock was not enabled at boot"),
        (LandlockStatus::Available { .. }, RulesetStatus::NotEnforced) => {
            Outcome::Failed("the kernel has landlock but enforces no rule".to_owned())
        }
        (
            LandlockStatus::Available {
                effective_abi,
                kernel_abi,
            },
            RulesetStatus::FullyEnforced | RulesetStatus::PartiallyEnforced,
        ) => Outcome::Enforced {
            abi: kernel_abi
                .and_then(|abi| abi.try_into().ok())
                .unwrap_or(effective_abi as u32),
            tcp: effective_abi >= ABI::V4,
        },
    }
}

fn is_missing(error: &PathFdError) -> bool {
    let cause = error.source().and_then(|cause| cause.downcast_ref::<io::Error>());
    cause.is_some_and(|cause| cause.kind() == io::ErrorKind::NotFound)
}

/// An error of this crate may or may not repeat its source: the innermost tells most.
fn in_full(error: &dyn Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    let (outer, inner) = (error.to_string(), innermost.to_string());
    if outer.contains(&inner) {
        outer
    } else {
        format!("{outer}: {inner}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_access_allows_to_execute_to_move_or_to_command_devices() {
        let never = AccessFs::Execute | AccessFs::Refer | AccessFs::IoctlDev;
        for access in [Access::Read, Access::ReadWrite, Access::Listen, Access::Connect] {
            assert!((rights(access) & never).is_empty(), "{access}");
            assert!(AccessFs::from_all(KNOWN).contains(rights(access)), "{access}");
        }
    }

    #[test]
    fn a_process_with_threads_is_told_so_and_left_alone() {
        // Tests run on threads, so this process has some; were it confined
        // nevertheless, the next line could not write to the temporary directory.
        let report = enter(&Plan::default());
        assert!(matches!(report.outcome, Outcome::Failed(_)), "{report}");
        tempfile::tempdir().expect("not confined");
    }
}
