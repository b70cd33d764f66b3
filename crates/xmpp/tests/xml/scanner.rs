//! What the scanner takes and what it refuses, in any cut.

use xmpp::ns;
use xmpp::xml::{Frame, Header, Limits, Scanner, XmlFault};

const HEADER: &str = "<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>";

/// Everything that `scanner` gives for these pieces, and how it ends.
fn scan(mut scanner: Scanner, pieces: &[&[u8]]) -> (Vec<Frame>, Result<(), XmlFault>) {
    let mut frames = Vec::new();
    for piece in pieces {
        let mut input = *piece;
        loop {
            match scanner.next(&mut input) {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(fault) => {
                    assert_eq!(scanner.next(&mut &b"<a/>"[..]), Err(fault.clone()), "a dead scanner stays dead");
                    assert_eq!(scanner.held_bytes(), 0);
                    return (frames, Err(fault));
                }
            }
        }
        assert!(input.is_empty());
    }
    (frames, Ok(()))
}

fn client() -> Scanner {
    Scanner::new(Limits::CLIENT)
}

/// As `scan`, in one piece, byte by byte, and in every cut in two: all must agree.
fn scan_in_all_cuts(make: impl Fn() -> Scanner, bytes: &[u8]) -> (Vec<Frame>, Result<(), XmlFault>) {
    let whole = scan(make(), &[bytes]);
    let single: Vec<&[u8]> = bytes.chunks(1).collect();
    assert_eq!(scan(make(), &single), whole, "byte by byte: {}", String::from_utf8_lossy(bytes));
    for at in 0..bytes.len() {
        assert_eq!(
            scan(make(), &[&bytes[..at], &bytes[at..]]),
            whole,
            "cut at {at}: {}",
            String::from_utf8_lossy(bytes)
        );
    }
    whole
}

/// The fault of one element on a client's stream, in any cut.
fn fault(element: impl AsRef<[u8]>) -> XmlFault {
    let bytes = [HEADER.as_bytes(), element.as_ref()].concat();
    match scan_in_all_cuts(client, &bytes) {
        (_, Err(fault)) => fault,
        (frames, Ok(())) => panic!("taken: {frames:?}"),
    }
}

fn is_taken(element: impl AsRef<[u8]>) {
    let bytes = [HEADER.as_bytes(), element.as_ref(), b" <end/>"].concat();
    let (frames, end) = scan_in_all_cuts(client, &bytes);
    assert_eq!(end, Ok(()), "{}", String::from_utf8_lossy(element.as_ref()));
    assert_eq!(frames.len(), 3, "{}", String::from_utf8_lossy(element.as_ref()));
}

fn header(text: &str) -> Header {
    match scan_in_all_cuts(client, text.as_bytes()) {
        (frames, Ok(())) => match &frames[..] {
            [Frame::Header(header)] => header.clone(),
            other => panic!("{other:?}"),
        },
        (_, Err(fault)) => panic!("{fault:?}"),
    }
}

fn header_fault(text: impl AsRef<[u8]>) -> XmlFault {
    scan_in_all_cuts(client, text.as_ref()).1.unwrap_err()
}

// --- Streams and their headers ---

#[test]
fn a_stream_is_a_header_then_elements_then_its_end() {
    let bytes = format!("<?xml version='1.0'?>\n{HEADER} <message/>\n\t<a xmlns='urn:x'><b/></a>\r\n</stream:stream> ");
    let (frames, end) = scan_in_all_cuts(client, bytes.as_bytes());
    assert_eq!(end, Ok(()));
    let names: Vec<String> = frames
        .iter()
        .map(|f| match f {
            Frame::Header(h) => format!("{} {} {}", h.name, h.ns, h.content_ns),
            Frame::Element(raw) => format!("{} {}", raw.name(), raw.ns()),
            Frame::Close => "end".into(),
        })
        .collect();
    assert_eq!(
        names,
        ["stream http://etherx.jabber.org/streams jabber:client", "message jabber:client", "a urn:x", "end"]
    );
}

#[test]
fn the_headers_attributes_are_unescaped() {
    let h = header(
        "<?xml version=\"1.0\" encoding='UTF-8'?><stream:stream to='a&amp;b' from=\"j@c\" id='&#x31;' version='1.0' xml:lang='de' \
         xmlns='jabber:server' xmlns:db='jabber:server:dialback' other='x' xmlns:stream='http://etherx.jabber.org/streams'>",
    );
    assert_eq!(h.to.as_deref(), Some("a&b"));
    assert_eq!(h.from.as_deref(), Some("j@c"));
    assert_eq!(h.id.as_deref(), Some("1"));
    assert_eq!(h.version.as_deref(), Some("1.0"));
    assert_eq!(h.lang.as_deref(), Some("de"));
    assert_eq!(h.content_ns, ns::SERVER);
    assert_eq!(h.prefixes, [("db".into(), "jabber:server:dialback".into()), ("stream".into(), ns::STREAM.into())]);
}

#[test]
fn a_header_without_prefix_has_the_stream_namespace_as_default() {
    let h = header("<stream xmlns='http://etherx.jabber.org/streams'>");
    assert_eq!((&*h.name, &*h.ns, &*h.content_ns), ("stream", ns::STREAM, ns::STREAM));
    let h = header("<foo:bar xmlns:foo='urn:x'>");
    assert_eq!((&*h.name, &*h.ns, &*h.content_ns), ("bar", "urn:x", ""));
}

#[test]
fn a_header_that_is_an_empty_element_ends_the_stream() {
    let (frames, end) = scan_in_all_cuts(client, HEADER.replace('>', "/>").as_bytes());
    assert_eq!(end, Ok(()));
    assert!(matches!(&frames[..], [Frame::Header(h), Frame::Close] if h.content_ns == ns::CLIENT));
}

#[test]
fn only_white_space_may_follow_the_end_of_the_stream() {
    assert!(matches!(fault("</stream:stream><message/>"), XmlFault::NotWellFormed(_)));
    assert!(matches!(fault("</stream:stream>x"), XmlFault::NotWellFormed(_)));
}

#[test]
fn the_end_of_the_stream_matches_its_header() {
    assert!(matches!(fault("</stream>"), XmlFault::NotWellFormed(_)));
    assert!(matches!(fault("</stream:streams>"), XmlFault::NotWellFormed(_)));
    assert!(matches!(fault("</stream:strea>"), XmlFault::NotWellFormed(_)));
    assert!(matches!(header_fault("</stream:stream>"), XmlFault::NotWellFormed(_)));
}

#[test]
fn a_restarted_stream_awaits_a_header_with_a_declaration() {
    let mut scanner = client();
    let mut input = HEADER.as_bytes();
    assert!(matches!(scanner.next(&mut input), Ok(Some(Frame::Header(_)))));
    scanner.restart();
    let second = format!("<?xml version='1.0'?>{}", HEADER.replace("client", "server"));
    let mut input = second.as_bytes();
    assert!(matches!(scanner.next(&mut input), Ok(Some(Frame::Header(h))) if h.content_ns == ns::SERVER));
}

#[test]
fn an_xml_declaration_stands_at_the_very_start_or_nowhere() {
    assert!(matches!(header_fault(format!(" <?xml version='1.0'?>{HEADER}")), XmlFault::Restricted(_)));
    assert!(matches!(
        header_fault(format!("<?xml version='1.0'?><?xml version='1.0'?>{HEADER}")),
        XmlFault::Restricted(_)
    ));
    assert!(matches!(fault("<?xml version='1.0'?>"), XmlFault::Restricted(_)));
    assert!(matches!(fault("<message><?xml version='1.0'?></message>"), XmlFault::Restricted(_)));
}

#[test]
fn declarations_say_version_1_0_and_utf_8_in_any_case() {
    for good in [
        "<?xml version='1.0'?>",
        "<?xml version=\"1.0\" encoding=\"utf-8\"?>",
        "<?xml  version = '1.0'\tencoding='UtF-8' ?>",
        "<?xml version='1.0' standalone='yes'?>",
        "<?xml version='1.0' encoding='UTF-8' standalone='no'?>",
    ] {
        header(&format!("{good}{HEADER}"));
    }
    for bad in [
        "<?xml?>",
        "<?xml ?>",
        "<?xml version='1.1'?>",
        "<?xml version='2.0'?>",
        "<?xml encoding='UTF-8'?>",
        "<?xml encoding='UTF-8' version='1.0'?>",
        "<?xml version='1.0'encoding='UTF-8'?>",
        "<?xml version='1.0' standalone='maybe'?>",
        "<?xml version='1.0' version='1.0'?>",
        "<?xml version='1.0' other='1'?>",
        "<?xml version='1.0\"?>",
        "<?xml version='1.0'>",
        "<?xml version='1.0' ?x?>",
        "<?xml version=1.0?>",
    ] {
        let fault = header_fault(format!("{bad}{HEADER}"));
        assert!(matches!(fault, XmlFault::NotWellFormed(_) | XmlFault::Restricted(_)), "{bad}: {fault:?}");
    }
    for other in ["UTF-16", "ISO-8859-1", "utf8", ""] {
        let fault = header_fault(format!("<?xml version='1.0' encoding='{other}'?>{HEADER}"));
        assert!(matches!(fault, XmlFault::Encoding(_)), "{other}");
    }
    assert!(matches!(header_fault(format!("<?xml version='1.0' {}?>", " ".repeat(500))), XmlFault::TooBig { .. }));
    assert!(matches!(header_fault("<?xml-stylesheet href='a'?>"), XmlFault::Restricted(_)));
    assert!(matches!(header_fault("<?php echo 1 ?>"), XmlFault::Restricted(_)));
}

#[test]
fn other_encodings_are_seen_at_the_first_bytes() {
    for bytes in [&b"\xFF\xFE<\0s\0"[..], b"\xFE\xFF\0<\0s", b"<\0s\0t\0", b"\0<\0s"] {
        assert!(matches!(header_fault(bytes), XmlFault::Encoding(_)), "{bytes:?}");
    }
    // RFC 6120 §11.6: U+FEFF is a character like any other, and no character stands before the header.
    assert!(matches!(header_fault(format!("\u{FEFF}{HEADER}")), XmlFault::NotWellFormed(_)));
    // A TLS record on a port where XML is expected.
    assert!(matches!(header_fault(b"\x16\x03\x01\x02"), XmlFault::NotWellFormed(_)));
}

#[test]
fn text_between_stanzas_is_told_from_white_space() {
    assert_eq!(fault("<message/>hello<message/>"), XmlFault::TextBetweenStanzas);
    assert_eq!(fault("&#32;"), XmlFault::TextBetweenStanzas);
    is_taken(" \t\r\n<message/>\r\n\r\n");
}

#[test]
fn faults_come_behind_the_frames_before_them() {
    let bytes = format!("{HEADER}<message/><iq/><broken<");
    let (frames, end) = scan_in_all_cuts(client, bytes.as_bytes());
    assert_eq!(frames.len(), 3);
    assert!(matches!(end, Err(XmlFault::NotWellFormed(_))));
}

// --- Restricted XML: RFC 6120 §11.1 ---

#[test]
fn comments_instructions_and_document_types_are_restricted() {
    for bad in [
        "<!-- c -->",
        "<message><!-- c --></message>",
        "<message><!--></message>",
        "<?foo bar?>",
        "<message><?foo bar?></message>",
        "<!DOCTYPE x>",
        "<message><!DOCTYPE x></message>",
        "<!ELEMENT x ANY>",
        "<message><![IGNORE[x]]></message>",
    ] {
        assert!(matches!(fault(bad), XmlFault::Restricted(_)), "{bad}");
    }
    for bad in [
        "<!DOCTYPE lolz [<!ENTITY lol 'lol'><!ENTITY lol2 '&lol;&lol;'>]><lolz>&lol2;</lolz>",
        "<!DOCTYPE foo SYSTEM 'http://127.0.0.1:1/evil.dtd'>",
        "<!DOCTYPE foo [<!ENTITY % p SYSTEM 'http://127.0.0.1:1/evil.ent'>%p;]>",
        "<?xml version='1.0'?><!DOCTYPE foo>",
        "<?xml version='1.0'?><!-- -->",
    ] {
        assert!(matches!(header_fault(bad), XmlFault::Restricted(_)), "{bad}");
    }
}

#[test]
fn references_to_entities_that_are_not_predefined_are_restricted() {
    for bad in ["<a>&foo;</a>", "<a b='&foo;'/>", "<a>&nbsp;</a>", "<a>&AMP;</a>", "<a>&a.b-c:d;</a>"] {
        assert!(matches!(fault(bad), XmlFault::Restricted(_)), "{bad}");
    }
    is_taken("<a b='&lt;&gt;&amp;&apos;&quot;&#65;&#x1F600;&#9;'>&lt;&gt;&amp;&apos;&quot;&#65;&#x1f600;&#13;</a>");
}

// --- Well-formedness ---

#[test]
fn what_is_not_well_formed_is_refused() {
    for bad in [
        "<a></b>",
        "<a><b></a></b>",
        "<a></a b='c'>",
        "<a></ a>",
        "< a/>",
        "<a/ >",
        "<a / >",
        "</a>",
        "<a b/>",
        "<a b=c/>",
        "<a b='c/></a>",
        "<a b='c'd='e'/>",
        "<a b='<'/>",
        "<a b='c' b='d'/>",
        "<a b='c' B='c' b='e'/>",
        "<a>]]></a>",
        "<a>x]]]>y</a>",
        "<a>& b</a>",
        "<a>&;</a>",
        "<a>&amp</a>",
        "<a>&amp b;</a>",
        "<a>&#;</a>",
        "<a>&#x;</a>",
        "<a>&#X41;</a>",
        "<a>&#12a;</a>",
        "<1a/>",
        "<-a/>",
        "<.a/>",
        "<a$/>",
        "<a 1b='c'/>",
        "<a b$='c'/>",
        "<a =''/>",
        "<>x</>",
        "<a<b/>",
        "<a b='c'<d/>",
        "<a\u{d7}/>",
        "<\u{b7}a/>",
        "<\u{300}a/>",
        "<a ='b'/>",
        "<a b =c/>",
        "<a b='c' 'd'/>",
        "<a b='c' =/>",
        "<a xmlns='urn:x'></b>",
        "<![CDATA[x]]>",
    ] {
        let fault = fault(bad);
        assert!(matches!(fault, XmlFault::NotWellFormed(_) | XmlFault::Restricted(_)), "{bad}: {fault:?}");
    }
}

#[test]
fn what_is_well_formed_is_taken() {
    for good in [
        "<a/>",
        "<a />",
        "<a\n/>",
        "<a></a >",
        "<a></a\n\t>",
        "<a b='c'/>",
        "<a b = 'c' />",
        "<a\tb\n=\n\"c\"\n></a>",
        "<a b='\"' c=\"'\"/>",
        "<a b='>' c='/>'/>",
        "<a>></a>",
        "<a>]]</a>",
        "<a>]>]]&gt;</a>",
        "<a b=']]>'/>",
        "<a>\t\n </a>",
        "<a b='\t\n'/>",
        "<ö/>",
        "<a·/>",
        "<a.-_1/>",
        "<_/>",
        "<a ö='ü'/>",
        "<𐀀 𐀀='𐀀'>𐀀</𐀀>",
        "<a>\u{7f}\u{80}\u{85}\u{9f}\u{2028}\u{feff}\u{fffd}\u{10ffff}</a>",
        "<a b='c' B='d'/>",
        "<a><![CDATA[<&>]]]]]]></a>",
        "<a><![CDATA[]]></a>",
        "<a>x<![CDATA[y]]>z</a>",
        "<a><![CDATA[]]]]><![CDATA[>]]></a>",
        "<a>\r\nx\ry</a>",
        "<a><b/><b></b>text<c><d/></c></a>",
    ] {
        is_taken(good);
    }
}

#[test]
fn characters_that_xml_forbids_are_refused_in_text_attributes_names_and_cdata() {
    for c in
        (0..0x20u32).chain([0xFFFE, 0xFFFF]).filter_map(char::from_u32).filter(|c| !matches!(c, '\t' | '\n' | '\r'))
    {
        for bad in [
            format!("<a>x{c}y</a>"),
            format!("<a>a long run of text before the offence, so that it is met in a block {c} and more</a>"),
            format!("<a b='x{c}y'/>"),
            format!("<a><![CDATA[x{c}y]]></a>"),
            format!("<a{c}/>"),
            format!("<a b{c}='c'/>"),
            format!("<a xmlns='urn:x{c}y'/>"),
        ] {
            assert!(matches!(fault(&bad), XmlFault::NotWellFormed(_)), "{bad:?}");
        }
    }
    for reference in [
        "&#0;",
        "&#1;",
        "&#xB;",
        "&#x1F;",
        "&#xD800;",
        "&#xDFFF;",
        "&#xFFFE;",
        "&#xFFFF;",
        "&#x110000;",
        "&#4294967361;",
    ] {
        assert!(matches!(fault(format!("<a>{reference}</a>")), XmlFault::NotWellFormed(_)), "{reference}");
        assert!(matches!(fault(format!("<a b='{reference}'/>")), XmlFault::NotWellFormed(_)), "{reference}");
    }
}

/// LIMITS.md §2 row 13.
#[test]
fn bytes_that_are_not_utf_8_are_refused_wherever_they_stand() {
    let bad: [&[u8]; 18] = [
        b"\x80", // alone
        b"\xBF",
        b"\xC3", // truncated
        b"\xE2\x82",
        b"\xF0\x9F\x98",
        b"\xC0\xAF", // overlong
        b"\xC1\xBF",
        b"\xE0\x80\xAF",
        b"\xF0\x80\x80\xAF",
        b"\xC0\x80",
        b"\xED\xA0\x80", // surrogates
        b"\xED\xBF\xBF",
        b"\xED\xA0\xBD\xED\xB8\x80",
        b"\xF4\x90\x80\x80", // out of range
        b"\xF5\x80\x80\x80",
        b"\xFE",
        b"\xFF",
        b"\xF8\x88\x80\x80\x80",
    ];
    for bytes in bad {
        for (before, after) in [
            ("<a>x", "y</a>"),
            ("<a>x", "</a>"),
            ("<a b='x", "y'/>"),
            ("<a b='x", "'/>"),
            ("<a><![CDATA[", "]]></a>"),
            ("<a", "/>"),
            ("<", "/>"),
            ("<a b", "='c'/>"),
            ("<a xmlns='urn:", "'/>"),
            ("<a xmlns:p='urn:", "'/>"),
            ("<a>&#65;", "&#65;</a>"),
        ] {
            let element = [before.as_bytes(), bytes, after.as_bytes()].concat();
            let fault = fault(&element);
            assert!(matches!(fault, XmlFault::Encoding(_)), "{}: {fault:?}", String::from_utf8_lossy(&element));
        }
    }
}

// --- Namespaces ---

#[test]
fn prefixes_are_declared() {
    for bad in [
        "<p:a/>",
        "<a p:b='c'/>",
        "<a><p:b/></a>",
        "<a><b xmlns:p='urn:p'/><p:c/></a>",
        "<xmlns:a/>",
        "<a xmlns:p='urn:p'/><p:b/>",
    ] {
        assert!(matches!(fault(bad), XmlFault::Prefix(_)), "{bad}");
    }
    for good in [
        "<p:a xmlns:p='urn:p'/>",
        "<a xmlns:p='urn:p' p:b='c'/>",
        "<a p:b='c' xmlns:p='urn:p'/>",
        "<a xmlns:p='urn:p'><p:b><p:c/></p:b></a>",
        "<stream:error/>",
        "<a stream:b='c'/>",
        "<xml:a/>",
        "<a xml:lang='en' xml:space='preserve'/>",
    ] {
        is_taken(good);
    }
}

#[test]
fn reserved_prefixes_and_namespaces_stay_what_they_are() {
    for bad in [
        "<a xmlns:xmlns='urn:x'/>",
        "<a xmlns:xmlns='http://www.w3.org/2000/xmlns/'/>",
        "<a xmlns:xml='urn:x'/>",
        "<a xmlns:p='http://www.w3.org/XML/1998/namespace'/>",
        "<a xmlns='http://www.w3.org/XML/1998/namespace'/>",
        "<a xmlns:p='http://www.w3.org/2000/xmlns/'/>",
        "<a xmlns='http://www.w3.org/2000/xmlns/'/>",
        "<a xmlns:p='http://www.w3.org/XML/1998/namespac&#101;'/>",
        "<a xmlns:p=''/>",
        "<a xmlns:p='urn:p'><b xmlns:p=''/></a>",
    ] {
        assert!(matches!(fault(bad), XmlFault::Prefix(_)), "{bad}");
    }
    is_taken("<a xmlns:xml='http://www.w3.org/XML/1998/namespace' xml:lang='en'/>");
    is_taken("<a xmlns:xmlish='urn:x'><xmlish:b/></a>");
    is_taken("<a xmlns='urn:x'><b xmlns=''/></a>");
}

#[test]
fn attributes_are_unique_by_expanded_name() {
    for bad in [
        "<a xmlns:p='urn:x' xmlns:q='urn:x' p:b='1' q:b='2'/>",
        "<a xmlns:p='urn:x' xmlns:q='urn:&#120;' p:b='1' q:b='2'/>",
        "<a xmlns:p='urn:x'><b xmlns:q='urn:x' p:b='1' c='' q:b='2'/></a>",
        "<a xmlns:p='urn:x' p:b='1' p:b='2'/>",
        "<a xmlns='urn:x' xmlns='urn:y'/>",
        "<a xmlns:p='urn:x' xmlns:p='urn:y'/>",
        "<a xml:lang='a' xml:lang='b'/>",
    ] {
        assert!(matches!(fault(bad), XmlFault::NotWellFormed(_)), "{bad}");
    }
    is_taken("<a xmlns:p='urn:x' xmlns:q='urn:y' p:b='1' q:b='2' b='3'/>");
    is_taken("<a xmlns='urn:x' xmlns:p='urn:x' p:b='1' b='2'/>");
}

#[test]
fn names_have_one_colon_at_most_and_something_on_either_side() {
    for bad in [
        "<:a/>",
        "<a:/>",
        "<:/>",
        "<p:a:b xmlns:p='urn:p'/>",
        "<p:1 xmlns:p='urn:p'/>",
        "<a :b='c'/>",
        "<a xmlns:='urn:p'/>",
        "<a p::b='c'/>",
        "<a xmlns:p:q='urn:p'/>",
    ] {
        assert!(matches!(fault(bad), XmlFault::NotWellFormed(_)), "{bad}");
    }
}

/// LIMITS.md §2 row 13: what another parser may take for the end of a namespace.
#[test]
fn separators_in_namespaces_are_refused() {
    for c in [
        " ", "&#9;", "&#10;", "&#13;", "\n", "\t", "|", "{", "}", "^", "`", "\\", "&quot;", "&lt;", "&gt;", ">",
        "\u{7f}",
    ] {
        for bad in [format!("<a xmlns='urn:x{c}y'/>"), format!("<a xmlns:p='urn:x{c}y'/>"), format!("<a xmlns='{c}'/>")]
        {
            assert!(matches!(fault(&bad), XmlFault::NotWellFormed(_)), "{bad:?}");
        }
    }
    for good in ["urn:x#y", "http://[::1]/?a=b&amp;c=d", "x!$'()*+,;=:@/~%20-._", "http://ö.example/", "n"] {
        is_taken(format!("<a xmlns=\"{good}\"/>"));
    }
}

/// RFC 6120 §4.8.5.
#[test]
fn a_prefix_for_the_content_namespace_is_refused() {
    for bad in [
        "<c:message xmlns:c='jabber:client'/>",
        "<message><c:body xmlns:c='jabber:client'>x</c:body></message>",
        "<message xmlns:c='jabber:client'><c:body>x</c:body></message>",
        "<message xmlns:c='jabber:clien&#116;'><c:body>x</c:body></message>",
        "<message><a><c:b xmlns:c='jabber:client'/></a></message>",
    ] {
        assert!(matches!(fault(bad), XmlFault::Prefix(_)), "{bad}");
    }
    is_taken("<message xmlns:c='jabber:client'><f xmlns='urn:f'><c:message/></f></message>");
    is_taken("<message xmlns:c='jabber:client'/>");
}

// --- Limits ---

fn with(limits: Limits) -> impl Fn() -> Scanner {
    move || Scanner::new(limits.clone())
}

/// Does an element pass these limits? `Err(what)` if not.
fn passes(limits: &Limits, element: &str) -> Result<(), &'static str> {
    let bytes = format!("{HEADER}{element}");
    match scan_in_all_cuts(with(limits.clone()), bytes.as_bytes()) {
        (frames, Ok(())) if frames.len() == 2 => Ok(()),
        (_, Err(XmlFault::TooBig { what, .. })) => Err(what),
        other => panic!("{other:?}"),
    }
}

#[test]
fn each_limit_is_inclusive_and_trips_at_one_more() {
    let base = Limits { elements_max: 100, depth_max: 100, ..Limits::BEFORE_AUTH };
    let limits = Limits { element_bytes_max: 120, ..base.clone() };
    assert_eq!(passes(&limits, &format!("<a>{}</a>", "x".repeat(113))), Ok(()));
    assert_eq!(passes(&limits, &format!("<a>{}</a>", "x".repeat(114))), Err("element"));
    let half = format!("<a>{}", "x".repeat(117));
    assert_eq!(passes(&limits, &half), Err("element"));

    let limits = Limits { elements_max: 3, ..base.clone() };
    assert_eq!(passes(&limits, "<a><b/><b/></a>"), Ok(()));
    assert_eq!(passes(&limits, "<a><b/><b/><b/></a>"), Err("elements"));
    assert_eq!(passes(&limits, "<a><b><c><d/></c></b></a>"), Err("elements"));

    let limits = Limits { depth_max: 3, ..base.clone() };
    assert_eq!(passes(&limits, "<a><b><c/><c></c></b></a>"), Ok(()));
    assert_eq!(passes(&limits, "<a><b><c><d/></c></b></a>"), Err("depth"));

    let limits = Limits { attributes_max: 2, declarations_max: 2, ..base.clone() };
    assert_eq!(passes(&limits, "<a b='' c='' xmlns='urn:x' xmlns:y='urn:y'/>"), Ok(()));
    assert_eq!(passes(&limits, "<a b='' c='' d=''/>"), Err("attributes"));
    assert_eq!(passes(&limits, "<a xmlns='urn:x' xmlns:y='urn:y' xmlns:z='urn:z'/>"), Err("namespace declarations"));

    let limits = Limits { name_bytes_max: 90, ..base.clone() };
    assert_eq!(passes(&limits, &format!("<{}/>", "n".repeat(90))), Ok(()));
    assert_eq!(passes(&limits, &format!("<{}/>", "n".repeat(91))), Err("name"));
    assert_eq!(passes(&limits, &format!("<a {}=''/>", "n".repeat(90))), Ok(()));
    assert_eq!(passes(&limits, &format!("<a {}=''/>", "n".repeat(91))), Err("name"));

    let limits = Limits { attribute_bytes_max: 90, ..base };
    assert_eq!(passes(&limits, &format!("<a b='{}'/>", "v".repeat(90))), Ok(()));
    assert_eq!(passes(&limits, &format!("<a b='{}'/>", "v".repeat(91))), Err("attribute"));
    assert_eq!(passes(&limits, &format!("<a b='{}'/>", "&amp;".repeat(19))), Err("attribute"));
}

#[test]
fn limits_are_tripped_before_the_element_ends() {
    let mut scanner = client();
    scanner.next(&mut HEADER.as_bytes()).unwrap();
    let endless = "<a/>".repeat(20_000);
    let mut input = &[b"<message>", endless.as_bytes()].concat()[..];
    let before = input.len();
    assert!(matches!(scanner.next(&mut input), Err(XmlFault::TooBig { what: "elements", .. })));
    assert!(before > Limits::CLIENT.element_bytes_max / 4);

    let mut scanner = client();
    scanner.next(&mut HEADER.as_bytes()).unwrap();
    let mut fault = None;
    let mut fed = 0;
    while fault.is_none() {
        let mut input = &b"<x>0123456789</x>"[..];
        fed += input.len();
        fault =
            scanner.next(&mut if fed == input.len() { &b"<message>"[..] } else { std::mem::take(&mut input) }).err();
    }
    assert!(matches!(fault, Some(XmlFault::TooBig { what: "elements", .. })));
    assert!(fed < 11_000 * 17);
}

#[test]
fn the_header_counts_as_an_element_does() {
    let limits = Limits { element_bytes_max: 200, ..Limits::BEFORE_AUTH };
    let long = HEADER.replace('>', &format!(" to='{}'>", "x".repeat(200)));
    let (_, end) = scan_in_all_cuts(with(limits.clone()), long.as_bytes());
    assert!(matches!(end, Err(XmlFault::TooBig { what: "element", max: 200 })));
    let many: String = (0..9).map(|i| format!(" xmlns:p{i}='urn:{i}'")).collect();
    let (_, end) = scan_in_all_cuts(with(Limits::BEFORE_AUTH), HEADER.replace('>', &format!("{many}>")).as_bytes());
    assert!(matches!(end, Err(XmlFault::TooBig { what: "namespace declarations", max: 8 })));
}

#[test]
fn white_space_between_stanzas_has_no_limit_and_is_not_held() {
    let mut scanner = Scanner::new(Limits::BEFORE_AUTH);
    scanner.next(&mut HEADER.as_bytes()).unwrap();
    for _ in 0..100 {
        assert_eq!(scanner.next(&mut &[b' '; 4096][..]), Ok(None));
        assert_eq!(scanner.held_bytes(), 0);
        assert!(!scanner.is_mid_frame());
    }
}

#[test]
fn new_limits_hold_from_the_next_element_on() {
    let mut scanner = Scanner::new(Limits::BEFORE_AUTH);
    scanner.next(&mut HEADER.as_bytes()).unwrap();
    let many = format!("<message>{}</message>", "<a/>".repeat(40));
    assert_eq!(scanner.next(&mut &b"<message><a/>"[..]), Ok(None));
    scanner.set_limits(Limits::CLIENT);
    assert!(matches!(scanner.next(&mut &b"</message>"[..]), Ok(Some(_))));
    assert!(matches!(scanner.next(&mut many.as_bytes()), Ok(Some(_))));
    scanner.set_limits(Limits::BEFORE_AUTH);
    assert!(matches!(scanner.next(&mut many.as_bytes()), Err(XmlFault::TooBig { what: "elements", max: 32 })));
}

/// LIMITS.md §2 row 29.
#[test]
fn deep_nesting_is_refused_while_it_is_read() {
    for depth in [65, 1_000, 5_000, 30_000] {
        let bytes = format!("{HEADER}{}", "<a>".repeat(depth));
        let (_, end) = scan(client(), &[bytes.as_bytes()]);
        assert!(matches!(end, Err(XmlFault::TooBig { what: "depth", max: 64 })));
    }
    let deepest = format!("{}{}", "<a>".repeat(64), "</a>".repeat(64));
    is_taken(&deepest);
    let element = xmpp::Element::parse(deepest.as_bytes(), "").unwrap();
    let copy = element.clone();
    assert_eq!(copy.to_bytes("").len(), deepest.len() - 3);
}

/// LIMITS.md §2 row 36.
#[test]
fn attributes_and_declarations_are_counted_before_they_are_compared() {
    let attributes: String = (0..100_000).map(|i| format!(" a{i}=''")).collect();
    let declarations: String = (0..100_000).map(|i| format!(" xmlns:p{i}='u'")).collect();
    let large = Limits { element_bytes_max: 16 << 20, ..Limits::CLIENT };
    for (text, what) in [(attributes, "attributes"), (declarations, "namespace declarations")] {
        let bytes = format!("{HEADER}<message{text}/>");
        let single: Vec<&[u8]> = bytes.as_bytes().chunks(1).collect();
        for pieces in [vec![bytes.as_bytes()], single] {
            let (_, end) = scan(Scanner::new(large.clone()), &pieces);
            assert!(matches!(end, Err(XmlFault::TooBig { what: w, .. }) if w == what), "{end:?}");
        }
    }
}

#[test]
fn prefixes_in_scope_are_bounded_though_each_tag_has_few() {
    let tag = |d: usize| format!("<a{}>", (0..16).map(|i| format!(" xmlns:p{d}x{i}='urn:x'")).collect::<String>());
    let bytes = format!("{HEADER}{}", (0..5).map(tag).collect::<String>());
    let (_, end) = scan(client(), &[bytes.as_bytes()]);
    assert!(matches!(end, Err(XmlFault::TooBig { what: "prefixes in scope", max: 64 })));
    let side_by_side = format!("<m>{}</m>", (0..9).map(|d| tag(d) + "</a>").collect::<String>());
    let (frames, end) = scan(client(), &[HEADER.as_bytes(), side_by_side.as_bytes()]);
    assert_eq!((frames.len(), end), (2, Ok(())));
}

#[test]
fn children_that_want_declarations_added_are_bounded() {
    let stanza = |n| format!("<message xmlns:p='urn:p'>{}</message>", "<p:a/><b/>".repeat(n));
    is_taken_in_one(&stanza(256));
    let (_, end) = scan(client(), &[HEADER.as_bytes(), stanza(257).as_bytes()]);
    assert!(matches!(end, Err(XmlFault::TooBig { max: 256, .. })), "{end:?}");
    let own = format!("<message>{}</message>", "<p:a xmlns:p='urn:p'/>".repeat(5_000));
    is_taken_in_one(&own);
}

fn is_taken_in_one(element: &str) {
    let (frames, end) = scan(client(), &[HEADER.as_bytes(), element.as_bytes()]);
    assert_eq!((frames.len(), end), (2, Ok(())));
}

// --- What is held ---

#[test]
fn nothing_is_held_between_frames_and_only_the_frame_within() {
    let mut scanner = client();
    assert_eq!((scanner.held_bytes(), scanner.is_mid_frame()), (0, false));
    let mut input = &HEADER.as_bytes()[..10];
    assert_eq!(scanner.next(&mut input), Ok(None));
    assert_eq!((scanner.held_bytes(), scanner.is_mid_frame()), (10, true));
    scanner.next(&mut &HEADER.as_bytes()[10..]).unwrap();
    assert_eq!((scanner.held_bytes(), scanner.is_mid_frame()), (0, false));
    let mut input = &b"  <message><body>hal"[..];
    assert_eq!(scanner.next(&mut input), Ok(None));
    assert_eq!((scanner.held_bytes(), scanner.is_mid_frame()), (18, true));
    let mut input = &b"lo</body></message><iq/>"[..];
    assert!(
        matches!(scanner.next(&mut input), Ok(Some(Frame::Element(raw))) if raw.bytes() == "<message><body>hallo</body></message>")
    );
    assert_eq!(input, b"<iq/>");
    assert_eq!((scanner.held_bytes(), scanner.is_mid_frame()), (0, false));
}

#[test]
fn what_stands_behind_a_frame_is_left_in_the_input() {
    let mut scanner = client();
    scanner.next(&mut HEADER.as_bytes()).unwrap();
    let mut input = &b"<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/><iq"[..];
    assert!(
        matches!(scanner.next(&mut input), Ok(Some(Frame::Element(raw))) if raw.name() == "starttls" && raw.ns() == ns::TLS)
    );
    assert_eq!(input, b"<iq");
    assert!(!scanner.is_mid_frame());
}

// --- Framed streams: RFC 7395 ---

#[test]
fn frames_of_a_framed_stream_say_their_own_namespace() {
    let framed = || Scanner::framed(Limits::CLIENT, ns::CLIENT);
    let bytes = b"<open xmlns='urn:ietf:params:xml:ns:xmpp-framing' to='a'/><message xmlns='jabber:client'><body>x</body></message><message/>";
    let (frames, end) = scan_in_all_cuts(framed, bytes);
    assert_eq!(end, Ok(()));
    let names: Vec<_> = frames
        .iter()
        .map(|f| match f {
            Frame::Element(raw) => (raw.name(), raw.ns(), xmpp::Stanza::kind_of(raw).is_some()),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(
        names,
        [("open", "urn:ietf:params:xml:ns:xmpp-framing", false), ("message", ns::CLIENT, true), ("message", "", false)]
    );
    for bad in ["</open>", "<?xml version='1.0'?><a/>", "<!DOCTYPE x>", "x", "<stream:stream>"] {
        assert!(scan_in_all_cuts(framed, bad.as_bytes()).1.is_err(), "{bad}");
    }
}
