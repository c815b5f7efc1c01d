//! The master key: 32 random bytes, under which everything else is sealed.
//!
//! Either the store has it in a file of its own, made at the first boot and readable by its owner only; or whoever opens the store
//! brings it from somewhere else. As text it is 64 hexadecimal characters. Whoever has it and the key file has everything; without
//! it, the data and the key file are noise. It is wiped from memory as soon as the key file is open.
//!
//! While the store's own key is being changed, the next one lies beside it: it is durable before the first slot is sealed under it,
//! and takes the other's name after the last one is.

use std::fmt;
use std::fs::{self, File, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use zeroize::Zeroizing;

use crate::error::{OpenError, StoreFault};
use crate::seal::{SecretBytes, hex, random};

/// The name of the store's own master key, in its directory.
pub(crate) const OWN: &str = "master-key";
/// The name of the one that is to come after it.
const NEXT: &str = "master-key.next";

/// A master key. It is wiped when it goes.
#[derive(Clone)]
pub struct MasterKey(SecretBytes);

impl MasterKey {
    /// The key that these 64 hexadecimal characters are; a line break after them is none of it.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        parse(text.trim_end()).map(Self)
    }

    /// The key in a file that nobody else may read.
    ///
    /// # Errors
    /// If there is no such file, it holds something else, or others may read it.
    pub fn read(path: &Path) -> Result<Self, OpenError> {
        let missing = || OpenError::MasterKey { path: path.to_owned(), source: io::ErrorKind::NotFound.into() };
        read(path)?.ok_or_else(missing)
    }

    #[cfg(test)]
    pub(crate) fn of(secret: SecretBytes) -> Self {
        Self(secret)
    }

    pub(crate) fn random() -> Result<Self, StoreFault> {
        let mut secret = Zeroizing::new([0; 32]);
        random(&mut secret[..])?;
        Ok(Self(secret))
    }

    pub(crate) fn secret(&self) -> &SecretBytes {
        &self.0
    }
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MasterKey(…)")
    }
}

/// Where a store's master key comes from.
#[derive(Debug)]
pub enum MasterKeys {
    /// The store has it in a file in its own directory, and makes it at the first boot.
    Own,
    /// Whoever opens the store has it. Of several, the first that fits is taken; a new store is sealed under the first of all.
    Given(Vec<MasterKey>),
}

/// The store's own keys: the one in use, and the next one if it is being changed.
pub(crate) fn own(dir: &Path) -> Result<Vec<MasterKey>, OpenError> {
    let keys = [read(&dir.join(OWN))?, read(&dir.join(NEXT))?];
    Ok(keys.into_iter().flatten().collect())
}

/// Makes the key that is to come after the store's own one, durable, or finds the one that was made before.
pub(crate) fn next(dir: &Path, is_in_use: impl Fn(&MasterKey) -> bool) -> Result<MasterKey, OpenError> {
    let path = dir.join(NEXT);
    match read(&path)? {
        // A change that was cut short goes on with its own key.
        Some(key) if is_in_use(&key) => Ok(key),
        Some(_) => {
            forget_next(dir)?;
            create(dir, &path)
        }
        None => create(dir, &path),
    }
}

/// Puts the next key in the place of the store's own one, if there is a next one that is in use; removes it otherwise.
pub(crate) fn settle(dir: &Path, is_in_use: impl Fn(&MasterKey) -> bool) -> Result<(), OpenError> {
    let (path, next) = (dir.join(OWN), dir.join(NEXT));
    match read(&next)? {
        None => Ok(()),
        Some(key) if is_in_use(&key) => {
            let failed = |source| OpenError::MasterKey { path: path.clone(), source };
            replace(dir, &next, &path).map_err(failed)
        }
        Some(_) => forget_next(dir),
    }
}

fn forget_next(dir: &Path) -> Result<(), OpenError> {
    let path = dir.join(NEXT);
    let forget = || {
        wipe(&File::options().write(true).open(&path)?)?;
        fs::remove_file(&path)?;
        sync_dir(dir)
    };
    forget().map_err(|source| OpenError::MasterKey { path: path.clone(), source })
}

/// Gives the file `from` the name `to`, durably, and overwrites what had that name before where it lies.
pub(crate) fn replace(dir: &Path, from: &Path, to: &Path) -> io::Result<()> {
    let before = match File::options().write(true).open(to) {
        Ok(before) => Some(before),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    fs::rename(from, to)?;
    sync_dir(dir)?;
    before.as_ref().map_or(Ok(()), wipe)
}

/// Overwrites a file with zeros where it lies.
fn wipe(file: &File) -> io::Result<()> {
    let length = usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?;
    file.write_all_at(&vec![0; length], 0)?;
    file.sync_data()
}

/// The key in the file at `path`; `None` if there is no file.
pub(crate) fn read(path: &Path) -> Result<Option<MasterKey>, OpenError> {
    let failed = |source| OpenError::MasterKey { path: path.to_owned(), source };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let mode = file.metadata().map_err(failed)?.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(OpenError::MasterKeyExposed { path: path.to_owned(), mode });
    }
    // No more than a key is read into memory, nor is it moved there while it is.
    let mut text = Zeroizing::new(String::with_capacity(128));
    file.take(100).read_to_string(&mut text).map_err(failed)?;
    MasterKey::parse(&text).map(Some).ok_or_else(|| OpenError::MasterKeyMalformed { path: path.to_owned() })
}

/// Makes a new key in a file that must not exist. When this returns, the file is there for good.
pub(crate) fn create(dir: &Path, path: &Path) -> Result<MasterKey, OpenError> {
    let key = MasterKey::random()?;
    keep(dir, path, &key)?;
    Ok(key)
}

/// Keeps a key in a file that must not exist.
pub(crate) fn keep(dir: &Path, path: &Path, key: &MasterKey) -> Result<(), OpenError> {
    let failed = |source| OpenError::MasterKey { path: path.to_owned(), source };
    // It is written under another name first: a crash must not leave half a key under this one.
    let draft = path.with_extension("new");
    let write = || {
        remove_if_there(&draft)?;
        let mut file = File::options().write(true).create_new(true).mode(0o600).open(&draft)?;
        // The mode above is subject to the umask, which may only have taken bits away.
        file.set_permissions(Permissions::from_mode(0o600))?;
        file.write_all(Zeroizing::new(hex(&key.0[..])).as_bytes())?;
        file.write_all(b"\n")?;
        file.sync_all()?;
        // Unlike a rename, a link never replaces a key that another process has made meanwhile.
        fs::hard_link(&draft, path)?;
        fs::remove_file(&draft)?;
        sync_dir(dir)
    };
    write().map_err(failed)
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
        let found = read(&path).expect("read").expect("there");
        assert_eq!(found.secret(), made.secret());
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
        for text in ["", "00", &"0".repeat(63), &"g".repeat(64), &"0".repeat(66), &format!(" {}", "0".repeat(64))] {
            assert!(MasterKey::parse(text).is_none(), "{text} was taken for a key");
        }
        assert!(MasterKey::parse(&format!("{}\r\n", "0".repeat(64))).is_some());
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("long");
        keep(dir.path(), &path, &MasterKey::random().expect("random numbers")).expect("kept");
        File::options().append(true).open(&path).and_then(|mut file| file.write_all(&[b'0'; 200])).expect("written");
        assert!(matches!(read(&path), Err(OpenError::MasterKeyMalformed { .. })));
    }

    #[test]
    fn the_next_key_takes_the_place_of_the_other_only_when_it_is_in_use() {
        let dir = tempfile::tempdir().expect("a directory");
        let own_path = dir.path().join(OWN);
        let first = create(dir.path(), &own_path).expect("made");
        let old_file = File::open(&own_path).expect("there");
        let same = |one: &MasterKey, other: &MasterKey| one.secret() == other.secret();
        let unused = next(dir.path(), |_| false).expect("made");
        let second = next(dir.path(), |_| false).expect("made");
        assert!(!same(&unused, &second), "a key that was never used was taken up again");
        assert!(same(&next(dir.path(), |key| same(key, &second)).expect("found"), &second));
        settle(dir.path(), |_| false).expect("forgotten");
        assert!(same(&own(dir.path()).expect("read")[0], &first));

        let third = next(dir.path(), |_| false).expect("made");
        settle(dir.path(), |key| same(key, &third)).expect("settled");
        let keys = own(dir.path()).expect("read");
        assert!(keys.len() == 1 && same(&keys[0], &third));
        let mut left = String::new();
        (&old_file).read_to_string(&mut left).expect("read");
        assert!(left.bytes().all(|byte| byte == 0), "the old key still lies on the disk");
    }
}
