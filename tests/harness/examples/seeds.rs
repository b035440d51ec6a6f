//! Writes the seeds of each fuzz target into a folder of its own: `seeds FOLDER`.

use std::path::PathBuf;
use std::{env, fs, io};

fn main() -> io::Result<()> {
    let folder = env::args_os().nth(1).map(PathBuf::from);
    let folder = folder.ok_or_else(|| io::Error::other("usage: seeds FOLDER"))?;
    for (target, _) in release_harness::TARGETS {
        let folder = folder.join(target);
        fs::create_dir_all(&folder)?;
        for (name, bytes) in release_harness::seeds::seeds(target) {
            fs::write(folder.join(name), bytes)?;
        }
    }
    Ok(())
}
