//! What is given away: a Debian package, an archive with the static program, a recipe for containers; all in
//! `target/dist`. Built with what any Debian has: cargo, dpkg-deb, gzip, tar.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What `release` was asked.
#[derive(Default)]
struct Wanted {
    /// Packed as it is, instead of being built.
    binary: Option<PathBuf>,
    /// Writes man pages and completions, instead of being built.
    pack: Option<PathBuf>,
    /// As which version; the workspace's.
    version: Option<String>,
    /// The package alone.
    deb: bool,
    /// Where to.
    to: Option<PathBuf>,
}

/// `release [--deb] [--binary FILE] [--pack FILE] [--version V] [--to FOLDER]`.
///
/// # Errors
/// For people.
pub fn release(arguments: impl Iterator<Item = String>) -> Result<(), String> {
    let wanted = wanted(arguments)?;
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| PathBuf::from("target"), PathBuf::from);
    let version = wanted.version.clone().unwrap_or_else(|| env!("CARGO_PKG_VERSION").into());
    let out = wanted.to.clone().unwrap_or_else(|| target.join("dist"));
    make(&out)?;
    let pages = target.join("pages");
    remove(&pages)?;
    let pack = match &wanted.pack {
        Some(pack) => pack.clone(),
        None => {
            cargo(&["build", "--quiet", "--locked", "--workspace", "--bin", "pack"], None)?;
            target.join("debug/pack")
        }
    };
    run(&text(&pack), &[&text(&pages)])?;
    let program = match &wanted.binary {
        Some(binary) => binary.clone(),
        None => {
            cargo(&["build", "--release", "--locked", "-p", "server", "--bin", "waft"], None)?;
            target.join("release/waft")
        }
    };
    // What is packed for a test shall be soon.
    let compression: &[&str] = if wanted.binary.is_some() { &["-Zgzip", "-z1"] } else { &["-Zxz"] };
    let mut made = vec![deb(&target, &out, &program, &pages, &version, compression)?];
    if !wanted.deb {
        let program = static_program(&target)?;
        made.push(archive(&target, &out, &program, &pages, &version)?);
        copy(&program, &out.join("waft"), 0o755)?;
        for file in ["Containerfile", "compose.yaml"] {
            copy(&Path::new("dist").join(file), &out.join(file), 0o644)?;
        }
        let authorities = Path::new("/etc/ssl/certs/ca-certificates.crt");
        copy(authorities, &out.join("ca-certificates.crt"), 0o644)?;
        make(&out.join("data"))?;
    }
    for file in made {
        println!("{}", file.display());
    }
    Ok(())
}

fn wanted(mut arguments: impl Iterator<Item = String>) -> Result<Wanted, String> {
    let mut wanted = Wanted::default();
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or_else(|| format!("{argument} wants a value"));
        match argument.as_str() {
            "--deb" => wanted.deb = true,
            "--binary" => wanted.binary = Some(value()?.into()),
            "--pack" => wanted.pack = Some(value()?.into()),
            "--version" => wanted.version = Some(value()?),
            "--to" => wanted.to = Some(value()?.into()),
            other => return Err(format!("release knows no {other}")),
        }
    }
    Ok(wanted)
}

/// A program that needs nothing of the machine that it runs on. It is linked against the C library's static form, as
/// Debian's libc6-dev has it: the C parts (SQLite, aws-lc) are built by the same compiler as for the package.
fn static_program(target: &Path) -> Result<PathBuf, String> {
    let triple = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let build = ["build", "--release", "--locked", "-p", "server", "--bin", "waft", "--target", &triple];
    cargo(&build, Some("-C target-feature=+crt-static -C relocation-model=static"))?;
    let program = target.join(&triple).join("release/waft");
    let headers = output("objdump", &["-p", &text(&program)])?;
    if headers.contains("NEEDED") || headers.contains("INTERP") {
        return Err(format!("{} needs libraries: it is not static", program.display()));
    }
    Ok(program)
}

/// The Debian package.
fn deb(
    target: &Path,
    out: &Path,
    program: &Path,
    pages: &Path,
    version: &str,
    compression: &[&str],
) -> Result<PathBuf, String> {
    let architecture = output("dpkg", &["--print-architecture"])?;
    let root = target.join("deb");
    remove(&root)?;
    copy(program, &root.join("usr/bin/waft"), 0o755)?;
    let _ = run("strip", &["--strip-unneeded", &text(&root.join("usr/bin/waft"))]);
    write(&root.join("lib/systemd/system/waft.service"), &unit()?, 0o644)?;
    documents(&root.join("usr/share"), pages)?;
    write(&root.join("usr/share/doc/waft/copyright"), COPYRIGHT, 0o644)?;
    let changelog = root.join("usr/share/doc/waft/changelog.Debian");
    write(
        &changelog,
        &format!(
            "waft ({version}) unstable; urgency=medium\n\n  * See the repository.\n\n -- the waft contributors <waft@localhost>  Thu, 01 Jan 1970 00:00:00 +0000\n"
        ),
        0o644,
    )?;
    run("gzip", &["-9nf", &text(&changelog)])?;
    make(&root.join("etc/waft"))?;
    let size = output("du", &["-sk", "--apparent-size", &text(&root)])?;
    let size = size.split_whitespace().next().unwrap_or("0").to_owned();
    write(&root.join("DEBIAN/control"), &control(&architecture, version, &size, &glibc(program)?), 0o644)?;
    for script in ["postinst", "prerm", "postrm"] {
        copy(&Path::new("dist/debian").join(script), &root.join("DEBIAN").join(script), 0o755)?;
    }
    let package = out.join(format!("waft_{version}_{architecture}.deb"));
    let (from, to) = (text(&root), text(&package));
    let arguments = [&["--root-owner-group"], compression, &["--build", &from, &to]].concat();
    run("dpkg-deb", &arguments)?;
    Ok(package)
}

/// The C library's version that the program needs at least.
fn glibc(program: &Path) -> Result<String, String> {
    let symbols = output("objdump", &["-T", &text(program)])?;
    let versions = symbols.split("GLIBC_").skip(1).filter_map(|rest| {
        let version: String = rest.chars().take_while(|c| c.is_ascii_digit() || *c == '.').collect();
        let mut parts = version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
        Some((parts.next()?, parts.next().unwrap_or(0)))
    });
    let (major, minor) = versions.max().unwrap_or((2, 17));
    Ok(format!("{major}.{minor}"))
}

fn control(architecture: &str, version: &str, size: &str, glibc: &str) -> String {
    format!(
        "Package: waft\nVersion: {version}\nArchitecture: {architecture}\nMaintainer: the waft contributors <waft@localhost>\n\
         Installed-Size: {size}\nDepends: adduser, libc6 (>= {glibc}), libgcc-s1\nRecommends: ca-certificates\n\
         Section: net\nPriority: optional\nDescription: instant messaging and presence server (XMPP)\n \
         One program that serves the users of your domains and speaks with the servers\n of others. It keeps all in one \
         folder and needs no database beside it.\n"
    )
}

/// The unit for a program in /usr/bin and a user that the package makes.
fn unit() -> Result<String, String> {
    let mut unit = read(Path::new("dist/waft.service"))?;
    for (from, to) in [
        ("/usr/local/bin/waft", "/usr/bin/waft"),
        ("/usr/local/share/doc/waft", "/usr/share/doc/waft"),
        ("DynamicUser=yes\n", "Group=waft\n"),
    ] {
        if !unit.contains(from) {
            return Err(format!("dist/waft.service has no {from:?} any more"));
        }
        unit = unit.replace(from, to);
    }
    // How it is installed by hand is no news.
    let begin = unit.find("[Unit]").unwrap_or(0);
    Ok(unit.split_off(begin))
}

/// Man pages, completions and the book under `share`.
fn documents(share: &Path, pages: &Path) -> Result<(), String> {
    for page in files(&pages.join("man"))? {
        let to = share.join("man/man1").join(page.file_name().unwrap_or_default());
        copy(&page, &to, 0o644)?;
        run("gzip", &["-9nf", &text(&to)])?;
    }
    let completions = pages.join("completions");
    copy(&completions.join("waft.bash"), &share.join("bash-completion/completions/waft"), 0o644)?;
    copy(&completions.join("_waft"), &share.join("zsh/vendor-completions/_waft"), 0o644)?;
    copy(&completions.join("waft.fish"), &share.join("fish/vendor_completions.d/waft.fish"), 0o644)?;
    for folder in ["", "book", "protocol"] {
        for page in files(&Path::new("docs").join(folder))? {
            if page.extension().is_some_and(|it| it == "md") {
                let to = share.join("doc/waft").join(folder).join(page.file_name().unwrap_or_default());
                copy(&page, &to, 0o644)?;
            }
        }
    }
    Ok(())
}

/// The static program with all that belongs to it.
fn archive(target: &Path, out: &Path, program: &Path, pages: &Path, version: &str) -> Result<PathBuf, String> {
    let name = format!("waft-{version}-{}-linux", std::env::consts::ARCH);
    let root = target.join("archive").join(&name);
    remove(&root)?;
    copy(program, &root.join("bin/waft"), 0o755)?;
    let _ = run("strip", &["--strip-unneeded", &text(&root.join("bin/waft"))]);
    documents(&root.join("share"), pages)?;
    for file in ["dist/waft.service", "README.md", "LICENSE-APACHE", "LICENSE-MIT"] {
        let to = root.join(Path::new(file).file_name().unwrap_or_default());
        copy(Path::new(file), &to, 0o644)?;
    }
    let archive = out.join(format!("{name}.tar.gz"));
    run("tar", &["-C", &text(&target.join("archive")), "--owner=0", "--group=0", "-czf", &text(&archive), &name])?;
    Ok(archive)
}

const COPYRIGHT: &str = "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: waft

Files: *
Copyright: the waft contributors
License: Apache-2.0 or MIT
 The Apache License is in /usr/share/common-licenses/Apache-2.0; the MIT license reads:
 .
 Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated
 documentation files (the \"Software\"), to deal in the Software without restriction, including without limitation the
 rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, and to permit
 persons to whom the Software is furnished to do so, subject to the following conditions:
 .
 The above copyright notice and this permission notice shall be included in all copies or substantial portions of the
 Software.
 .
 THE SOFTWARE IS PROVIDED \"AS IS\", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE
 WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR
 COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR
 OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
";

// ---- files and programs ----

fn text(path: &Path) -> String {
    path.display().to_string()
}

fn wrong(path: &Path) -> impl Fn(std::io::Error) -> String {
    let path = path.display().to_string();
    move |error| format!("{path}: {error}")
}

fn read(path: &Path) -> Result<String, String> {
    fs::read_to_string(path).map_err(wrong(path))
}

fn make(folder: &Path) -> Result<(), String> {
    fs::create_dir_all(folder).map_err(wrong(folder))?;
    fs::set_permissions(folder, PermissionsExt::from_mode(0o755)).map_err(wrong(folder))
}

fn remove(folder: &Path) -> Result<(), String> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(wrong(folder)(error)),
        _ => Ok(()),
    }
}

fn parents(path: &Path) -> Result<(), String> {
    path.parent().map_or(Ok(()), make)
}

fn copy(from: &Path, to: &Path, mode: u32) -> Result<(), String> {
    parents(to)?;
    fs::copy(from, to).map_err(wrong(from))?;
    fs::set_permissions(to, PermissionsExt::from_mode(mode)).map_err(wrong(to))
}

fn write(to: &Path, text: &str, mode: u32) -> Result<(), String> {
    parents(to)?;
    fs::write(to, text).map_err(wrong(to))?;
    fs::set_permissions(to, PermissionsExt::from_mode(mode)).map_err(wrong(to))
}

/// The files of a folder, by name; none if it is not there.
fn files(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let Ok(entries) = fs::read_dir(folder) else { return Ok(Vec::new()) };
    let mut files: Vec<PathBuf> = entries.flatten().map(|it| it.path()).filter(|it| it.is_file()).collect();
    files.sort();
    Ok(files)
}

fn cargo(arguments: &[&str], flags: Option<&str>) -> Result<(), String> {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments);
    if let Some(flags) = flags {
        command.env("RUSTFLAGS", flags);
    }
    let status = command.status().map_err(|error| format!("cargo cannot be started: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("cargo {}: {status}", arguments.join(" "))) }
}

fn run(program: &str, arguments: &[&str]) -> Result<(), String> {
    output(program, arguments).map(drop)
}

fn output(program: &str, arguments: &[&str]) -> Result<String, String> {
    let done = Command::new(program).args(arguments).output();
    let done = done.map_err(|error| format!("{program} cannot be started: {error}"))?;
    if !done.status.success() {
        return Err(format!("{program} {}: {}", arguments.join(" "), String::from_utf8_lossy(&done.stderr)));
    }
    Ok(String::from_utf8_lossy(&done.stdout).trim().to_owned())
}
