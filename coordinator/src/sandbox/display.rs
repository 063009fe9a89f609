//! Whether a window needs the host's network.
//!
//! An X server listens on an abstract address, which belongs to a network namespace, and on a socket file, which does not. Xlib tries
//! the first one first, finds nobody there in an empty namespace, and takes the second. So the host's network is kept only where there is
//! no such file.

use std::path::{Path, PathBuf};

use quintet_protocol::handshake::Network;

/// Where X servers have their socket files.
const X_SOCKETS: &str = "/tmp/.X11-unix";

/// The network of a gpu-worker with a window, by the environment.
pub(super) fn network() -> Network {
    needed(
        &|name| std::env::var(name).ok().filter(|value| !value.is_empty()),
        &Path::exists,
    )
}

fn needed(variable: &dyn Fn(&str) -> Option<String>, exists: &dyn Fn(&Path) -> bool) -> Network {
    if variable("WAYLAND_SOCKET").is_some() {
        // It is open already.
        return Network::Leave;
    }
    if let Some(wayland) = variable("WAYLAND_DISPLAY") {
        let runtime = variable("XDG_RUNTIME_DIR").map(PathBuf::from).unwrap_or_default();
        if exists(&runtime.join(wayland)) {
            return Network::Leave;
        }
    }
    let Some(display) = variable("DISPLAY") else {
        return Network::Leave;
    };
    match number(&display) {
        Some(number) => {
            let file = Path::new(X_SOCKETS).join(format!("X{number}"));
            if exists(&file) {
                Network::Leave
            } else {
                Network::Host(format!("kept, because the X server has no {}", file.display()))
            }
        }
        None => Network::Host(format!("kept, because the display {display} is elsewhere")),
    }
}

/// The number of a display of this host, as in `:0` or `unix:1.0` (X(7)).
fn number(display: &str) -> Option<u32> {
    let (host, rest) = display.rsplit_once(':')?;
    let number = rest.split('.').next()?.parse().ok()?;
    matches!(host, "" | "unix").then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(variables: &[(&str, &str)], file: &str) -> Network {
        let variable = |name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        needed(&variable, &|path| path == Path::new(file))
    }

    #[test]
    fn a_display_with_a_socket_file_needs_no_network() {
        let x = "/tmp/.X11-unix/X7";
        for display in [":7", ":7.0", "unix:7"] {
            assert_eq!(network(&[("DISPLAY", display)], x), Network::Leave, "{display}");
        }
        let wayland = [
            ("WAYLAND_DISPLAY", "wayland-0"),
            ("XDG_RUNTIME_DIR", "/run/user/1"),
        ];
        assert_eq!(network(&wayland, "/run/user/1/wayland-0"), Network::Leave);
        assert_eq!(network(&[("WAYLAND_SOCKET", "9")], ""), Network::Leave);
        assert_eq!(network(&[], ""), Network::Leave);
    }

    #[test]
    fn one_without_keeps_it_and_says_why() {
        let kept = |display, why| match network(&[("DISPLAY", display)], "") {
            Network::Host(reason) => assert!(reason.contains(why), "{reason}"),
            other => panic!("{display}: {other:?}"),
        };
        kept(":7", "has no /tmp/.X11-unix/X7");
        kept("localhost:10.0", "localhost:10.0 is elsewhere");
        kept("nonsense", "elsewhere");
    }
}
