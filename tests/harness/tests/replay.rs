//! Replays everything that fuzzing ever found worth keeping.

use std::fs;
use std::io::{self, Write as _};
use std::path::Path;

use release_harness::reference::{self, Transport};
use release_harness::{TARGETS, checksum, seeds};

/// Folders under `fuzz/`: the minimised corpus, and inputs that once failed.
const FOLDERS: [&str; 2] = ["corpus", "findings"];

#[test]
fn corpus() {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz");
    for (name, target) in TARGETS {
        for folder in FOLDERS {
            let mut files = 0;
            for entry in fs::read_dir(fuzz.join(folder).join(name)).unwrap() {
                let path = entry.unwrap().path();
                // Shown if the test fails: the input that did it.
                println!("{}", path.display());
                target(&fs::read(&path).unwrap());
                files += 1;
            }
            // Past the test runner, which hides what a test prints.
            writeln!(io::stderr(), "{name}: {files} inputs of fuzz/{folder} replayed").unwrap();
            assert!(files > 0, "fuzz/{folder}/{name} has been lost");
        }
    }
}

/// Cut at every length, too.
#[test]
fn seeds_and_their_beginnings() {
    for (target, run) in TARGETS {
        let seeds = seeds::seeds(target);
        assert!(seeds.len() > 100, "{}", seeds.len());
        for (name, bytes) in &seeds {
            println!("{name}");
            for len in 0..=bytes.len() {
                run(&bytes[..len]);
            }
        }
    }
}

/// Without this, a mistake in the builder would leave the tests above with nothing to test.
#[test]
fn seeds_are_what_they_are_called() {
    for (name, frame) in seeds::frames() {
        let Some((ip, transport)) = reference::decode(&frame) else {
            assert_eq!(name, "arp");
            continue;
        };
        assert_eq!(ip.version == 6, name.contains("ipv6"), "{name}");
        assert!(ip.version == 6 || checksum::header_residue(&frame, &ip) == 0, "{name}");
        if transport == Transport::Elsewhere {
            assert!(name.contains("middle") || name.contains("last"), "{name}");
            continue;
        }
        // Over IPv6 a UDP checksum is mandatory, and so the builder makes one.
        let unchecked = ip.version == 4 && name.contains("unchecked");
        let residue = checksum::transport_residue(&frame, &ip, ip.at + ip.len);
        assert_eq!(residue == 0, !unchecked, "{name}");
        let error = ["too-big", "unreachable", "exceeded"].iter().any(|kind| name.contains(kind));
        let quote = reference::quote(&frame, &ip).filter(|_| matches!(ip.protocol, 1 | 58));
        assert_eq!(quote.is_some(), error, "{name}");
    }
}
