//! The manifests below a folder.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// How deep folders may be nested.
const MAX_DEPTH: usize = 32;

/// Something that is seen on the way.
pub(super) enum Seen<'a> {
    Folder(&'a Path),
    Link(&'a Path),
}

/// The manifests below a folder: their paths, and the same relative to the folder. `see` is called with every folder
/// before it is read, and with every link to a folder or by the name of a manifest, be it to nothing.
///
/// Links are followed, but not into a folder that holds the link.
///
/// # Errors
/// When the folder itself cannot be read. Folders below that cannot be are left out.
pub(super) fn walk(root: &Path, see: &mut dyn FnMut(Seen<'_>)) -> io::Result<Vec<(PathBuf, PathBuf)>> {
    let mut found = Vec::new();
    let mut above = Vec::new();
    visit(root, Path::new(""), see, &mut above, &mut found)?;
    Ok(found)
}

fn visit(
    folder: &Path,
    below: &Path,
    see: &mut dyn FnMut(Seen<'_>),
    above: &mut Vec<(u64, u64)>,
    found: &mut Vec<(PathBuf, PathBuf)>,
) -> io::Result<()> {
    let metadata = fs::metadata(folder)?;
    let identity = (metadata.dev(), metadata.ino());
    if above.contains(&identity) || above.len() == MAX_DEPTH {
        return Ok(());
    }
    see(Seen::Folder(folder));
    above.push(identity);
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let (path, name) = (entry.path(), below.join(entry.file_name()));
        if is_hidden(&path) {
            continue;
        }
        let kind = match entry.file_type()? {
            kind if kind.is_symlink() => {
                let target = fs::metadata(&path);
                if is_manifest(&path) || target.as_ref().is_ok_and(fs::Metadata::is_dir) {
                    see(Seen::Link(&path));
                }
                match target {
                    Ok(target) => target.file_type(),
                    Err(_) => continue,
                }
            }
            kind => kind,
        };
        if kind.is_dir() {
            if let Err(error) = visit(&path, &name, see, above, found) {
                tracing::warn!("cannot read {}: {error}", path.display());
            }
        } else if kind.is_file() && is_manifest(&path) {
            found.push((path, name));
        }
    }
    above.pop();
    Ok(())
}

/// Whether a file is read, by its name.
pub(super) fn is_manifest(path: &Path) -> bool {
    let ending = path.extension().and_then(|ending| ending.to_str());
    !is_hidden(path) && matches!(ending, Some("yaml" | "yml" | "json"))
}

/// Whether a file or folder is left out, by its name.
pub(super) fn is_hidden(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
}
