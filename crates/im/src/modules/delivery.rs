//! The cards of extensions that live on the way of a message and of a session, not in an iq.

use crate::module::{Module, xep};
use xmpp::ns::{DELAY, SID};

/// Messages that nobody took wait in the INSTANT INBOX, [`crate::inbox`].
pub static OFFLINE: Module =
    Module { name: "offline", specs: &[xep(160, "1.0.1")], host_features: &["msgoffline"], ..Module::EMPTY };

/// What waited carries when it arrived, [`xmpp::write::Additions`].
pub static DELAYED: Module =
    Module { name: "delay", specs: &[xep(203, "2.0")], account_features: &[DELAY], ..Module::EMPTY };

/// Each message in the log has an id that stays, [`crate::inbox`].
pub static STABLE_IDS: Module = Module {
    name: "stable ids",
    specs: &[xep(359, "0.7.0")],
    host_features: &[SID],
    account_features: &[SID],
    ..Module::EMPTY
};

/// What a broken stream leaves behind, [`crate::resume`].
pub static STREAM_MANAGEMENT: Module =
    Module { name: "stream management", specs: &[xep(198, "1.6.3")], ..Module::EMPTY };
