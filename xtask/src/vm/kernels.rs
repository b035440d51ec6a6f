//! Which kernels: Debian's "cloud" ones, the newest of each series that the package sources offer.

use std::{collections::BTreeMap, fmt, str::FromStr};

use anyhow::{Result, anyhow, bail};

use crate::setup::OLDEST_KERNEL;

/// A series of kernels, such as 6.12.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Series(u32, u32);

/// The oldest series that the programs run on: always part of the matrix where it is offered.
pub const OLDEST: Series = Series(OLDEST_KERNEL.0, OLDEST_KERNEL.1);

/// What `apt-cache search --names-only` is asked for.
pub const PATTERN: &str = "^linux-image-[0-9].*-cloud-amd64$";

impl FromStr for Series {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let numbers = text.split_once('.');
        numbers
            .and_then(|(major, minor)| Some(Self(major.parse().ok()?, minor.parse().ok()?)))
            .ok_or_else(|| anyhow!("{text:?} is no series of kernels such as 6.12"))
    }
}

impl fmt::Display for Series {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

/// The newest kernel of each series in the output of `apt-cache search`, as releases
/// ("6.1.0-56-cloud-amd64"): one "package - description" a line. Packages that only depend on the
/// newest of a series ("linux-image-6.12-cloud-amd64") are no kernels.
pub fn offered(search: &str) -> BTreeMap<Series, String> {
    let mut newest: BTreeMap<Series, (Vec<u32>, String)> = BTreeMap::new();
    for line in search.lines() {
        let package = line.split(' ').next().unwrap_or_default();
        let Some(release) = package.strip_prefix("linux-image-") else { continue };
        let Some(version) = release.strip_suffix("-cloud-amd64") else { continue };
        let version: Vec<u32> = version
            .split(|c: char| !c.is_ascii_digit())
            .filter_map(|number| number.parse().ok())
            .collect();
        let [major, minor, _, ..] = version[..] else { continue };
        let known = newest.entry(Series(major, minor)).or_default();
        if version > known.0 {
            *known = (version, release.to_owned());
        }
    }
    newest.into_iter().map(|(series, (_, release))| (series, release)).collect()
}

/// The releases to boot: of the series asked for, or of all that the programs should run on.
///
/// # Errors
/// If one that is asked for, or any at all, is not offered.
pub fn choose(offered: &BTreeMap<Series, String>, wanted: &[Series]) -> Result<Vec<String>> {
    let known = || {
        let all: Vec<String> = offered.keys().map(Series::to_string).collect();
        if all.is_empty() { "none".to_owned() } else { all.join(", ") }
    };
    if wanted.is_empty() {
        let all: Vec<String> =
            offered.range(OLDEST..).map(|(_, release)| release.clone()).collect();
        if all.is_empty() {
            bail!("no kernel from {OLDEST} on in the package sources (offered: {})", known());
        }
        return Ok(all);
    }
    let find = |series: &Series| {
        let release = offered.get(series).cloned();
        release.ok_or_else(|| {
            anyhow!("no kernel {series} in the package sources (offered: {})", known())
        })
    };
    wanted.iter().map(find).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEARCH: &str = "linux-image-5.10.0-9-cloud-amd64 - Linux 5.10\n\
         linux-image-6.1.0-9-cloud-amd64 - Linux 6.1 for x86-64 cloud (signed)\n\
         linux-image-6.1.0-56-cloud-amd64 - Linux 6.1 for x86-64 cloud (signed)\n\
         linux-image-6.12-cloud-amd64 - Linux for x86-64 cloud (meta-package)\n\
         linux-image-6.12.117+deb12-cloud-amd64 - Linux 6.12 for x86-64 cloud (signed)\n\
         linux-image-6.12.99+deb12-cloud-amd64 - Linux 6.12 for x86-64 cloud (signed)\n\
         linux-image-6.12.118+deb12-cloud-amd64-unsigned - Linux 6.12\n";

    fn series(names: &[&str]) -> Vec<Series> {
        names.iter().map(|name| name.parse().unwrap()).collect()
    }

    #[test]
    fn the_newest_of_each_series_by_number() {
        let offered = offered(SEARCH);
        let expected =
            ["5.10.0-9-cloud-amd64", "6.1.0-56-cloud-amd64", "6.12.117+deb12-cloud-amd64"];
        assert!(offered.values().eq(expected), "{offered:?}");
        assert_eq!(choose(&offered, &[]).unwrap(), expected[1..]);
        assert_eq!(choose(&offered, &series(&["6.12"])).unwrap(), expected[2..]);
    }

    #[test]
    fn what_is_not_offered_is_said() {
        let error = choose(&offered(SEARCH), &series(&["6.1", "7.2"])).unwrap_err().to_string();
        assert!(error.contains("7.2") && error.contains("5.10, 6.1, 6.12"), "{error}");
        let error = choose(&BTreeMap::new(), &[]).unwrap_err().to_string();
        assert!(error.contains("offered: none"), "{error}");
        assert!("6".parse::<Series>().is_err() && "6.x".parse::<Series>().is_err());
    }
}
