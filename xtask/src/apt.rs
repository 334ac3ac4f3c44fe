//! Debian packages, in two ways.
//!
//! [`install`] is `apt-get install`, for root. [`Store`] needs no root and changes nothing on the machine: a private
//! apt state under `target/tools`, with an empty list of installed packages, reads one Debian suite from the archive
//! that the machine itself uses; packages are unpacked where the caller says.

use crate::shell::{command, output, run};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Whether packages can be installed.
pub(crate) fn is_root() -> bool {
    output(&mut command("id", ["-u"])).is_some_and(|id| id.trim() == "0")
}

/// Whether all of these packages are installed; a name may end in `:ARCH`.
pub(crate) fn installed(packages: &[&str]) -> bool {
    let query = ["-W", "-f", "${db:Status-Abbrev}\n"];
    let status = output(command("dpkg-query", query).args(packages));
    status.is_some_and(|text| text.lines().count() >= packages.len() && text.lines().all(|l| l.starts_with("ii")))
}

/// Installs packages that are not there yet; says why where it cannot.
pub(crate) fn install(packages: &[&str]) -> Result<(), String> {
    if installed(packages) {
        return Ok(());
    }
    if !is_root() {
        return Err(format!("as root: apt-get install {}", packages.join(" ")));
    }
    let apt = |words: &[&str]| {
        let mut apt = command("apt-get", ["-y", "-o", "DPkg::Lock::Timeout=300", "-qq"]);
        apt.env("DEBIAN_FRONTEND", "noninteractive").args(words);
        apt
    };
    let mut wanted = apt(&["install", "--no-install-recommends"]);
    wanted.args(packages);
    // The lists may be missing (a fresh container) or too old to fetch by.
    if run(&mut wanted) || (run(&mut apt(&["update"])) && run(&mut wanted)) {
        return Ok(());
    }
    Err(format!("apt-get cannot install {}", packages.join(" ")))
}

/// Makes packages of a second architecture installable.
pub(crate) fn add_architecture(arch: &str) -> Result<(), String> {
    let known = output(&mut command("dpkg", ["--print-foreign-architectures"])).unwrap_or_default();
    let native = output(&mut command("dpkg", ["--print-architecture"])).unwrap_or_default();
    if known.lines().chain(native.lines()).any(|a| a == arch) {
        return Ok(());
    }
    if !is_root() {
        return Err(format!("as root: dpkg --add-architecture {arch}"));
    }
    let added = run(&mut command("dpkg", ["--add-architecture", arch]));
    let update = ["-o", "DPkg::Lock::Timeout=300", "-qq", "update"];
    if added && run(&mut command("apt-get", update)) { Ok(()) } else { Err(format!("dpkg refuses {arch}")) }
}

/// A private view of one suite for one architecture.
pub(crate) struct Store {
    dir: PathBuf,
}

impl Store {
    /// Opens or makes the store `dir`. Fails where the machine has no Debian archive.
    pub(crate) fn open(dir: PathBuf, suite: &str, arch: &str) -> Result<Store, String> {
        Self::open_kind(dir, "deb", suite, arch)
    }

    /// The same for source packages.
    pub(crate) fn open_sources(dir: PathBuf, suite: &str) -> Result<Store, String> {
        Self::open_kind(dir, "deb-src", suite, "amd64")
    }

    fn open_kind(dir: PathBuf, kind: &str, suite: &str, arch: &str) -> Result<Store, String> {
        let (uri, keyring) = archive().ok_or("this machine names no Debian archive in /etc/apt")?;
        let dir = fs::create_dir_all(&dir).and_then(|()| dir.canonicalize()).map_err(|e| e.to_string())?;
        let store = Store { dir };
        let source = format!(
            "Types: {kind}\nURIs: {uri}\nSuites: {suite}\nComponents: main\nArchitectures: {arch}\nSigned-By: {keyring}\n"
        );
        store.write(&source, arch).map_err(|e| format!("{}: {e}", store.dir.display()))?;
        if store.lists_are_old() && !run(&mut store.apt(&["-qq", "update"])) {
            return Err(format!("the package lists of {suite} cannot be read"));
        }
        Ok(store)
    }

    fn write(&self, source: &str, arch: &str) -> io::Result<()> {
        for dir in ["lists/partial", "archives/partial", "sources", "log"] {
            fs::create_dir_all(self.dir.join(dir))?;
        }
        fs::write(self.dir.join("sources/debian.sources"), source)?;
        fs::write(self.dir.join("status"), "")?;
        let dir = self.dir.display();
        #[rustfmt::skip]
        let settings = [
            ("Dir::Etc::SourceList",           "/dev/null".to_string()),
            ("Dir::Etc::SourceParts",          format!("{dir}/sources")),
            ("Dir::Etc::Preferences",          "/dev/null".to_string()),
            ("Dir::Etc::PreferencesParts",     "/dev/null".to_string()),
            ("Dir::State",                     format!("{dir}")),
            ("Dir::State::Lists",              format!("{dir}/lists")),
            ("Dir::State::Status",             format!("{dir}/status")),
            ("Dir::Cache",                     format!("{dir}")),
            ("Dir::Cache::Archives",           format!("{dir}/archives")),
            ("Dir::Log",                       format!("{dir}/log")),
            ("APT::Architecture",              arch.to_string()),
            ("APT::Architectures",             arch.to_string()),
            ("APT::Install-Recommends",        "false".to_string()),
            ("APT::Sandbox::User",             String::new()),
            ("Debug::NoLocking",               "true".to_string()),
            ("Acquire::Languages",             "none".to_string()),
            ("Acquire::IndexTargets::deb::DEP-11::DefaultEnabled", "false".to_string()),
        ];
        let text: String = settings.iter().map(|(key, value)| format!("{key} \"{value}\";\n")).collect();
        fs::write(self.dir.join("apt.conf"), text)
    }

    /// Package lists are fetched again after a week: the archive forgets superseded files.
    fn lists_are_old(&self) -> bool {
        let fresh = |entry: fs::DirEntry| {
            let age = entry.metadata().ok()?.modified().ok()?.elapsed().unwrap_or_default();
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let list = name.ends_with("_Packages") || name.ends_with("_Sources");
            (list && age.as_secs() < 7 * 86400).then_some(())
        };
        let mut entries = fs::read_dir(self.dir.join("lists")).into_iter().flatten().flatten();
        !entries.any(|entry| fresh(entry).is_some())
    }

    fn apt(&self, words: &[&str]) -> Command {
        let mut apt = command("apt-get", words);
        apt.env("APT_CONFIG", self.dir.join("apt.conf"));
        apt
    }

    /// Downloads the files of a source package into `dest`.
    pub(crate) fn download_source(&self, package: &str, dest: &Path) -> Result<(), String> {
        let mut source = self.apt(&["-qq", "source", "--download-only", package]);
        if run(source.current_dir(dest)) { Ok(()) } else { Err(format!("the source of {package} cannot be fetched")) }
    }

    /// Unpacks the named packages, without what they depend on, into `dest`.
    pub(crate) fn unpack(&self, packages: &[&str], dest: &Path) -> Result<(), String> {
        let mut download = self.apt(&["-qq", "download"]);
        self.fetch_and_unpack(download.args(packages).current_dir(self.dir.join("archives")), dest)
    }

    /// Unpacks the named packages and all that they depend on into `dest`.
    pub(crate) fn unpack_with_dependencies(&self, packages: &[&str], dest: &Path) -> Result<(), String> {
        let mut install = self.apt(&["-qq", "-y", "--download-only", "install"]);
        self.fetch_and_unpack(install.args(packages), dest)
    }

    /// Runs `fetch`, which leaves packages in `archives/`, unpacks them all, and forgets them. A stamp in `dest` marks
    /// a complete result, so the work is done once.
    fn fetch_and_unpack(&self, fetch: &mut Command, dest: &Path) -> Result<(), String> {
        let stamp = dest.join(".complete");
        let key = format!("{fetch:?}");
        if fs::read_to_string(&stamp).is_ok_and(|done| done == key) {
            return Ok(());
        }
        let failed = |e: io::Error| format!("{}: {e}", dest.display());
        if dest.exists() {
            fs::remove_dir_all(dest).map_err(failed)?;
        }
        fs::create_dir_all(dest).map_err(failed)?;
        if !run(fetch) {
            return Err("the packages cannot be fetched".into());
        }
        for entry in fs::read_dir(self.dir.join("archives")).map_err(failed)?.flatten() {
            let package = entry.path();
            if package.extension().is_some_and(|e| e == "deb") {
                let unpacked = command("dpkg-deb", ["-x".as_ref(), package.as_os_str(), dest.as_os_str()]).status();
                if !unpacked.is_ok_and(|s| s.success()) {
                    return Err(format!("{} cannot be unpacked", package.display()));
                }
                fs::remove_file(&package).map_err(failed)?;
            }
        }
        fs::write(stamp, key).map_err(failed)
    }
}

/// Address and keyring of the Debian archive that the machine uses, from its own apt configuration.
fn archive() -> Option<(String, String)> {
    let keyring = ["debian-archive-keyring.gpg", "debian-archive-keyring.pgp"]
        .map(|name| format!("/usr/share/keyrings/{name}"))
        .into_iter()
        .find(|file| Path::new(file).exists())?;
    let parts = fs::read_dir("/etc/apt/sources.list.d").into_iter().flatten().flatten().map(|e| e.path());
    let mut files: Vec<PathBuf> =
        parts.filter(|p| p.extension().is_some_and(|e| e == "sources" || e == "list")).collect();
    files.push("/etc/apt/sources.list".into());
    files.sort();
    let uris = files.iter().filter_map(|f| fs::read_to_string(f).ok()).flat_map(|text| {
        let words = text.lines().filter(|l| l.starts_with("URIs:") || l.starts_with("deb ")).map(str::to_owned);
        words.flat_map(|l| l.split_whitespace().map(str::to_owned).collect::<Vec<_>>()).collect::<Vec<_>>()
    });
    let debian = |uri: &String| uri.contains("://") && uri.trim_end_matches('/').ends_with("/debian");
    uris.into_iter().find(debian).map(|uri| (uri, keyring))
}
