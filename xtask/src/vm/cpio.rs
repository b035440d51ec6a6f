//! Archives as the kernel takes them for its first file system ("newc", see the kernel's
//! `Documentation/driver-api/early-userspace/buffer-format.rst`).

use std::{collections::BTreeSet, fmt::Write as _};

const DIRECTORY: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
const SYMLINK: u32 = 0o120_777;
const CONSOLE: u32 = 0o020_600;

/// An archive under construction. Paths are absolute; folders come by themselves.
#[derive(Debug, Default)]
pub struct Archive {
    bytes: Vec<u8>,
    entries: u32,
    folders: BTreeSet<String>,
}

impl Archive {
    /// Adds an empty folder.
    pub fn folder(&mut self, path: &str) {
        self.parents(path);
        if self.folders.insert(path.to_owned()) {
            self.entry(path, DIRECTORY, (0, 0), &[]);
        }
    }

    /// Adds a file that may be run.
    pub fn file(&mut self, path: &str, content: &[u8]) {
        self.parents(path);
        self.entry(path, PROGRAM, (0, 0), content);
    }

    /// Adds a symbolic link.
    pub fn link(&mut self, path: &str, to: &str) {
        self.parents(path);
        self.entry(path, SYMLINK, (0, 0), to.as_bytes());
    }

    /// Adds /dev/console: the kernel opens it for init before anything is mounted.
    pub fn console(&mut self) {
        self.parents("/dev/console");
        self.entry("/dev/console", CONSOLE, (5, 1), &[]);
    }

    /// The finished archive.
    pub fn finish(mut self) -> Vec<u8> {
        self.entry("/TRAILER!!!", 0, (0, 0), &[]);
        self.bytes
    }

    fn parents(&mut self, path: &str) {
        for (at, _) in path.match_indices('/').skip(1) {
            let folder = path.get(..at).unwrap_or_default();
            if self.folders.insert(folder.to_owned()) {
                self.entry(folder, DIRECTORY, (0, 0), &[]);
            }
        }
    }

    fn entry(&mut self, path: &str, mode: u32, device: (u32, u32), content: &[u8]) {
        let name = path.trim_start_matches('/');
        self.entries += 1;
        let size = u32::try_from(content.len()).unwrap_or(u32::MAX);
        let name_size = u32::try_from(name.len() + 1).unwrap_or(u32::MAX);
        // inode, mode, owner, group, links, time, size, device it is on, device it is, name, sum
        let numbers =
            [self.entries, mode, 0, 0, 1, 0, size, 0, 0, device.0, device.1, name_size, 0];
        let mut header = String::from("070701");
        for number in numbers {
            let _ = write!(header, "{number:08X}");
        }
        self.bytes.extend(header.as_bytes());
        self.bytes.extend(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads an archive: name, mode, content.
    fn read(mut bytes: &[u8]) -> Vec<(String, u32, Vec<u8>)> {
        let mut entries = Vec::new();
        loop {
            let field = |at: usize| {
                let digits = str::from_utf8(&bytes[6 + 8 * at..14 + 8 * at]).unwrap();
                u32::from_str_radix(digits, 16).unwrap() as usize
            };
            assert_eq!(&bytes[..6], b"070701");
            let (mode, size, name) = (field(1), field(6), field(11));
            let content = (110 + name).next_multiple_of(4);
            let path = str::from_utf8(&bytes[110..110 + name - 1]).unwrap().to_owned();
            if path == "TRAILER!!!" {
                return entries;
            }
            entries.push((path, mode as u32, bytes[content..content + size].to_vec()));
            bytes = &bytes[(content + size).next_multiple_of(4)..];
        }
    }

    #[test]
    fn folders_come_once_and_before_what_is_in_them() {
        let mut archive = Archive::default();
        archive.console();
        archive.folder("/dev");
        archive.file("/lib/a/one", b"12345");
        archive.file("/lib/a/two", b"");
        archive.link("/bin/sh", "busybox");
        let entries = read(&archive.finish());
        let names: Vec<&str> = entries.iter().map(|(name, ..)| name.as_str()).collect();
        assert_eq!(
            names,
            ["dev", "dev/console", "lib", "lib/a", "lib/a/one", "lib/a/two", "bin", "bin/sh"]
        );
        assert_eq!(entries[4], ("lib/a/one".into(), PROGRAM, b"12345".to_vec()));
        assert_eq!(entries[7], ("bin/sh".into(), SYMLINK, b"busybox".to_vec()));
    }
}
