//! Data Forms, XEP-0004, and their standard fields, XEP-0068: reading what was submitted, writing what is shown.

use crate::module::{Module, xep};
use xmpp::Element;
use xmpp::ns::DATA_FORM as NS;

pub static MODULE: Module = Module { name: "data form", specs: &[xep(4, "2.13.2"), xep(68, "1.3.0")], ..Module::EMPTY };

/// `<x type='…'/>` with its hidden FORM_TYPE. XEP-0068 §3.
pub fn form(kind: &str, form_type: &str) -> Element {
    let hidden = field("FORM_TYPE", [form_type]).attr("type", "hidden");
    Element::new("x", NS).attr("type", kind).child(hidden)
}

/// A field with its values.
pub fn field<'a>(var: &str, values: impl IntoIterator<Item = &'a str>) -> Element {
    let values = values.into_iter().map(|value| Element::new("value", NS).text(value));
    Element::new("field", NS).attr("var", var).children_from(values)
}

/// The submitted form inside, if its FORM_TYPE is the given one (or left out, COMPAT: XEP-0068 §3 lets old clients).
pub fn submitted<'a>(parent: &'a Element, form_types: &[&str]) -> Option<&'a Element> {
    let x = parent.find("x", NS)?;
    let known = value(x, "FORM_TYPE").is_none_or(|form_type| form_types.contains(&form_type.as_str()));
    (x.attribute("type") == Some("submit") && known).then_some(x)
}

/// The first value of a field; `None` if there is no such field or it has no value.
pub fn value(form: &Element, var: &str) -> Option<String> {
    let field = form.elements().find(|field| field.is("field", NS) && field.attribute("var") == Some(var))?;
    Some(field.find("value", NS)?.text_content())
}
