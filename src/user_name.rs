//! Names of users. A directory service may take seconds to answer, or never do: a session that has
//! a console does not ask it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use nix::unistd::{Gid, Group, Uid, User, geteuid, getuid};

/// The names that were asked for; `None` for a user without one.
static KNOWN: Mutex<BTreeMap<u32, Option<String>>> = Mutex::new(BTreeMap::new());
static UNASKED: AtomicUsize = AtomicUsize::new(0);

/// The name of a user, or the number if there is none, or it may not be asked for now.
pub(crate) fn of(uid: u32) -> String {
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let name = match known.get(&uid) {
        Some(name) => name.clone(),
        None if uid == 0 => Some("root".to_owned()),
        None if UNASKED.load(Ordering::Relaxed) > 0 => None,
        None => {
            let found = User::from_uid(Uid::from_raw(uid)).ok().flatten();
            known.entry(uid).or_insert(found.map(|user| user.name)).clone()
        }
    };
    name.unwrap_or_else(|| uid.to_string())
}

/// The same for a group. It is asked for each time.
pub(crate) fn of_group(gid: u32) -> String {
    let may_ask = UNASKED.load(Ordering::Relaxed) == 0;
    let group = may_ask.then(|| Group::from_gid(Gid::from_raw(gid)).ok().flatten()).flatten();
    group.map_or_else(|| gid.to_string(), |group| group.name)
}

/// Asks for our own names now, since they may be wanted when nobody may be asked.
pub(crate) fn learn_ours() {
    of(getuid().as_raw());
    of(geteuid().as_raw());
}

/// While this lives nobody is asked: names that are not known yet are shown as numbers.
#[must_use]
pub(crate) struct Unasked(());

impl Unasked {
    pub(crate) fn begin() -> Self {
        UNASKED.fetch_add(1, Ordering::Relaxed);
        Self(())
    }
}

impl Drop for Unasked {
    fn drop(&mut self) {
        UNASKED.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_without_a_known_name_is_a_number_while_nobody_may_be_asked() {
        const NOBODY: u32 = 4_000_000_000;
        let unasked = Unasked::begin();
        assert_eq!((of(0), of(NOBODY)), ("root".to_owned(), NOBODY.to_string()));
        assert!(!KNOWN.lock().unwrap().contains_key(&NOBODY));
        drop(unasked);
        of(NOBODY);
        assert_eq!(KNOWN.lock().unwrap().get(&NOBODY), Some(&None));
    }
}
