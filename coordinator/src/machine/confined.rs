//! What of the confinement could not be applied: told once at the start, in one line, and kept for `quintet status`.

use quintet_protocol::handshake::Role;

/// What is missing, by process. By default nothing is.
#[derive(Debug, Default)]
pub(super) struct Confined {
    /// In the order of [`Role::index`].
    missing: [Vec<String>; 5],
    /// Who has said what it lacks. A worker may be seen to be ready before what it said has arrived.
    heard: [bool; 5],
    /// What the host's administrator has chosen, and so is news to nobody.
    note: Option<String>,
    /// The user knows.
    told: bool,
}

impl Confined {
    /// Keeps something for `quintet status` that is not worth a line at each start.
    pub(super) fn note(&mut self, text: String) {
        tracing::info!("{text}");
        self.note = Some(text);
    }

    /// What could not be applied to the coordinator, with what was noted.
    pub(super) fn of_coordinator(&self) -> Vec<String> {
        let missing = self.of(Role::Coordinator).iter().chain(&self.note);
        missing.cloned().collect()
    }

    /// What could not be applied to a process.
    pub(super) fn of(&self, role: Role) -> &[String] {
        &self.missing[role.index()]
    }

    /// Takes note of what a process says.
    pub(super) fn learn(&mut self, role: Role, missing: Vec<String>) {
        // A successor that lacks more than the one before is worth another line.
        self.told &= self.of(role) == missing;
        self.missing[role.index()] = missing;
        self.heard[role.index()] = true;
    }

    /// The line for the user, when the machine runs: a machine that cannot start says why and nothing else. `None` when nothing is missing, or
    /// when all of it was told or somebody has not spoken yet.
    pub(super) fn tell(&mut self) -> Option<String> {
        if self.heard.contains(&false) || std::mem::replace(&mut self.told, true) {
            return None;
        }
        self.line()
    }

    /// Everything that is missing, each thing once with those whom it concerns.
    fn line(&self) -> Option<String> {
        let roles = || [Role::Coordinator].into_iter().chain(Role::WORKERS);
        let mut things: Vec<(&str, Vec<Role>)> = Vec::new();
        for role in roles() {
            for thing in self.of(role) {
                match things.iter_mut().find(|(known, _)| known == thing) {
                    Some((_, concerned)) => concerned.push(role),
                    None => things.push((thing, vec![role])),
                }
            }
        }
        let describe = |(thing, concerned): &(&str, Vec<Role>)| {
            let who = if concerned.len() == roles().count() {
                "all".to_owned()
            } else if *concerned == Role::WORKERS {
                "all workers".to_owned()
            } else {
                let names: Vec<_> = concerned.iter().map(Role::to_string).collect();
                names.join(", ")
            };
            format!("{thing} [{who}]")
        };
        let things: Vec<_> = things.iter().map(describe).collect();
        (!things.is_empty()).then(|| format!("not fully confined: {}", things.join("; ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &[&str]) -> Vec<String> {
        text.iter().map(|t| (*t).to_owned()).collect()
    }

    #[test]
    fn what_is_missing_is_told_once_in_one_line() {
        let mut confined = Confined::default();
        confined.learn(Role::Coordinator, said(&["Landlock: none"]));
        for role in [Role::Io, Role::Cpu, Role::Audio] {
            confined.learn(role, said(&["Landlock: none", "network"]));
        }
        assert_eq!(confined.tell(), None, "one has not spoken");
        confined.learn(Role::Gpu, said(&["Landlock: none", "network", "seccomp"]));
        assert_eq!(
            confined.tell().as_deref(),
            Some("not fully confined: Landlock: none [all]; network [all workers]; seccomp [gpu-worker]")
        );
        assert_eq!(confined.tell(), None);
        // A successor that lacks the same is no news.
        confined.learn(Role::Io, said(&["Landlock: none", "network"]));
        assert_eq!(confined.tell(), None);
        confined.learn(Role::Io, said(&["limits"]));
        assert!(confined.tell().is_some_and(|l| l.contains("limits [io-worker]")));
        assert_eq!(confined.of(Role::Io), said(&["limits"]));
    }

    #[test]
    fn nothing_is_said_when_nothing_is_missing() {
        let mut confined = Confined::default();
        confined.note("Yama: off".to_owned());
        confined.learn(Role::Coordinator, Vec::new());
        for role in Role::WORKERS {
            confined.learn(role, Vec::new());
        }
        assert_eq!(confined.tell(), None);
        assert_eq!(confined.of_coordinator(), ["Yama: off"]);
    }
}
