//! Files and folders.

use super::super::load::load;
use super::SMALL;
use std::fs;
use std::path::Path;
use tempfile::TempDir;

const EXTRA: &str = r#"schema = 1
[[service]]
name = "api"
frontends = ["192.0.2.11:80/tcp"]
version = [{ name = "v1", weight = 1, instances = ["10.0.1.11:8080"] }]
"#;

fn folder(files: &[(&str, &[u8])]) -> TempDir {
    let folder = TempDir::new().unwrap();
    for (name, content) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    folder
}

/// Services of a good configuration, or the errors with the folder's path cut off.
fn outcome(root: &TempDir, path: Option<&Path>, default: &Path) -> Result<Vec<String>, String> {
    match load(path, default) {
        Ok(config) => Ok(config.services().iter().map(|s| s.name().to_string()).collect()),
        Err(errors) => Err(errors.to_string().replace(&format!("{}/", root.path().display()), "")),
    }
}

#[test]
fn a_file_or_a_folder() {
    let root = folder(&[
        ("b.toml", SMALL.as_bytes()),
        ("a.toml", EXTRA.as_bytes()),
        ("notes.txt", b"?"),
        (".#a.toml", b"?"),
        ("empty/x", b""),
    ]);
    let nowhere = Path::new("/nonexistent");
    let at = |name: &str| outcome(&root, Some(&root.path().join(name)), nowhere);
    assert_eq!(at("b.toml").unwrap(), ["web"]);
    assert_eq!(at("").unwrap(), ["api", "web"]);
    assert_eq!(
        at("a.toml").unwrap_err(),
        "a.toml:1: daemon: missing ([daemon] with interfaces = [\"eth0\"])"
    );
    assert_eq!(at("empty").unwrap_err(), "empty: there is no *.toml in this folder");
    assert!(at("c.toml").unwrap_err().starts_with("c.toml: cannot be read: No such file"));
}

#[test]
fn the_default_pair() {
    let run = |files: &[(&str, &[u8])]| {
        let root = folder(files);
        outcome(&root, None, root.path())
    };
    let (main, part) = (("release.toml", SMALL.as_bytes()), ("conf.d/api.toml", EXTRA.as_bytes()));
    assert_eq!(run(&[main]).unwrap(), ["web"]);
    assert_eq!(run(&[main, part]).unwrap(), ["web", "api"]);
    assert_eq!(run(&[("conf.d/web.toml", SMALL.as_bytes()), part]).unwrap(), ["api", "web"]);
    assert!(run(&[]).unwrap_err().starts_with("release.toml: cannot be read: No such file"));
    assert_eq!(
        run(&[main, ("conf.d/b.toml", b"schema = 1\n\n[daemon]\ninterfaces = [\"eth1\"]\n")])
            .unwrap_err(),
        "conf.d/b.toml:3: daemon: stands in two files, already at release.toml:2 (keep one of them)"
    );
}

#[test]
fn clashes_between_files_and_bad_files() {
    let clash = EXTRA.replace("10.0.1.11", "10.0.0.11");
    let root = folder(&[
        ("a.toml", SMALL.as_bytes()),
        ("b.toml", clash.as_bytes()),
        ("c.toml", b"schema = 1\n# \xff\n"),
        ("d.toml/x", b""),
    ]);
    let errors = outcome(&root, Some(root.path()), Path::new("/nonexistent")).unwrap_err();
    let errors: Vec<&str> = errors.lines().collect();
    assert_eq!(errors.len(), 3, "{errors:?}");
    assert!(errors[0].starts_with("d.toml: cannot be read: "));
    assert!(errors[1].starts_with(
        "b.toml:5: service[api].version[v1].instances[0]: instance 10.0.0.11:8080 is there already: \
         service[web].version[v1].instances[0] at a.toml:10"
    ));
    assert_eq!(errors[2], "c.toml:2: not UTF-8");
}
