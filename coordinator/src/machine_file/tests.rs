use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::CommandFactory as _;

use super::paths::{names, rebase};
use super::*;
use crate::cli::{Cli, Command as Verb, Line, LineError, RunArgs};

struct Dir(tempfile::TempDir);

impl Dir {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("directory"))
    }

    fn file(&self, text: &str) -> PathBuf {
        let path = self.0.path().join("m.toml");
        std::fs::write(&path, text).expect("written");
        path
    }

    fn line(&self, verb: &str, text: &str, rest: &[&str]) -> Result<Line, LineError> {
        let words = ["quintet".into(), verb.into(), "--machine".into()];
        let rest = rest.iter().map(|word| OsString::from(*word));
        Line::read(words.into_iter().chain([self.file(text).into()]).chain(rest))
    }

    fn run(&self, text: &str, rest: &[&str]) -> Box<RunArgs> {
        match self.line("run", text, rest).expect("read").cli.command {
            Some(Verb::Run(run)) => run,
            other => panic!("{other:?}"),
        }
    }

    fn error(&self, text: &str) -> String {
        let e = match self.line("run", text, &[]) {
            Err(LineError::File(e)) => e.to_string(),
            other => panic!("{text}: {other:?}"),
        };
        assert!(!e.contains('\n') && e.contains("m.toml\""), "{e}");
        e
    }
}

#[test]
fn options_are_taken_from_the_file_and_the_command_line_counts_more() {
    let d = Dir::new();
    let text = r#"
        name = "from-file"
        ram = "64M"
        cpus = 1
        exit-port = 0xf4
        headless = true
        no-reboot = true
        debugcon = ["0xe9:stdio", "0x402:file:log"]
        args = ["--not", "an option"]
    "#;
    let run = d.run(text, &[]);
    assert_eq!(
        (run.name.as_deref(), run.ram, run.exit_port),
        (Some("from-file"), 64 << 20, Some(0xF4))
    );
    assert!(run.headless && run.no_reboot && !run.software);
    assert_eq!(run.args, ["--not", "an option"]);
    assert_eq!(
        run.debugcon,
        [
            "0xe9:stdio".to_owned(),
            format!("0x402:file:{}", d.0.path().join("log").display())
        ]
    );

    let run = d.run(
        text,
        &[
            "--ram",
            "1G",
            "--debugcon=0xe9:stdio",
            "--headless=off",
            "--software",
            "--",
            "other",
        ],
    );
    assert_eq!((run.ram, run.name.as_deref()), (1 << 30, Some("from-file")));
    assert!(!run.headless && run.no_reboot && run.software);
    assert_eq!(
        (run.debugcon, run.args),
        (vec!["0xe9:stdio".to_owned()], vec!["other".to_owned()])
    );
}

#[test]
fn a_mistake_is_named_with_its_line() {
    let d = Dir::new();
    let e = d.error("ram = \"64M\"\n\nkernal = \"vmlinuz\"\n");
    assert!(
        e.ends_with("line 3: \"kernal\" is not known; did you mean \"kernel\"?"),
        "{e}"
    );
    let e = d.error("\nxyzzy = 1\n");
    assert!(e.contains("line 2") && e.contains("--help"), "{e}");
    for (text, wanted) in [
        ("ram = \"64M\"\nram = \"1G\"\n", "line 2: "),
        ("ram = \n", "line 1: "),
        ("ram = \"lots\"\n", "lots"),
        ("\nram = 1.5\n", "line 2: \"ram\" is a text or a number"),
        ("headless = \"yes\"\n", "\"headless\" is true or false"),
        ("disk = [1979-05-27]\n", "\"disk\" is a list of texts"),
        (
            "[disk]\nfile = \"x\"\n",
            "line 1: \"disk\" is a text, or a list of texts",
        ),
        ("accel = \"fast\"\n", "fast"),
        ("machine = \"other.toml\"\n", "cannot name another"),
        ("help = true\n", "\"help\" is not known"),
        ("stable-afte = \"1s\"\n", "line 1: \"stable-afte\" is not known"),
    ] {
        let e = d.error(text);
        assert!(e.contains(wanted), "{text}: {e}");
    }
}

#[test]
fn what_is_no_machine_file_is_refused() {
    let d = Dir::new();
    assert!(d.error("").contains("is empty"));
    std::fs::write(d.0.path().join("n.toml"), b"ram = \"1G\"\n\xFF\n").expect("written");
    let words = |path: &Path| {
        [
            "quintet".into(),
            "run".into(),
            "--machine".into(),
            path.as_os_str().to_owned(),
        ]
    };
    for (name, wanted) in [
        ("n.toml", "line 2: this is not UTF-8"),
        ("none.toml", "no such file"),
    ] {
        let e = Line::read(words(&d.0.path().join(name)))
            .expect_err("refused")
            .to_string();
        assert!(e.contains(wanted), "{e}");
    }
    let large = d.file(&"#".repeat(MOST as usize + 1));
    assert!(
        Line::read(words(&large))
            .expect_err("refused")
            .to_string()
            .contains("no machine file")
    );
}

#[test]
fn file_names_are_relative_to_the_file() {
    let d = Dir::new();
    let at = |name: &str| d.0.path().join(name).display().to_string();
    let run = d.run(
        "kernel = \"vmlinuz\"\ninitrd = \"a x=1,/b y\"\ndisk = \"odd,,name,ro=on\"\nserial = \"file:s.log\"\naudio = \"wav:w\"\n",
        &[],
    );
    assert_eq!(run.kernel, [PathBuf::from(at("vmlinuz"))]);
    assert_eq!(run.initrd, Some(format!("{},/b y", at("a x=1"))));
    assert_eq!(run.disk, [format!("{},ro=on", at("odd,,name"))]);
    assert_eq!(
        (run.serial, run.audio),
        (Some(format!("file:{}", at("s.log"))), format!("wav:{}", at("w")))
    );

    let m = Path::new("/m");
    for (option, value, wanted) in [
        ("disk", "d,overlay=o", "/m/d,overlay=/m/o"),
        ("device", "vga,romfile=r", "vga,romfile=/m/r"),
        ("device", "AC97", "AC97"),
        ("serial", "stdio", "stdio"),
        ("debugcon", "0xe9:file:l", "0xe9:file:/m/l"),
        ("dir", "here", "/m/here::here"),
        ("dir", "here::there", "/m/here::there"),
        ("cdrom", "/abs", "/abs"),
        ("cdrom", "none", "none"),
        ("floppy", "./none", "/m/./none"),
        ("kernel", "none", "/m/none"),
        ("append", "root=a", "root=a"),
        ("kernel", "", ""),
    ] {
        assert_eq!(rebase(option, value, m), wanted, "{option}");
    }
}

#[test]
fn of_every_option_it_is_known_whether_it_names_files() {
    let cli = Cli::command();
    for verb in ["run", "config", "soak"] {
        let options = cli.find_subcommand(verb).expect("subcommand");
        for name in options.get_arguments().filter_map(name_of) {
            assert!(
                [OPTION, ARGS].contains(&name) || names(name).is_some(),
                "--{name}: add it to paths.rs"
            );
        }
    }
}

#[test]
fn what_config_shows_is_a_machine_file_that_means_the_same() {
    let d = Dir::new();
    let text = r#"
        name = "n"
        ram = "64M"
        accel = "interp"
        append = "say \"hello\" \\ tab\t"
        initrd = "i"
        kernel = "k"
        disk = ["d,,e,ro=on", "f"]
        headless = true
        time-limit = "90s"
        args = ["a", "--b"]
    "#;
    let shown = d
        .line("config", text, &["--no-reboot", "--json=off"])
        .expect("read")
        .described
        .machine_file();
    assert!(
        shown.contains("\nno-reboot = true\n") && !shown.contains("json"),
        "{shown}"
    );
    assert!(shown.contains("\ncpu = \"max\"\n"), "the defaults too: {shown}");
    let again = d
        .line("config", &shown, &[])
        .expect("read")
        .described
        .machine_file();
    assert_eq!(shown, again);

    let (a, b) = (d.run(text, &["--no-reboot"]), d.run(&shown, &[]));
    assert_eq!(
        format!("{a:?}").replace(&format!("{:?}", a.machine), ""),
        format!("{b:?}").replace(&format!("{:?}", b.machine), "")
    );
}
