//! What `cargo xtask dist` makes, unpacked and used as a user would.

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use support::folder::Folder;
use support::{Setup, variable};

/// A new folder in that of a test.
fn inner(folder: &Folder, name: &str) -> PathBuf {
    let path = folder.file(name);
    fs::create_dir_all(&path).expect("a folder");
    path
}

/// The archive and the package made of the programs under test.
struct Packages {
    archive: PathBuf,
    deb: PathBuf,
}

/// `None` as [`variable`].
fn dist(out: &Path) -> Option<Packages> {
    let binaries = variable("QUINTET_BIN_DIR")?;
    let made = Command::new(env!("CARGO"))
        .args(["run", "--quiet", "--package", "xtask", "--", "dist", "--binaries"])
        .arg(binaries)
        .arg("--out")
        .arg(out)
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .output()
        .expect("cargo");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let text = String::from_utf8(made.stdout).expect("paths");
    let paths: Vec<&str> = text.lines().collect();
    let [archive, deb] = paths.as_slice() else {
        panic!("two packages are announced: {text}")
    };
    Some(Packages {
        archive: archive.into(),
        deb: deb.into(),
    })
}

fn succeed(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Whether a program is there; without it, the test is skipped loudly, and fails where `CI` is set.
fn has(program: &str, package: &str) -> bool {
    let there = Command::new(program).arg("--version").output().is_ok();
    if !there {
        assert!(
            std::env::var_os("CI").is_none_or(|v| v != "true"),
            "{program} is missing"
        );
        eprintln!("SKIPPED: {program} is missing; type: sudo apt-get install {package}");
    }
    there
}

/// The demo guest runs, and ends when it is asked to.
fn demo_runs(quintet: PathBuf, test: &str) {
    let mut machine = Setup::headless(quintet).start(test);
    machine.hear("show: running");
    machine.say("hello");
    machine.hear("hello");
    machine.say("q");
    machine.hear(" frames");
    let (status, output) = machine.end();
    assert_eq!(status, Some(0), "{output}");
}

/// The files below a prefix are all there, none beside them, and do what they are for.
fn judge(prefix: &Path, zsh: &str) {
    let names = |dir: &str| {
        let entries = fs::read_dir(prefix.join(dir)).unwrap_or_else(|e| panic!("{dir}: {e}"));
        let mut names: Vec<String> = entries
            .map(|e| e.expect("entry").file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    };
    assert_eq!(names("bin"), ["quintet"]);
    let workers = [
        "quintet-audio-worker",
        "quintet-cpu-worker",
        "quintet-gpu-worker",
        "quintet-io-worker",
        "quintet-wasm-compile",
    ];
    assert_eq!(names("libexec/quintet"), workers);
    let mode = |file: &str| fs::metadata(prefix.join(file)).expect(file).permissions().mode() & 0o777;
    assert_eq!(mode("bin/quintet"), 0o755);
    assert_eq!(mode("share/doc/quintet/README.md"), 0o644);
    let quintet = prefix.join("bin/quintet");
    let report = succeed(Command::new(&quintet).args(["doctor", "--json"]));
    assert!(report.contains("\"headless\":true"), "{report}");

    let desktop = fs::read_to_string(prefix.join("share/applications/quintet.desktop")).expect("an entry");
    for line in [
        "[Desktop Entry]",
        "Type=Application",
        "Exec=quintet",
        "Icon=quintet",
    ] {
        assert!(desktop.lines().any(|l| l == line), "{line}: {desktop}");
    }
    for size in ["32x32", "256x256"] {
        let icon = prefix.join(format!("share/icons/hicolor/{size}/apps/quintet.png"));
        assert!(fs::read(icon).expect("an icon").starts_with(b"\x89PNG"));
    }
    let svg = prefix.join("share/icons/hicolor/scalable/apps/quintet.svg");
    assert!(fs::read_to_string(svg).expect("an icon").starts_with("<svg "));

    let pages = names("share/man/man1");
    for page in ["quintet.1.gz", "quintet-run.1.gz", "quintet-doctor.1.gz"] {
        assert!(pages.iter().any(|p| p == page), "{pages:?}");
    }
    let bash = prefix.join("share/bash-completion/completions/quintet");
    succeed(Command::new("bash").arg("-n").arg(&bash));
    let completes = format!(
        "source '{}'; COMP_WORDS=(quintet run --headl); COMP_CWORD=2; _quintet quintet --headl run; echo \"${{COMPREPLY[@]}}\"",
        bash.display()
    );
    assert_eq!(
        succeed(Command::new("bash").args(["-c", &completes])).trim(),
        "--headless"
    );
    assert!(
        fs::read_to_string(prefix.join(zsh))
            .expect("for zsh")
            .starts_with("#compdef quintet")
    );
    assert!(
        prefix
            .join("share/fish/vendor_completions.d/quintet.fish")
            .exists()
    );
    licences(prefix);
}

/// The list has what is linked, with its texts, and nothing that only made it.
fn licences(prefix: &Path) {
    let list = succeed(
        Command::new("gzip")
            .arg("-dc")
            .arg(prefix.join("share/doc/quintet/licences.txt.gz")),
    );
    let listed = |name: &str| list.lines().any(|line| line.starts_with(&format!("{name} ")));
    for linked in ["wasmtime", "cranelift-codegen", "winit", "landlock", "std"] {
        assert!(listed(linked), "{linked} is linked");
    }
    for other in [
        "spdx",
        "proptest",
        "serde_derive",
        "quintet-protocol",
        "windows-sys",
    ] {
        assert!(!listed(other), "{other} is not in the programs");
    }
    let crates = list
        .lines()
        .filter(|line| line.contains(": ") && line.contains(" ["));
    // Each has a text, or a licence that asks for none.
    for line in crates.filter(|line| line.contains("[]")) {
        assert!(line.contains("spdx.org/licenses/"), "{line}");
    }
    assert!(list.contains("Permission is hereby granted"));
    let copyright = fs::read_to_string(prefix.join("share/doc/quintet/copyright")).expect("a copyright");
    assert!(
        copyright.starts_with("Format: https://www.debian.org/"),
        "{copyright}"
    );
}

#[test]
fn the_archive_runs_the_demo_guest_where_it_was_unpacked() {
    let folder = Folder::new("package-archive");
    let Some(packages) = dist(&inner(&folder, "out")) else {
        return;
    };
    let root = inner(&folder, "root");
    succeed(
        Command::new("tar")
            .args(["--strip-components=1", "-xzf"])
            .arg(&packages.archive)
            .arg("-C")
            .arg(&root),
    );
    judge(&root, "share/zsh/site-functions/_quintet");
    demo_runs(root.join("bin/quintet"), "archive");
    // Once more, from the same commit: the same bytes.
    let again = dist(&inner(&folder, "again")).expect("it worked before");
    let same = |a: &Path, b: &Path| fs::read(a).expect("a package") == fs::read(b).expect("a package");
    assert!(same(&packages.archive, &again.archive), "archives differ");
    assert!(same(&packages.deb, &again.deb), "packages differ");
}

#[test]
fn the_package_runs_the_demo_guest_where_it_was_unpacked() {
    let folder = Folder::new("package-deb");
    if !has("dpkg-deb", "dpkg") {
        return;
    }
    let Some(packages) = dist(&inner(&folder, "out")) else {
        return;
    };
    let field = |name: &str| succeed(Command::new("dpkg-deb").arg("-f").arg(&packages.deb).arg(name));
    assert_eq!(field("Package").trim(), "quintet");
    let depends = field("Depends");
    assert!(
        depends.contains("libc6 (>= 2.") && depends.contains("libgcc-s1"),
        "{depends}"
    );
    let root = inner(&folder, "root");
    succeed(Command::new("dpkg-deb").arg("-x").arg(&packages.deb).arg(&root));
    let control = inner(&folder, "control");
    succeed(
        Command::new("dpkg-deb")
            .arg("-e")
            .arg(&packages.deb)
            .arg(&control),
    );
    succeed(
        Command::new("md5sum")
            .args(["--quiet", "-c"])
            .arg(control.join("md5sums"))
            .current_dir(&root),
    );
    judge(&root.join("usr"), "share/zsh/vendor-completions/_quintet");
    demo_runs(root.join("usr/bin/quintet"), "deb");
}

/// Debian as its installer begins it, without Rust and without a compiler.
#[test]
#[ignore = "downloads a Debian, as root: cargo xtask test --long"]
fn the_package_is_installed_on_a_clean_debian_and_runs_the_demo_guest() {
    let folder = Folder::new("package-debian");
    if !has("debootstrap", "debootstrap") || !has("unshare", "util-linux") {
        return;
    }
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: only root makes a Debian; run cargo xtask test --long as root");
        return;
    }
    let Some(packages) = dist(&inner(&folder, "out")) else {
        return;
    };
    let root = inner(&folder, "root");
    succeed(
        Command::new("debootstrap")
            // What the package depends on beyond that; dpkg fetches nothing.
            .args(["--variant=minbase", "--include=libasound2", "bookworm"])
            .arg(&root)
            .arg("http://deb.debian.org/debian"),
    );
    fs::copy(&packages.deb, root.join("root/quintet.deb")).expect("a copy");
    let chroot = |words: &[&str]| succeed(Command::new("chroot").arg(&root).args(words));
    chroot(&["dpkg", "-i", "/root/quintet.deb"]);
    chroot(&["dpkg", "--verify", "quintet"]);
    chroot(&["sh", "-c", "! command -v rustc && ! command -v cc"]);
    // /proc is there for as long as the machine runs.
    let wrapper = folder.file("quintet");
    let script = format!(
        "#!/bin/sh\nexec unshare --mount sh -c 'mount -t proc proc \"$0/proc\" && exec chroot \"$0\" quintet \"$@\"' '{}' \"$@\"\n",
        root.display()
    );
    fs::write(&wrapper, script).expect("a script");
    fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755)).expect("a mode");
    demo_runs(wrapper, "debian");
    chroot(&["dpkg", "-r", "quintet"]);
    assert!(!root.join("usr/libexec/quintet").exists());
}
