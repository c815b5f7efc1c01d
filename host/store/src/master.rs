//! The master key: 32 random bytes in a file of their own, made at the first boot and never again.
//!
//! The file holds 64 hexadecimal characters and is readable by its owner only. Whoever has it and the key file has
//! everything; without it, the data and the key file are noise.

use std::fs::{self, File, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use zeroize::Zeroizing;

use crate::error::{OpenError, StoreFault};
use crate::seal::{SecretBytes, hex, random};

/// The key in the file at `path`; `None` if there is no file.
pub(crate) fn read(path: &Path) -> Result<Option<SecretBytes>, OpenError> {
    let failed = |source| OpenError::MasterKey { path: path.to_owned(), source };
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let mode = file.metadata().map_err(failed)?.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(OpenError::MasterKeyExposed { path: path.to_owned(), mode });
    }
    let mut text = Zeroizing::new(String::with_capacity(128));
    file.read_to_string(&mut text).map_err(failed)?;
    parse(text.trim_end()).map(Some).ok_or_else(|| OpenError::MasterKeyMalformed { path: path.to_owned() })
}

/// Makes a new key in a file that must not exist. When this returns, the file is there for good.
pub(crate) fn create(dir: &Path, path: &Path) -> Result<SecretBytes, OpenError> {
    let failed = |source| OpenError::MasterKey { path: path.to_owned(), source };
    let mut secret = Zeroizing::new([0; 32]);
    random(&mut secret[..])?;
    // It is written under another name first: a crash must not leave half a key under this one.
    let draft = path.with_extension("new");
    let write = || {
        remove_if_there(&draft)?;
        let mut file = File::options().write(true).create_new(true).mode(0o600).open(&draft)?;
        // The mode above is subject to the umask, which may only have taken bits away.
        file.set_permissions(Permissions::from_mode(0o600))?;
        file.write_all(Zeroizing::new(hex(&secret[..]) + "\n").as_bytes())?;
        file.sync_all()?;
        // Unlike a rename, a link never replaces a key that another process has made meanwhile.
        fs::hard_link(&draft, path)?;
        fs::remove_file(&draft)?;
        sync_dir(dir)
    };
    write().map_err(failed)?;
    Ok(secret)
}

/// Makes the names in a directory durable.
pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Writes a file that is either there whole or not at all.
pub(crate) fn write_whole(dir: &Path, path: &Path, bytes: &[u8]) -> Result<(), StoreFault> {
    let draft = path.with_extension("new");
    let write = || {
        let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&draft, path)?;
        sync_dir(dir)
    };
    write().map_err(StoreFault::of("making the key file"))
}

/// Removes a file, which need not be there.
pub(crate) fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn parse(text: &str) -> Option<SecretBytes> {
    let digits = text.as_bytes();
    if digits.len() != 64 {
        return None;
    }
    let mut secret = Zeroizing::new([0; 32]);
    for (byte, pair) in secret.iter_mut().zip(digits.chunks_exact(2)) {
        let digit = |at: usize| char::from(pair[at]).to_digit(16);
        *byte = u8::try_from(digit(0)? << 4 | digit(1)?).ok()?;
    }
    Some(secret)
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn a_new_key_is_read_again_and_never_replaced() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("master-key");
        assert!(read(&path).expect("no file is no error").is_none());
        let made = create(dir.path(), &path).expect("made");
        assert_eq!(read(&path).expect("read"), Some(made));
        assert!(create(dir.path(), &path).is_err(), "a second key replaced the first");
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_key_that_others_may_read_is_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("master-key");
        create(dir.path(), &path).expect("made");
        fs::set_permissions(&path, Permissions::from_mode(0o640)).expect("changed");
        assert!(matches!(read(&path), Err(OpenError::MasterKeyExposed { mode: 0o640, .. })));
    }

    #[test]
    fn half_a_key_is_refused() {
        for text in ["", "00", &"0".repeat(63), &"g".repeat(64), &"0".repeat(66)] {
            assert!(parse(text).is_none(), "{text} was taken for a key");
        }
    }
}
