//! Contact Addresses for XMPP Services, XEP-0157: whom to write to about this server, in its disco#info.

use super::data_form::{field, form};
use crate::module::{Module, xep};
use crate::policy::HostPolicy;
use xmpp::Element;

pub const FORM_TYPE: &str = "http://jabber.org/network/serverinfo";

pub static MODULE: Module = Module {
    name: "contact addresses",
    specs: &[xep(157, "1.1.1"), xep(128, "1.0.1")],
    host_form: addresses,
    ..Module::EMPTY
};

fn addresses(policy: &HostPolicy) -> Option<Element> {
    if policy.contact_addresses.is_empty() {
        return None;
    }
    let fields = policy.contact_addresses.iter().map(|(var, values)| field(var, values.iter().map(String::as_str)));
    Some(form("result", FORM_TYPE).children_from(fields))
}
