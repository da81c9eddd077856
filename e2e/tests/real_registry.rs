//! The image helpers against the registry that the local cluster runs: a process on a loopback port.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs::File;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use larder_e2e::images::{Destination, Error, ImageSpec, Pushed, Registry, RegistryTarget, read_image};

const USER: &str = "larder";
const PASSWORD: &str = "secret";

/// How the registry is to be reached.
#[derive(Clone, Copy, PartialEq)]
enum Guard {
    Open,
    Password,
    Tls,
}

/// A registry process with a folder of its own; both go when this does.
struct Process {
    child: Child,
    folder: tempfile::TempDir,
    target: RegistryTarget,
}

impl Process {
    fn start(guard: Guard) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let mut target = RegistryTarget::open(&format!("http://127.0.0.1:{port}"));
        let mut extra = String::new();
        let file = |name: &str| folder.path().join(name);
        if guard == Guard::Password {
            std::fs::write(
                file("htpasswd"),
                format!("{USER}:{}\n", bcrypt::hash(PASSWORD, 4).unwrap()),
            )
            .unwrap();
            extra = format!(
                "auth:\n  htpasswd:\n    realm: test\n    path: {}\n",
                file("htpasswd").display()
            );
            target.credentials = Some((USER.to_owned(), PASSWORD.to_owned()));
        }
        let mut tls = String::new();
        if guard == Guard::Tls {
            let certified = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
            std::fs::write(file("cert.pem"), certified.cert.pem()).unwrap();
            std::fs::write(file("key.pem"), certified.signing_key.serialize_pem()).unwrap();
            tls = format!(
                "  tls:\n    certificate: {}\n    key: {}\n",
                file("cert.pem").display(),
                file("key.pem").display()
            );
            target.base = format!("https://127.0.0.1:{port}");
            target.ca_file = Some(file("cert.pem"));
        }
        let config = format!(
            "version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {}\n  delete:\n    enabled: true\n\
             http:\n  addr: 127.0.0.1:{port}\n{tls}{extra}",
            file("data").display()
        );
        std::fs::write(file("config.yml"), config).unwrap();
        let log = File::create(file("log")).unwrap();
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(file("config.yml"))
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .expect("docker-registry, which e2e/setup.sh installs");
        let process = Self {
            child,
            folder,
            target,
        };
        process.wait_for(port);
        process
    }

    fn wait_for(&self, port: u16) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            let log = || std::fs::read_to_string(self.folder.path().join("log")).unwrap();
            assert!(
                Instant::now() < deadline,
                "the registry does not listen: {}",
                log()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn client(&self) -> Registry {
        Registry::connect(&self.target).unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

#[tokio::test]
async fn an_index_is_pushed_whole_and_read_by_others() {
    let process = Process::start(Guard::Open);
    let registry = process.client();
    let spec = ImageSpec::new(1)
        .layers(3, 100_000)
        .architectures(&["amd64", "arm64"]);
    let pushed = spec.push(&registry, "library/nginx", "1.27").await.unwrap();

    assert_eq!(pushed.platforms.len(), 2);
    assert_eq!(
        registry.digest("library/nginx", "1.27").await.unwrap(),
        Some(pushed.digest.clone())
    );
    for (platform, digest) in &pushed.platforms {
        let found = registry.digest("library/nginx", digest).await.unwrap();
        assert_eq!(found.as_ref(), Some(digest), "{platform}");
    }
    // An independent client takes all of it, layers included, and finds the digests in order.
    let copy = process.folder.path().join("copy");
    let source = format!(
        "docker://{}/library/nginx:1.27",
        process.target.base.trim_start_matches("http://")
    );
    let status = Command::new("skopeo")
        .args([
            "copy",
            "--quiet",
            "--all",
            "--insecure-policy",
            "--src-tls-verify=false",
        ])
        .args([&source, &format!("oci:{}", copy.display())])
        .status()
        .unwrap();
    assert!(status.success());
    assert_eq!(read_image(&copy).unwrap().digest(), pushed.digest);
}

#[tokio::test]
async fn a_push_moves_a_tag_and_the_old_image_stays_under_its_digest() {
    let process = Process::start(Guard::Open);
    let registry = process.client();
    let old = ImageSpec::new(1)
        .layers(1, 10)
        .push(&registry, "app", "1")
        .await
        .unwrap();
    let new = ImageSpec::new(2)
        .layers(1, 10)
        .push(&registry, "app", "1")
        .await
        .unwrap();
    assert_eq!(registry.digest("app", "1").await.unwrap(), Some(new.digest));
    assert_eq!(
        registry.digest("app", &old.digest).await.unwrap(),
        Some(old.digest.clone())
    );

    assert_eq!(registry.retag("app", &old.digest, "1").await.unwrap(), old.digest);
    assert_eq!(registry.digest("app", "1").await.unwrap(), Some(old.digest));
}

#[tokio::test]
async fn a_deleted_image_is_gone_and_may_be_pushed_again() {
    let process = Process::start(Guard::Open);
    let registry = process.client();
    let spec = ImageSpec::new(1).layers(1, 10);
    let pushed = spec.push(&registry, "app", "1").await.unwrap();
    assert!(registry.delete("app", "1").await.unwrap());
    assert_eq!(registry.digest("app", "1").await.unwrap(), None);
    assert_eq!(registry.digest("app", &pushed.digest).await.unwrap(), None);
    assert!(!registry.delete("app", "1").await.unwrap());

    spec.push(&registry, "app", "1").await.unwrap();
    assert_eq!(registry.digest("app", "1").await.unwrap(), Some(pushed.digest));
}

#[tokio::test]
async fn a_registry_with_a_password_takes_the_right_one_only() {
    let process = Process::start(Guard::Password);
    let spec = ImageSpec::new(1).layers(1, 10);
    spec.push(&process.client(), "app", "1").await.unwrap();

    for credentials in [None, Some((USER.to_owned(), "wrong".to_owned()))] {
        let target = RegistryTarget {
            credentials,
            ..process.target.clone()
        };
        let error = spec
            .push(&Registry::connect(&target).unwrap(), "app", "2")
            .await
            .unwrap_err();
        assert!(matches!(error, Error::Refused { status: 401, .. }), "{error}");
    }
}

#[tokio::test]
async fn a_registry_with_tls_is_trusted_by_its_authority_only() {
    let process = Process::start(Guard::Tls);
    let spec = ImageSpec::new(1).layers(1, 10);
    spec.push(&process.client(), "app", "1").await.unwrap();

    let target = RegistryTarget {
        ca_file: None,
        ..process.target.clone()
    };
    let error = spec
        .push(&Registry::connect(&target).unwrap(), "app", "2")
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Request { .. }), "{error}");
}

#[tokio::test]
async fn folders_and_archives_go_under_their_name_or_another() {
    let process = Process::start(Guard::Open);
    let registry = process.client();
    let image = ImageSpec::new(1).layers(2, 300_000).build().unwrap();
    let (folder, archive) = (
        process.folder.path().join("layout"),
        process.folder.path().join("image.tar"),
    );
    image.write_layout(&folder, Some("nginx:1.27")).unwrap();
    image.write_archive(&archive, None).unwrap();

    let pushed = push_file(&registry, &folder, None).await;
    assert_eq!(
        (pushed.repository.as_str(), pushed.tag.as_str()),
        ("library/nginx", "1.27")
    );
    assert_eq!(pushed.digest, image.digest());
    let pushed = push_file(&registry, &archive, Some("ghcr.io/team/app:2")).await;
    assert_eq!(
        registry.digest("team/app", "2").await.unwrap(),
        Some(pushed.digest)
    );
}

#[tokio::test]
async fn a_docker_archive_goes_under_the_name_in_it() {
    let process = Process::start(Guard::Open);
    let registry = process.client();
    let folder = process.folder.path().join("layout");
    ImageSpec::new(1)
        .layers(1, 1000)
        .build()
        .unwrap()
        .write_layout(&folder, None)
        .unwrap();
    let archive = process.folder.path().join("docker.tar");
    skopeo_copy(
        &format!("oci:{}", folder.display()),
        &archive,
        "registry.example/team/app:3",
    );

    let pushed = push_file(&registry, &archive, None).await;
    assert_eq!(
        (pushed.repository.as_str(), pushed.tag.as_str()),
        ("team/app", "3")
    );
    assert_eq!(
        registry.digest("team/app", "3").await.unwrap(),
        Some(pushed.digest)
    );
}

/// Pushes a folder or an archive under a reference, or under the name that it carries.
async fn push_file(registry: &Registry, path: &Path, reference: Option<&str>) -> Pushed {
    let image = read_image(path).unwrap();
    let destination = Destination::parse(reference.or(image.name()).unwrap()).unwrap();
    registry
        .push(&image, &destination.repository, &destination.tag)
        .await
        .unwrap()
}

fn skopeo_copy(source: &str, archive: &Path, name: &str) {
    let destination = format!("docker-archive:{}:{name}", archive.display());
    let status = Command::new("skopeo")
        .args(["copy", "--quiet", "--insecure-policy", source, &destination])
        .status()
        .unwrap();
    assert!(status.success());
}
