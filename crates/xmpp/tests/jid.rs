//! RFC 7622 as a table, and what must hold for any text at all.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};

use proptest::prelude::*;
use xmpp::jid::{
    PART_BYTES_MAX, compared_nickname, escape_local, prepare_domain, prepare_local, prepare_resource, unescape_local,
};
use xmpp::{BareJid, FullJid, Jid, JidError};

type Parts<'a> = (Option<&'a str>, &'a str, Option<&'a str>);

fn parts(jid: &Jid) -> Parts<'_> {
    (jid.local(), jid.domain(), jid.resource())
}

#[test]
fn the_legal_jids_of_rfc_7622_table_1_are_read() {
    let table: [(u8, &str, Parts); 15] = [
        (1, "juliet@example.com", (Some("juliet"), "example.com", None)),
        (2, "juliet@example.com/foo", (Some("juliet"), "example.com", Some("foo"))),
        (3, "juliet@example.com/foo bar", (Some("juliet"), "example.com", Some("foo bar"))),
        (4, "juliet@example.com/foo@bar", (Some("juliet"), "example.com", Some("foo@bar"))),
        (5, "foo\\20bar@example.com", (Some("foo\\20bar"), "example.com", None)),
        (6, "fussball@example.com", (Some("fussball"), "example.com", None)),
        (7, "fu\u{DF}ball@example.com", (Some("fu\u{DF}ball"), "example.com", None)),
        (8, "\u{3C0}@example.com", (Some("\u{3C0}"), "example.com", None)),
        (9, "\u{3A3}@example.com/foo", (Some("\u{3C3}"), "example.com", Some("foo"))),
        (10, "\u{3C3}@example.com/foo", (Some("\u{3C3}"), "example.com", Some("foo"))),
        (11, "\u{3C2}@example.com/foo", (Some("\u{3C2}"), "example.com", Some("foo"))),
        (12, "king@example.com/\u{265A}", (Some("king"), "example.com", Some("\u{265A}"))),
        (13, "example.com", (None, "example.com", None)),
        (14, "example.com/foobar", (None, "example.com", Some("foobar"))),
        (15, "a.example.com/b@example.net", (None, "a.example.com", Some("b@example.net"))),
    ];
    for (number, text, expected) in table {
        let jid = Jid::parse(text).unwrap_or_else(|error| panic!("{number}: {error}"));
        assert_eq!(parts(&jid), expected, "{number}");
    }
}

#[test]
fn the_strings_of_rfc_7622_table_2_are_no_jids() {
    let table = [
        (16, "\"juliet\"@example.com", JidError::Local),
        (17, "foo bar@example.com", JidError::Local),
        (19, "@example.com/", JidError::EmptyLocal),
        (20, "henry\u{2163}@example.com", JidError::Local),
        (21, "\u{265A}@example.com", JidError::Local),
        (22, "juliet@", JidError::EmptyDomain),
        (23, "/foobar", JidError::EmptyDomain),
    ];
    for (number, text, error) in table {
        assert_eq!(Jid::parse(text), Err(error), "{number}");
    }
}

/// Example 18 of the table says otherwise, but the OpaqueString profile does not, and RFC Errata 4560 withdraws it.
#[test]
fn a_resourcepart_may_begin_with_a_space() {
    assert_eq!(Jid::parse("juliet@example.com/ foo").unwrap().resource(), Some(" foo"));
}

#[test]
fn the_userparts_of_rfc_8265_are_judged_as_there() {
    for (text, prepared) in [
        ("fussball", "fussball"),
        ("fu\u{DF}ball", "fu\u{DF}ball"),
        ("\u{3C0}", "\u{3C0}"),
        ("\u{3A3}", "\u{3C3}"),
        ("\u{3C3}", "\u{3C3}"),
        ("\u{3C2}", "\u{3C2}"),
    ] {
        assert_eq!(prepare_local(text).as_deref(), Ok(prepared));
    }
    for (text, error) in [
        ("foo bar", JidError::Local),
        ("", JidError::EmptyLocal),
        ("henry\u{2163}", JidError::Local),
        ("\u{221E}", JidError::Local),
        // Allowed there, but not here: RFC 7622 §3.3.1.
        ("juliet@example.com", JidError::Local),
    ] {
        assert_eq!(prepare_local(text), Err(error), "{text}");
    }
}

#[test]
fn the_opaque_strings_of_rfc_8265_are_judged_as_there() {
    for (text, prepared) in [
        ("correct horse battery staple", "correct horse battery staple"),
        ("Correct Horse Battery Staple", "Correct Horse Battery Staple"),
        ("\u{3C0}\u{DF}\u{E5}", "\u{3C0}\u{DF}\u{E5}"),
        ("Jack of \u{2666}s", "Jack of \u{2666}s"),
        ("foo\u{1680}bar", "foo bar"),
    ] {
        assert_eq!(prepare_resource(text).as_deref(), Ok(prepared));
    }
    assert_eq!(prepare_resource(""), Err(JidError::EmptyResource));
    assert_eq!(prepare_resource("my cat is a \tby"), Err(JidError::Resource));
}

#[test]
fn the_first_slash_and_then_the_first_at_sign_part_an_address() {
    for (text, expected) in [
        ("a@b/c@d/e", (Some("a"), "b", Some("c@d/e"))),
        ("b/c@d", (None, "b", Some("c@d"))),
        ("b//", (None, "b", Some("/"))),
        ("b/@", (None, "b", Some("@"))),
    ] {
        assert_eq!(parts(&Jid::parse(text).unwrap()), expected, "{text}");
    }
    for text in ["a@b@c", "ch@r@cters@muc.example.com/JulieC", "a@/b", "@", "/", "@/", "a@b@", "@@", ""] {
        assert!(Jid::parse(text).is_err(), "{text}");
    }
}

#[test]
fn separators_that_mapping_would_make_do_not_part_an_address() {
    // Wide and small forms of @ and /, and ACCOUNT OF, which NFKC would open up to "a/c".
    for text in [
        "a\u{FF20}b",
        "a\u{FE6B}b",
        "a\u{FF0F}b",
        "\u{2100}.example",
        "a\u{FF20}b@example.com",
        "a\u{FF0F}b@example.com",
    ] {
        assert!(Jid::parse(text).is_err(), "{text}");
    }
    assert_eq!(Jid::parse("b/a\u{FF20}b").unwrap().resource(), Some("a\u{FF20}b"));
}

#[test]
fn a_part_that_is_there_is_not_empty() {
    for (text, error) in [
        ("", JidError::EmptyDomain),
        (".", JidError::EmptyDomain),
        ("a@", JidError::EmptyDomain),
        ("a@.", JidError::EmptyDomain),
        ("@b", JidError::EmptyLocal),
        ("b/", JidError::EmptyResource),
        ("a@b/", JidError::EmptyResource),
        ("b/\u{FE0F}", JidError::EmptyResource),
    ] {
        assert_eq!(Jid::parse(text), Err(error), "{text}");
    }
    assert_eq!(Jid::from_parts(Some(""), "b", None), Err(JidError::EmptyLocal));
    assert_eq!(Jid::from_parts(None, "b", Some("")), Err(JidError::EmptyResource));
}

#[test]
fn the_forbidden_characters_are_forbidden_in_localparts_only() {
    for c in "\"&'/:<>@ \u{7F}\u{0}\t\n".chars() {
        assert_eq!(prepare_local(&format!("a{c}b")), Err(JidError::Local), "{c:?}");
        assert_eq!(prepare_local(&format!("\u{E9}{c}b")), Err(JidError::Local), "{c:?}");
        assert_eq!(prepare_resource(&format!("a{c}b")).is_ok(), !c.is_control(), "{c:?}");
        assert_eq!(prepare_resource(&format!("\u{E9}{c}b")).is_ok(), !c.is_control(), "{c:?}");
    }
    // The wide forms become what is forbidden. RFC 8265 §3.3.1, rule 1.
    for c in "\u{FF02}\u{FF06}\u{FF07}\u{FF0F}\u{FF1A}\u{FF1C}\u{FF1E}\u{FF20}\u{3000}".chars() {
        assert_eq!(prepare_local(&format!("a{c}b")), Err(JidError::Local), "{c:?}");
    }
    assert_eq!(prepare_local("!#$%()*+,-.0;=?[\\]^_`{|}~").as_deref(), Ok("!#$%()*+,-.0;=?[\\]^_`{|}~"));
}

#[test]
fn localparts_are_narrowed_lowered_and_composed() {
    for (text, prepared) in [
        ("Juliet", "juliet"),
        ("\u{FF2A}\u{FF35}\u{FF2C}\u{FF29}\u{FF25}\u{FF34}", "juliet"),
        ("\u{C9}MILE", "\u{E9}mile"),
        ("e\u{301}mile", "\u{E9}mile"),
        ("E\u{301}mile", "\u{E9}mile"),
        // Letters since Unicode 6.3: Adlam (9.0) and Georgian capitals (11.0).
        ("\u{1E900}", "\u{1E922}"),
        ("\u{1C90}", "\u{10D0}"),
        ("\u{5E9}\u{5DC}\u{5D5}\u{5DD}", "\u{5E9}\u{5DC}\u{5D5}\u{5DD}"),
    ] {
        assert_eq!(prepare_local(text).as_deref(), Ok(prepared), "{text}");
    }
    // A right-to-left name may not hold left-to-right letters. RFC 8265 §3.3.1, rule 5; RFC 5893.
    assert_eq!(prepare_local("\u{5E9}\u{5DC}abc"), Err(JidError::Local));
    for c in ['\u{1F600}', '\u{1F914}', '\u{FB01}', '\u{AD}', '\u{200B}', '\u{202E}', '\u{FEFF}', '\u{E000}', '\u{378}']
    {
        assert_eq!(prepare_local(&format!("a{c}b")), Err(JidError::Local), "{c:?}");
    }
}

#[test]
fn resourceparts_keep_their_case_and_width_and_map_spaces() {
    for (text, prepared) in [
        ("Balcony", "Balcony"),
        ("\u{FF22}", "\u{FF22}"),
        ("a\u{A0}b\u{3000}c", "a b c"),
        ("e\u{301}", "\u{E9}"),
        ("\u{FB01}\u{2163}", "\u{FB01}\u{2163}"),
        ("\u{1F914}\u{1FAE8} \u{20BF}", "\u{1F914}\u{1FAE8} \u{20BF}"),
        ("  two  ", "  two  "),
    ] {
        assert_eq!(prepare_resource(text).as_deref(), Ok(prepared), "{text}");
    }
    for c in
        ['\0', '\t', '\n', '\u{7F}', '\u{85}', '\u{AD}', '\u{200B}', '\u{202E}', '\u{2028}', '\u{FEFF}', '\u{E000}']
    {
        assert_eq!(prepare_resource(&format!("a{c}b")), Err(JidError::Resource), "{c:?}");
    }
}

#[test]
fn the_nicknames_of_rfc_8266_are_compared_as_there() {
    // Table 1.
    for (number, nickname, compared) in [
        (1, "Foo", "foo"),
        (2, "foo", "foo"),
        (3, "Foo Bar", "foo bar"),
        (4, "foo bar", "foo bar"),
        (5, "\u{3A3}", "\u{3C3}"),
        (6, "\u{3C3}", "\u{3C3}"),
        (7, "\u{3C2}", "\u{3C2}"),
        (8, "\u{3D4}", "\u{3CB}"),
        (9, "\u{221E}", "\u{221E}"),
        (10, "Richard \u{2163}", "richard iv"),
    ] {
        assert_eq!(compared_nickname(nickname).as_deref(), Ok(compared), "{number}");
    }
    // §2.1: spaces at either end go, those within become one of ASCII.
    assert_eq!(compared_nickname("  Foo \u{3000}\u{A0} Bar ").as_deref(), Ok("foo bar"));
    // §2.3: nothing may be left of it that is empty, and nothing in it that the class forbids.
    assert_eq!(compared_nickname(" \u{2003} "), Err(JidError::EmptyResource));
    assert_eq!(compared_nickname(""), Err(JidError::EmptyResource));
    assert_eq!(compared_nickname("foo\u{202E}"), Err(JidError::Resource));
    assert!(matches!(compared_nickname(&"x".repeat(1024)), Err(JidError::TooLong { .. })));
}

#[test]
fn nicknames_with_emoji_lose_only_what_is_invisible() {
    for (text, prepared) in [
        ("\u{263A}\u{FE0F}", "\u{263A}"),
        ("I \u{2764}\u{FE0F} jabber", "I \u{2764} jabber"),
        ("\u{1F468}\u{200D}\u{1F469}\u{200D}\u{1F467}", "\u{1F468}\u{1F469}\u{1F467}"),
        ("\u{1F3F3}\u{FE0F}\u{200D}\u{1F308}", "\u{1F3F3}\u{1F308}"),
        ("\u{1F44D}\u{1F3FD}", "\u{1F44D}\u{1F3FD}"),
        // A joiner behind a virama spells Sinhala and is valid (RFC 5892 A.2), also beside an emoji.
        ("\u{DC1}\u{DCA}\u{200D}\u{DBB}\u{DD3}", "\u{DC1}\u{DCA}\u{200D}\u{DBB}\u{DD3}"),
        ("\u{DC1}\u{DCA}\u{200D}\u{DBB}\u{DD3} \u{2764}\u{FE0F}", "\u{DC1}\u{DCA}\u{200D}\u{DBB}\u{DD3} \u{2764}"),
    ] {
        assert_eq!(prepare_resource(text).as_deref(), Ok(prepared), "{text}");
    }
    assert_eq!(prepare_resource("\u{263A}\u{FE0F}\u{202E}"), Err(JidError::Resource));
    assert_eq!(prepare_local("a\u{FE0F}"), Err(JidError::Local));
}

#[test]
fn what_needs_a_context_is_refused_without_it() {
    let with =
        ["l\u{B7}l", "\u{375}\u{3B1}", "\u{5D0}\u{5F3}", "\u{30A2}\u{30FB}\u{30A2}", "\u{661}\u{662}", "\u{6F1}"];
    let without = ["a\u{B7}a", "\u{375}a", "a\u{5F3}", "a\u{30FB}a", "\u{661}\u{6F1}", "a\u{200C}b"];
    for text in with {
        assert!(prepare_resource(text).is_ok(), "{text}");
    }
    for text in without {
        assert_eq!(prepare_resource(text), Err(JidError::Resource), "{text}");
        assert_eq!(prepare_local(text), Err(JidError::Local), "{text}");
    }
}

#[test]
fn a_part_of_many_contextual_characters_is_refused_rather_than_walked() {
    let hebrew = "\u{5D0}\u{5F3}";
    assert!(prepare_resource(&hebrew.repeat(32)).is_ok());
    assert_eq!(prepare_resource(&hebrew.repeat(33)), Err(JidError::Resource));
    // Digits and middle dots are judged at once, however many.
    assert!(prepare_resource(&"\u{661}".repeat(500)).is_ok());
    assert!(prepare_resource(&"\u{30FB}\u{30A2}".repeat(100)).is_ok());
    assert!(prepare_resource(&"\u{30FB}".repeat(100)).is_err());
}

#[test]
fn each_part_has_1023_bytes_at_most_after_preparation() {
    let ascii = "x".repeat(PART_BYTES_MAX);
    assert!(prepare_local(&ascii).is_ok());
    assert!(prepare_resource(&ascii).is_ok());
    let too_long = |part, bytes| JidError::TooLong { part, bytes };
    assert_eq!(prepare_local(&format!("{ascii}x")), Err(too_long("localpart", 1024)));
    assert_eq!(prepare_resource(&format!("{ascii}x")), Err(too_long("resourcepart", 1024)));
    assert_eq!(prepare_domain(&format!("{ascii}x")), Err(too_long("domainpart", 1024)));
    // 341 three-byte characters are 1023 bytes; 342 are 1026.
    assert!(prepare_local(&"\u{30A2}".repeat(341)).is_ok());
    assert_eq!(prepare_local(&"\u{30A2}".repeat(342)), Err(too_long("localpart", 1026)));
    assert_eq!(prepare_resource(&"\u{30A2}".repeat(342)), Err(too_long("resourcepart", 1026)));
    // Three bytes each before, one after.
    assert_eq!(prepare_local(&"\u{FF41}".repeat(PART_BYTES_MAX)).map(|text| text.len()), Ok(PART_BYTES_MAX));
    assert!(prepare_local(&"\u{FF41}".repeat(PART_BYTES_MAX + 1)).is_err());
    // Three bytes before (e and its accent), two after.
    assert_eq!(prepare_resource(&"e\u{301}".repeat(511)).map(|text| text.len()), Ok(1022));

    let label = "d".repeat(62);
    let domain = [label.as_str(); 4].join(".");
    let longest = format!("{ascii}@{domain}/{ascii}");
    assert_eq!(Jid::parse(&longest).unwrap().as_str(), longest);
    assert_eq!(Jid::parse(&format!("{ascii}@{domain}.x/{ascii}")).unwrap().domain().len(), 253);
}

#[test]
fn domains_keep_the_limits_of_the_dns() {
    let label = "d".repeat(63);
    assert!(prepare_domain(&label).is_ok());
    assert_eq!(prepare_domain(&format!("{label}d")), Err(JidError::Domain));
    let name = [label.as_str(); 4].join(".");
    assert_eq!(prepare_domain(&name), Err(JidError::Domain));
    assert!(prepare_domain(&name[2..]).is_ok());
    // As A-labels: 63 characters are more than 63 bytes.
    assert_eq!(prepare_domain(&"\u{FC}".repeat(60)).is_ok(), prepare_domain(&"\u{FC}".repeat(63)).is_ok());
    assert_eq!(prepare_domain(&format!("{}\u{FC}", "d".repeat(62))), Err(JidError::Domain));
}

#[test]
fn domains_are_lowered_and_lose_one_final_dot() {
    for (text, prepared) in [
        ("Example.COM", "example.com"),
        ("example.com.", "example.com"),
        ("localhost", "localhost"),
        ("1.example", "1.example"),
        ("a-b.c--d.example", "a-b.c--d.example"),
        ("_xmpp.my_host.local", "_xmpp.my_host.local"),
        ("127.0.0.1", "127.0.0.1"),
        ("127.0.0.1.", "127.0.0.1"),
        ("B\u{DC}CHER.example", "b\u{FC}cher.example"),
        ("bu\u{308}cher.example.", "b\u{FC}cher.example"),
        ("fa\u{DF}.de", "fa\u{DF}.de"),
        ("\u{FF45}xample.com", "example.com"),
        ("example\u{3002}com", "example.com"),
        ("\u{4F8B}\u{3048}.\u{30C6}\u{30B9}\u{30C8}", "\u{4F8B}\u{3048}.\u{30C6}\u{30B9}\u{30C8}"),
        ("\u{5D3}\u{5D5}\u{5D2}\u{5DE}\u{5D4}.example", "\u{5D3}\u{5D5}\u{5D2}\u{5DE}\u{5D4}.example"),
    ] {
        assert_eq!(prepare_domain(text).as_deref(), Ok(prepared), "{text}");
    }
    for text in ["example.com..", "..", "a..b", ".a", "-a", "a-", "a.-b", "a-.b", "example.com\u{3002}"] {
        assert!(prepare_domain(text).is_err(), "{text}");
    }
}

#[test]
fn what_no_domain_may_hold_is_refused() {
    for c in "!\"#$%&'()*+,/:;<=>?@[\\]^`{|}~ \0\t\n\u{7F}".chars() {
        assert!(prepare_domain(&format!("a{c}b")).is_err(), "{c:?}");
        assert!(prepare_domain(&format!("\u{FC}{c}b")).is_err(), "{c:?}");
    }
    // Symbols and emoji, contexts that are not there, a mark in front, mixed directions, hyphens where A-labels have
    // them, what is private, unassigned, invisible or a replacement.
    for text in [
        "\u{2665}.example",
        "\u{1F600}.example",
        "\u{1F914}.example",
        "a\u{B7}b.example",
        "a\u{30FB}b.example",
        "\u{661}\u{6F1}.example",
        "a\u{200D}b.example",
        "\u{301}a.example",
        "a\u{5D0}.example",
        "a\u{20D0}b.example",
        "\u{FC}b--c.example",
        "a\u{E000}.example",
        "a\u{378}.example",
        "a\u{202E}b.example",
        "a\u{FFFD}b.example",
    ] {
        assert_eq!(prepare_domain(text), Err(JidError::Domain), "{text}");
    }
}

#[test]
fn a_labels_become_u_labels() {
    for (text, prepared) in [
        ("xn--bcher-kva.example", "b\u{FC}cher.example"),
        ("XN--BCHER-KVA.EXAMPLE", "b\u{FC}cher.example"),
        ("xn--fa-hia.de", "fa\u{DF}.de"),
        ("xn--r8jz45g.xn--zckzah", "\u{4F8B}\u{3048}.\u{30C6}\u{30B9}\u{30C8}"),
    ] {
        assert_eq!(prepare_domain(text).as_deref(), Ok(prepared), "{text}");
        assert_eq!(prepare_domain(prepared).as_deref(), Ok(prepared), "{text}");
    }
}

#[test]
fn no_a_label_masks_another_name() {
    for text in [
        // Nothing, plain ASCII (also with a delimiter), upper case, what normalises, a dot, a slash, an at sign.
        "xn--",
        "xn--.example",
        "xn---",
        "xn--example-.com",
        "xn--example-com",
        "xn--a.example",
        "xn--localhost-",
        "xn--EXAMPLE-.com",
        "xn--bCher-kVa8445",
        "xn--u-ccb",
        "xn--a-ecp.ru",
        "xn--0ca24w",
        "xn--.-",
        "xn--/-",
        "xn--@-",
        // An A-label of an A-label, symbols, an unassigned code point, a surrogate, digits only, overflow.
        "xn--xn--bcher-kva-0z",
        "xn--g6h.example",
        "xn--e28h.example",
        "xn--4t7h",
        "xn--0000",
        "xn--99999999999",
        "xn--zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz",
        "\u{FF58}\u{FF4E}\u{FF0D}\u{FF0D}example-.com",
    ] {
        if let Ok(prepared) = prepare_domain(text) {
            panic!("{text} was taken for {prepared}");
        }
    }
}

#[test]
fn ip_literals_are_domains() {
    for (text, prepared) in [
        ("192.0.2.1", "192.0.2.1"),
        ("[::1]", "[::1]"),
        ("[2001:DB8::0:1]", "[2001:db8::1]"),
        ("[2001:db8:0:0:0:0:0:1]", "[2001:db8::1]"),
        ("[::ffff:192.0.2.1]", "[::ffff:192.0.2.1]"),
        ("[fe80::1%25en0]", "[fe80::1%25en0]"),
        ("[fe80::1%25%C3%A9]", "[fe80::1%25%C3%A9]"),
        ("[::1].", "[::1]"),
    ] {
        assert_eq!(prepare_domain(text).as_deref(), Ok(prepared), "{text}");
        let jid = Jid::parse(&format!("juliet@{text}/balcony")).unwrap();
        assert_eq!(parts(&jid), (Some("juliet"), prepared, Some("balcony")));
    }
    for text in [
        "[",
        "[]",
        "[::1",
        "::1",
        "[1.2.3.4]",
        "[::1]x",
        "[::1]:5222",
        "[g::]",
        "[fe80::1%25]",
        "[fe80::1%en0]",
        "[fe80::1%25e%g0]",
        "[fe80::1%25e%0]",
        "[v1.a]",
        "[::1%25a b]",
    ] {
        assert!(prepare_domain(text).is_err(), "{text}");
    }
}

#[test]
fn bare_and_full_jids_want_their_form() {
    assert_eq!(BareJid::parse("a@b/c"), Err(JidError::Resource));
    assert_eq!(FullJid::parse("a@b"), Err(JidError::EmptyResource));
    assert_eq!(BareJid::parse("A@B").unwrap(), "a@b");
    assert_eq!(FullJid::parse("A@B/C").unwrap().resource_str(), "C");
    assert_eq!(BareJid::of_domain("Example.COM.").unwrap(), "example.com");
    assert!(BareJid::of_domain("a@b").is_err());
    assert!(BareJid::of_domain("b/c").is_err());
    assert!(Jid::from_parts(Some("a@b"), "c", None).is_err());
    assert!(Jid::from_parts(Some("a/b"), "c", None).is_err());
    let bare = BareJid::parse("a@b").unwrap();
    let full = bare.with_resource("C/d@e").unwrap();
    assert_eq!(parts(&full), (Some("a"), "b", Some("C/d@e")));
    assert_eq!(full.to_bare(), bare);
    assert_eq!(bare.with_resource(""), Err(JidError::EmptyResource));
    assert_eq!(bare.domain_jid(), "b");
    assert_eq!(Jid::from(&full), full);
    assert_eq!(BareJid::try_from(Jid::from(&full)), Err(JidError::Resource));
    assert!(bare.to_full().is_none());
}

#[test]
fn the_same_account_is_seen_whatever_the_resource() {
    let jid = |text| Jid::parse(text).unwrap();
    assert!(jid("a@b/c").same_bare(&jid("a@b")));
    assert!(jid("a@b/c").same_bare(&jid("A@B/d")));
    assert!(jid("b/c").same_bare(&jid("b")));
    assert!(!jid("a@b").same_bare(&jid("b")));
    assert!(!jid("a@b").same_bare(&jid("a@bc")));
}

#[test]
fn a_set_of_jids_can_be_asked_by_text_and_by_jid() {
    let set: HashSet<BareJid> = [BareJid::parse("a@b").unwrap()].into();
    assert!(set.contains("a@b"));
    assert!(set.contains(&Jid::parse("a@b").unwrap()));
    assert!(!set.contains("a@c"));
}

/// XEP-0106 §5.1, table 3, and the other localparts of §4 and §5.
const ESCAPED: [(&str, &str); 18] = [
    ("space cadet", "space\\20cadet"),
    ("call me \"ishmael\"", "call\\20me\\20\\22ishmael\\22"),
    ("at&t guy", "at\\26t\\20guy"),
    ("d'artagnan", "d\\27artagnan"),
    ("/.fanboy", "\\2f.fanboy"),
    ("::foo::", "\\3a\\3afoo\\3a\\3a"),
    ("<foo>", "\\3cfoo\\3e"),
    ("user@host", "user\\40host"),
    ("c:\\net", "c\\3a\\net"),
    ("c:\\\\net", "c\\3a\\\\net"),
    ("c:\\cool stuff", "c\\3a\\cool\\20stuff"),
    ("c:\\5commas", "c\\3a\\5c5commas"),
    ("here's_a_wild_&_/cr%zy/_address", "here\\27s_a_wild_\\26_\\2fcr%zy\\2f_address"),
    ("\\3and\\2is\\5cool", "\\5c3and\\2is\\5c5cool"),
    ("\\2plus\\2is\\4", "\\2plus\\2is\\4"),
    ("foo\\bar", "foo\\bar"),
    ("foob\\41r", "foob\\41r"),
    ("tr\u{E9}ville@musketeers.lit", "tr\u{E9}ville\\40musketeers.lit"),
];

#[test]
fn the_examples_of_xep_0106_are_escaped_and_unescaped() {
    for (plain, escaped) in ESCAPED {
        assert_eq!(escape_local(plain).unwrap(), escaped);
        assert_eq!(unescape_local(escaped), plain);
        assert_eq!(prepare_local(escaped).as_deref(), Ok(escaped));
    }
}

#[test]
fn a_space_at_either_end_cannot_be_escaped() {
    assert_eq!(escape_local(" a"), Err(JidError::Local));
    assert_eq!(escape_local("a "), Err(JidError::Local));
    assert_eq!(unescape_local("\\20a\\20b\\20"), "\\20a b\\20");
    assert_eq!(unescape_local("\\20"), "\\20");
    assert_eq!(escape_local("\\20a\\20").unwrap(), "\\5c20a\\5c20");
    assert_eq!(unescape_local("\\5c20a\\5c20"), "\\20a\\20");
}

#[test]
fn only_lowercase_escapes_are_escapes() {
    assert_eq!(unescape_local("\\3A\\2F\\5C"), "\\3A\\2F\\5C");
}

/// Whatever prepared it, the text stands for itself and for nothing else.
fn holds_for_itself(jid: &Jid) -> Result<(), TestCaseError> {
    let again = Jid::parse(jid.as_str());
    prop_assert_eq!(again.as_ref(), Ok(jid));
    let again = again.expect("just compared");
    prop_assert_eq!(parts(&again), parts(jid));
    let rebuilt = Jid::from_parts(jid.local(), jid.domain(), jid.resource()).expect("parts of a JID");
    prop_assert_eq!(&rebuilt, jid);
    prop_assert_eq!(parts(&rebuilt), parts(jid));
    for part in [jid.local(), Some(jid.domain()), jid.resource()].into_iter().flatten() {
        prop_assert!((1..=PART_BYTES_MAX).contains(&part.len()));
    }
    let (bare, domain) = (jid.to_bare(), jid.domain_jid());
    prop_assert_eq!(bare.as_str(), jid.bare_str());
    prop_assert_eq!(parts(&bare), (jid.local(), jid.domain(), None));
    prop_assert_eq!(parts(&domain), (None, jid.domain(), None));
    Ok(())
}

/// Characters that mapping, normalisation, direction, context and separators care about.
fn awkward() -> impl Strategy<Value = char> {
    prop_oneof![
        4 => prop::char::range('!', '~'),
        2 => prop::sample::select("@/.-_\\ xn\u{3002}\u{FF0E}\u{FF61}".chars().collect::<Vec<_>>()),
        2 => prop::sample::select("\u{DF}\u{130}\u{131}\u{1E9E}\u{3A3}\u{3C2}\u{212A}\u{212B}\u{1C5}\u{345}\u{387}\u{37E}\u{340}\u{B7}l".chars().collect::<Vec<_>>()),
        2 => prop::char::range('\u{300}', '\u{36F}'),
        2 => prop::char::range('\u{FF01}', '\u{FFEE}'),
        1 => prop::char::range('\u{590}', '\u{6FF}'),
        1 => prop::char::range('\u{900}', '\u{DFF}'),
        1 => prop::char::range('\u{1100}', '\u{11FF}'),
        1 => prop::char::range('\u{1F00}', '\u{1FFF}'),
        1 => prop::char::range('\u{2000}', '\u{206F}'),
        1 => prop::char::range('\u{3040}', '\u{30FF}'),
        1 => prop::char::range('\u{AC00}', '\u{AC80}'),
        1 => prop::char::range('\u{F900}', '\u{FAFF}'),
        1 => prop::char::range('\u{FE00}', '\u{FE0F}'),
        1 => prop::char::range('\u{1D100}', '\u{1D200}'),
        1 => prop::char::range('\u{1F300}', '\u{1FAFF}'),
        2 => any::<char>(),
    ]
}

fn awkward_text(max: usize) -> impl Strategy<Value = String> {
    prop::collection::vec(awkward(), 0..max).prop_map(String::from_iter)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_text_is_refused_or_prepared_for_good(text in any::<String>()) {
        if let Ok(jid) = Jid::parse(&text) {
            holds_for_itself(&jid)?;
        }
    }

    #[test]
    fn awkward_text_is_refused_or_prepared_for_good(text in awkward_text(24)) {
        if let Ok(jid) = Jid::parse(&text) {
            holds_for_itself(&jid)?;
        }
    }

    #[test]
    fn a_prepared_localpart_is_prepared_for_good(text in awkward_text(6)) {
        if let Ok(local) = prepare_local(&text) {
            prop_assert_eq!(prepare_local(&local), Ok(local.clone()));
            prop_assert!(!local.contains(|c| "\"&'/:<>@ ".contains(c)));
            holds_for_itself(&Jid::from_parts(Some(&text), "example.com", None).expect("prepared before"))?;
        }
    }

    #[test]
    fn a_prepared_resourcepart_is_prepared_for_good(text in awkward_text(6)) {
        if let Ok(resource) = prepare_resource(&text) {
            prop_assert_eq!(prepare_resource(&resource), Ok(resource.clone()));
            holds_for_itself(&Jid::from_parts(None, "example.com", Some(&text)).expect("prepared before"))?;
        }
    }

    #[test]
    fn a_prepared_domainpart_is_prepared_for_good(text in awkward_text(6)) {
        if let Ok(domain) = prepare_domain(&text) {
            prop_assert_eq!(prepare_domain(&domain), Ok(domain.clone()));
            prop_assert!(!domain.split('.').any(|label| label.is_empty() || label.starts_with("xn--")));
            holds_for_itself(&Jid::parse(&domain).expect("prepared before"))?;
        }
    }

    #[test]
    fn whatever_an_a_label_decodes_to_is_no_longer_one(text in "[xX][nN]--[a-z0-9-]{1,20}(\\.[a-z]{1,5})?") {
        if let Ok(domain) = prepare_domain(&text) {
            prop_assert!(!domain.is_ascii(), "{} was taken for {}", text, domain);
            holds_for_itself(&Jid::parse(&domain).expect("prepared before"))?;
        }
    }

    #[test]
    fn equality_and_hash_are_those_of_the_text(a in "[ab]@[cd](/[eE])?", b in "[aAb]@[cCd](/[eE])?") {
        let state = RandomState::new();
        let (a, b) = (Jid::parse(&a).expect("legal"), Jid::parse(&b).expect("legal"));
        prop_assert_eq!(a == b, a.as_str() == b.as_str());
        prop_assert_eq!(state.hash_one(&a), state.hash_one(a.as_str()));
        prop_assert_eq!(a == b, state.hash_one(&a) == state.hash_one(&b));
        prop_assert_eq!(a.cmp(&b), a.as_str().cmp(b.as_str()));
        prop_assert_eq!(state.hash_one(a.to_bare()), state.hash_one(a.bare_str()));
    }

    #[test]
    fn what_is_escaped_holds_nothing_forbidden_and_comes_back(text in "[ -~]{0,20}") {
        if let Ok(escaped) = escape_local(&text) {
            prop_assert!(!escaped.contains(|c| "\"&'/:<>@ ".contains(c)));
            prop_assert_eq!(&*unescape_local(&escaped), &*text);
        }
    }

    #[test]
    fn backslashes_and_digits_come_back(text in "[\\\\2057cfa ]{0,12}") {
        if let Ok(escaped) = escape_local(&text) {
            prop_assert_eq!(&*unescape_local(&escaped), &*text);
        }
    }

    #[test]
    fn no_text_makes_unescaping_panic(text in any::<String>()) {
        let _ = unescape_local(&text);
    }
}
