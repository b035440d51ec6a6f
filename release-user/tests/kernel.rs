//! Loading onto pinned maps, the clock, and adoption of what is pinned. Needs root.

use std::path::{Path, PathBuf};

use release_user::kernel::{Capacities, Clock, KernelError, Maps, Programs, load};

/// A folder of pins of its own, removed at the end.
struct Pins(PathBuf);

impl Pins {
    fn new(name: &str) -> std::io::Result<Self> {
        let path = Path::new("/sys/fs/bpf").join(format!("rt-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Pins {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn loads_and_is_adopted() {
    let pins = Pins::new("load").unwrap();
    let first = load(&pins.0, Capacities::small(4096, 1024), 0).unwrap();
    assert!(first.created);
    let mut maps = Maps::open(&pins.0).unwrap();
    let mut meta = maps.meta().unwrap();
    meta.abi = release_common::abi::ABI_VERSION;
    meta.hz = 77;
    maps.set_meta(meta).unwrap();
    first.verified.iter().for_each(|program| println!("{program}"));
    // The oldest kernel's verifier follows more paths than this one's, and gives up at a million.
    let most = first.verified.iter().max_by_key(|program| program.instructions).unwrap();
    assert!(most.instructions < 300_000, "{}: {}", most.name, most.instructions);
    drop((first, maps));

    let second = load(&pins.0, Capacities::small(4096, 1024), 0).unwrap();
    assert!(!second.created);
    assert_eq!(Maps::open(&pins.0).unwrap().meta().unwrap().hz, 77);

    let programs = Programs::open(&pins.0).unwrap();
    let clock = Clock::of_kernel().unwrap();
    let (start, before) = (std::time::Instant::now(), programs.jiffies().unwrap());
    std::thread::sleep(std::time::Duration::from_secs(1));
    let measured = (programs.jiffies().unwrap() - before) as f64 / start.elapsed().as_secs_f64();
    assert!((measured / f64::from(clock.hz) - 1.0).abs() < 0.1, "{measured} {}", clock.hz);
    let frame = [0u8; 60];
    let run = programs.run_packet(&frame, None).unwrap();
    assert_eq!((run.action, run.frame.as_slice()), (2, frame.as_slice()), "XDP_PASS, untouched");
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn refuses_another_abi_version() {
    let pins = Pins::new("abi").unwrap();
    drop(load(&pins.0, Capacities::small(4096, 1024), 0).unwrap());
    let mut maps = Maps::open(&pins.0).unwrap();
    let mut meta = maps.meta().unwrap();
    meta.abi = 999;
    maps.set_meta(meta).unwrap();
    let error = load(&pins.0, Capacities::small(4096, 1024), 0).err().unwrap();
    assert!(matches!(error, KernelError::Incompatible { .. }), "{error}");
    assert!(error.to_string().contains("999"), "{error}");
}
