//! Runs the very binary that ships: the static release build, which no test harness can be linked into.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::OnceLock;
use std::thread::sleep;
use std::time::{Duration, Instant};

const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Builds the release binary once, in a target folder of its own: cargo holds a lock on the usual one.
fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("release-build");
        let status = Command::new(env!("CARGO"))
            .args([
                "build",
                "--quiet",
                "--package",
                "larder-noop",
                "--release",
                "--target",
                TARGET,
            ])
            .env("CARGO_TARGET_DIR", &folder)
            .status()
            .unwrap();
        assert!(status.success(), "the release build failed");
        folder.join(TARGET).join("release/larder-noop")
    })
}

fn run(arguments: &[&str]) -> Output {
    Command::new(binary()).args(arguments).output().unwrap()
}

/// A command that has the rights of root for chroot and namespaces, whoever runs the tests.
fn as_root(arguments: &[&str]) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--map-root-user", "--mount", "--"]).args(arguments);
    command
}

fn wait_at_most(child: &mut Child, limit: Duration) -> Option<ExitStatus> {
    let start = Instant::now();
    while start.elapsed() < limit {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(status);
        }
        sleep(Duration::from_millis(10));
    }
    None
}

fn signal(name: &str, pid: &str) {
    assert!(
        Command::new("sh")
            .args(["-c", "kill -s $0 $1", name, pid])
            .status()
            .unwrap()
            .success()
    );
}

#[test]
fn is_small_and_needs_no_loader() {
    let content = fs::read(binary()).unwrap();
    assert!(content.len() < 8 * 1024, "{} bytes", content.len());
    // e_type of the ELF header: 2 is a program at fixed addresses, so neither loader nor relocation.
    assert_eq!(content[16..18], [2, 0]);
    assert!(!content.windows(3).any(|bytes| bytes == b"ld-"), "names a loader");
}

#[test]
fn without_arguments_exits_at_once() {
    let output = run(&[]);
    assert!(output.status.success());
    assert!(output.stdout.is_empty() && output.stderr.is_empty());
}

#[test]
fn installs_itself_over_whatever_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("noop");
    fs::write(&path, vec![b'x'; 100_000]).unwrap();
    let output = run(&["install", path.to_str().unwrap()]);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(fs::read(&path).unwrap(), fs::read(binary()).unwrap());
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o755);
    assert!(
        Command::new(&path).status().unwrap().success(),
        "the copy does not run"
    );
}

#[test]
fn installs_with_a_strict_umask_and_over_a_running_copy() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("noop");
    assert!(run(&["install", path.to_str().unwrap()]).status.success());
    let mut holding = Command::new(&path).arg("hold").spawn().unwrap();
    let status = Command::new("sh")
        .args(["-c", "umask 0777; exec \"$0\" install \"$1\""])
        .args([binary(), &path])
        .status()
        .unwrap();
    assert!(status.success());
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o755);
    signal("TERM", &holding.id().to_string());
    assert!(
        wait_at_most(&mut holding, Duration::from_secs(5))
            .unwrap()
            .success()
    );
}

#[test]
fn a_link_is_replaced_not_followed() {
    let folder = tempfile::tempdir().unwrap();
    let (path, elsewhere) = (folder.path().join("noop"), folder.path().join("elsewhere"));
    fs::write(&elsewhere, "kept").unwrap();
    std::os::unix::fs::symlink(&elsewhere, &path).unwrap();
    assert!(run(&["install", path.to_str().unwrap()]).status.success());
    assert_eq!(fs::read_to_string(&elsewhere).unwrap(), "kept");
    assert!(fs::symlink_metadata(&path).unwrap().is_file());
}

#[test]
fn says_why_it_cannot_install() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("missing/noop");
    let output = run(&["install", path.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(
        message,
        format!(
            "larder-noop: install {}: cannot create the file: error 2\n",
            path.display()
        )
    );
}

#[test]
fn leaves_nothing_behind_when_the_disk_is_full() {
    let folder = tempfile::tempdir().unwrap();
    let script = "mount -t tmpfs -o size=4k none \"$1\" && head -c 4096 /dev/zero >\"$1/full\" &&
        \"$0\" install \"$1/noop\"; echo $? && ls \"$1\"";
    let (program, at) = (binary().to_str().unwrap(), folder.path().to_str().unwrap());
    let output = as_root(&["sh", "-c", script, program, at]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "1\nfull\n");
    assert!(String::from_utf8_lossy(&output.stderr).ends_with("cannot copy: error 28\n"));
}

#[test]
fn refuses_other_arguments() {
    for arguments in [
        &["install"][..],
        &["install", "a", "b"],
        &["hold", "on"],
        &["sh", "-c", "true"],
        &[""],
    ] {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(
            String::from_utf8_lossy(&output.stderr).starts_with("usage: "),
            "{arguments:?}"
        );
    }
}

#[test]
fn runs_where_there_is_nothing_else() {
    let root = tempfile::tempdir().unwrap();
    fs::copy(binary(), root.path().join("noop")).unwrap();
    let at = root.path().to_str().unwrap();
    assert!(as_root(&["chroot", at, "/noop"]).status().unwrap().success());

    // An empty root has no /proc, so there is nothing to copy from: it says so.
    let output = as_root(&["chroot", at, "/noop", "install", "/copy"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("cannot open /proc/self/exe: error 2"));

    // With /proc, as in any container, it copies.
    fs::create_dir(root.path().join("proc")).unwrap();
    let script = "mount --rbind /proc \"$0/proc\" && exec chroot \"$0\" /noop install /copy";
    assert!(as_root(&["sh", "-c", script, at]).status().unwrap().success());
    assert_eq!(
        fs::metadata(root.path().join("copy")).unwrap().size(),
        fs::metadata(binary()).unwrap().size()
    );

    let mut holding = as_root(&["chroot", at, "/noop", "hold"]).spawn().unwrap();
    assert!(
        wait_at_most(&mut holding, Duration::from_millis(300)).is_none(),
        "did not hold"
    );
    signal("INT", &holding.id().to_string());
    assert!(
        wait_at_most(&mut holding, Duration::from_secs(5))
            .unwrap()
            .success()
    );
}

#[test]
fn holds_as_process_1_until_asked() {
    let mut outer = Command::new("unshare")
        .args(["--map-root-user", "--fork", "--pid", "--kill-child", "--"])
        .arg(binary())
        .arg("hold")
        .spawn()
        .unwrap();
    assert!(
        wait_at_most(&mut outer, Duration::from_millis(300)).is_none(),
        "did not hold"
    );
    let listed = Command::new("pgrep")
        .args(["-P", &outer.id().to_string()])
        .output()
        .unwrap();
    let first = String::from_utf8(listed.stdout).unwrap();
    signal("TERM", first.trim());
    assert!(
        wait_at_most(&mut outer, Duration::from_secs(5))
            .unwrap()
            .success()
    );
}

#[test]
fn reaps_children_that_it_inherits() {
    let mut holding = Command::new("sh")
        .args(["-c", "sleep 0.3 & echo $!; exec \"$0\" hold"])
        .arg(binary())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(holding.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    let child = Path::new("/proc").join(line.trim());
    assert!(child.exists());
    let start = Instant::now();
    while child.exists() {
        assert!(
            start.elapsed() < Duration::from_secs(5),
            "the child is still a zombie"
        );
        sleep(Duration::from_millis(20));
    }
    signal("TERM", &holding.id().to_string());
    assert!(
        wait_at_most(&mut holding, Duration::from_secs(5))
            .unwrap()
            .success()
    );
}
