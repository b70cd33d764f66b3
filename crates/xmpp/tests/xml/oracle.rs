//! What we take, an independent parser takes too, and sees the same; on the stream it came by, and on each other that
//! it may leave by.

use crate::common::{
    CLIENT, CLIENT_OUT, COMPONENT, COMPONENT_OUT, FRAMED, PREFIX_FREE, SERVER, SERVER_OUT, Stream, Tree, is_content,
};
use proptest::prelude::*;
use xmpp::write::{Additions, Wire, to_stored, write_stanza};
use xmpp::xml::Raw;
use xmpp::{Element, Stanza, ns};

/// Does the scanner take `bytes` on `stream`? If so, checks all that must hold then.
fn check(stream: Stream, bytes: &[u8]) -> bool {
    let shown = || format!("{}{}", stream.header, String::from_utf8_lossy(bytes));
    let Ok(frames) = stream.scan(bytes) else { return false };
    if stream.header.is_empty() && frames.len() != 1 {
        return false;
    }
    let seen = stream.oracle(bytes).unwrap_or_else(|| panic!("only we take {:?}", shown()));
    let seen: Vec<Tree> = seen.into_iter().filter(Tree::is_element).collect();
    assert_eq!(seen.len(), frames.len(), "{}", shown());
    for (tree, raw) in seen.into_iter().zip(frames) {
        let canonical = tree.clone().with_content(stream.content_ns, ns::CLIENT);
        assert_eq!(Tree::of(&raw.to_element()), canonical, "{}", shown());
        check_canonical(&raw, &canonical);
        if let Some(stanza) = Stanza::kind_of(&raw).and_then(|_| Stanza::from_raw(raw).ok()) {
            check_forwarding(&stanza, tree, stream.content_ns);
        }
    }
    true
}

/// The bytes mean the same around `jabber:client`, and are taken as they are.
fn check_canonical(raw: &Raw, tree: &Tree) {
    let bytes = raw.bytes();
    let bare = Stream { header: "<stream:stream xmlns='jabber:client' xmlns:stream='urn:other'>", ..CLIENT };
    assert_eq!(bare.oracle(bytes), Some(vec![tree.clone()]), "{bytes:?}");
    let again = bare.scan(bytes).unwrap();
    assert_eq!(again.len(), 1);
    assert_eq!(again[0].bytes(), bytes);
    assert_eq!((again[0].name(), again[0].ns()), (raw.name(), raw.ns()));
    assert_eq!(Element::parse(bytes, ns::CLIENT).unwrap(), raw.to_element());
}

fn check_forwarding(stanza: &Stanza, tree: Tree, content_ns: &str) {
    let children: Vec<(String, String)> = match &tree {
        Tree::Element { nodes, .. } => nodes
            .iter()
            .filter_map(|n| match n {
                Tree::Element { ns, name, .. } if is_content(ns) => Some((name.clone(), ns::CLIENT.to_owned())),
                Tree::Element { ns, name, .. } => Some((name.clone(), ns.clone())),
                Tree::Text(_) => None,
            })
            .collect(),
        Tree::Text(_) => unreachable!("a stanza is an element"),
    };
    let read: Vec<_> = stanza.payload.children().map(|c| (c.name.to_owned(), c.ns.to_owned())).collect();
    assert_eq!(read, children);
    assert_eq!(stanza.payload.children_count(), children.len());
    for (wire, stream) in [
        (Wire::Client, CLIENT_OUT),
        (Wire::Server, SERVER_OUT),
        (Wire::Component, COMPONENT_OUT),
        (Wire::WebSocket, FRAMED),
    ] {
        let mut out = Vec::new();
        write_stanza(&mut out, stanza, None, &Additions::default(), wire);
        let expected = known_attributes_only(tree.clone().with_content(content_ns, stream.content_ns), stanza);
        let seen = stream.oracle(&out).unwrap_or_else(|| panic!("{wire:?}: {}", String::from_utf8_lossy(&out)));
        assert_eq!(seen, [expected], "{wire:?}: {}", String::from_utf8_lossy(&out));
        let mut back = stream.scan(&out).unwrap();
        assert_eq!(Stanza::from_raw(back.remove(0)).unwrap().payload.bytes(), stanza.payload.bytes());
    }
    assert_eq!(&Stanza::parse(&to_stored(stanza)).unwrap(), stanza);
}

/// Unprefixed attributes that RFC 6120 does not name are dropped when a stanza is forwarded; addresses are prepared.
fn known_attributes_only(mut tree: Tree, stanza: &Stanza) -> Tree {
    if let Tree::Element { attributes, .. } = &mut tree {
        attributes.retain(|(ns, name), _| !ns.is_empty() || name == "id");
        let (from, to) = (stanza.from.as_ref(), stanza.to.as_ref());
        let read = [("from", from.map(|j| j.as_str())), ("to", to.map(|j| j.as_str())), ("type", stanza.type_str())];
        for (name, value) in read {
            attributes.extend(value.map(|v| ((String::new(), name.to_owned()), v.to_owned())));
        }
    }
    tree
}

const STREAMS: [Stream; 5] = [CLIENT, SERVER, COMPONENT, FRAMED, PREFIX_FREE];

/// Elements that are interesting somewhere.
const CORPUS: &[&str] = &[
    "<message/>",
    "<message id='1' type='chat' foo='x'><body>hi &lt; you</body></message>",
    "<message xmlns='jabber:client'><body>hi</body></message>",
    "<message xmlns='jabber:server'><body xmlns='jabber:server'>hi</body></message>",
    "<message xmlns='jabber:component:accept'><body/></message>",
    "<message><body xmlns='jabber:client'>hi</body><b/></message>",
    "<message xmlns='jabber:client'><body xmlns='jabber:client'>hi<x xmlns='jabber:client'/></body></message>",
    "<message><body xmlns='jabber:server'>hi<c/></body></message>",
    "<message><forwarded xmlns='urn:xmpp:forward:0'><message xmlns='jabber:client'><body>x</body></message></forwarded></message>",
    "<message><forwarded xmlns='urn:xmpp:forward:0'><message xmlns='jabber:server'><body>x</body></message></forwarded></message>",
    "<message><f:forwarded xmlns:f='urn:xmpp:forward:0'><message><body>x</body></message><f:x><y/></f:x></f:forwarded></message>",
    "<message xmlns='jabber:client'><f:forwarded xmlns:f='urn:xmpp:forward:0'><message><body>x</body></message></f:forwarded></message>",
    "<message><body xmlns='jabber:client'><f:x xmlns:f='urn:f'><y/></f:x></body></message>",
    "<message xmlns:p='urn:p'><p:x/><body p:y='1'/><z xmlns='urn:z'><p:a/></z></message>",
    "<message xmlns:p='urn:p' p:attribute='1' xml:lang='en' xml:space='preserve'><p:x/></message>",
    "<message h:attribute='1'><h:x/><y xmlns='urn:y' h:a='b'/><z xmlns:h='urn:other'><h:a/></z></message>",
    "<message xmlns:h='urn:shadow' h:attribute='1'><h:x/></message>",
    "<message><h:x xmlns:p='urn:p'><p:y/><h:z/></h:x></message>",
    "<message xmlns:p='urn:a' xmlns:q='urn:b'><p:x q:y='1'><q:z/></p:x><q:w/></message>",
    "<message><stream:x/></message>",
    "<stream:features><mechanisms xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/><other/></stream:features>",
    "<stream:error><x/><y><z/></y></stream:error>",
    "<h:result from='a' to='b'>key</h:result>",
    "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>AGE=</auth>",
    "<a xmlns='urn:a'><b/><c xmlns=''><d/></c></a>",
    "<a xmlns=''><b/></a>",
    "<message><x xmlns=''><y/></x></message>",
    "<message><![CDATA[<x>&amp;]]><body><![CDATA[a]]b]]></body></message>",
    "<message><body><![CDATA[a]]]]>></body></message>",
    "<message><body>x]]<![CDATA[>]]></body></message>",
    "<message><body>a\r\nb\rc&#13;d</body><x a='1\r\n2\t3&#10;4&#13;'\r\n/></message>",
    "<message\r\nid='1'\r></message\r>",
    "<message><xml:x/><y xml:lang='de' xml:foo='1'/></message>",
    "<xml:x/>",
    "<message><x xmlns='urn:a&amp;b'/><p:y xmlns:p='urn:a&amp;b'/></message>",
    "<message><x xmlns='jabber&#58;client'/><y xmlns='&#106;abber:client'/></message>",
    "<message><x a=\"it's\" b='\"'/><body>\"'></body></message>",
    "<message id='a&#9;b&#10;c&#13;d&amp;&lt;&quot;&apos;' type='cha&#116;'/>",
    "<message id='ü😀' type='unheard'><body>größer 😀 \u{85}\u{2028}</body></message>",
    "<presence><show>away</show><priority>5</priority></presence>",
    "<iq type='get' id='1'><query xmlns='jabber:iq:roster'/></iq>",
    "<iq type='result' id='1'/>",
    "<message from='juliet@example.com/balcony' to='romeo@example.net'/>",
    "<ö:message xmlns:ö='urn:ö'><ä ö:ü='ß'/></ö:message>",
    "<message>\n  <body>x</body>\n  text <y xmlns='urn:y'/>\n</message>",
    "<c:message xmlns:c='jabber:client'/>",
    "<message xmlns:c='jabber:client'><c:body/></message>",
    "<message xmlns:c='jabber:client'><x xmlns='urn:x'><c:body/><body xmlns='jabber:client'/></x></message>",
];

#[test]
fn the_corpus_means_the_same_on_every_stream() {
    let mut taken = 0;
    for stream in STREAMS {
        for element in CORPUS {
            taken += usize::from(check(stream, element.as_bytes()));
        }
    }
    // Frames have no prefixes around them, and the prefixes of the content namespace are refused.
    assert!(taken > STREAMS.len() * CORPUS.len() * 8 / 10, "{taken}");
}

#[test]
fn every_cut_of_the_corpus_gives_the_same() {
    for element in CORPUS {
        let bytes = [SERVER.header, element, " <end/>"].concat();
        let whole = cut_bytes(bytes.as_bytes(), &[]);
        for at in 0..bytes.len() {
            assert_eq!(cut_bytes(bytes.as_bytes(), &[at]), whole, "{element} at {at}");
        }
        let all: Vec<usize> = (0..bytes.len()).collect();
        assert_eq!(cut_bytes(bytes.as_bytes(), &all), whole, "{element} byte by byte");
    }
}

/// Makes a document of a list of decisions.
struct Maker<'a> {
    decisions: std::slice::Iter<'a, u8>,
    out: String,
    /// Now and then something is wrong.
    sloppy: bool,
}

impl Maker<'_> {
    fn pick(&mut self, n: usize) -> usize {
        self.decisions.next().map_or(0, |d| usize::from(*d) % n)
    }

    fn one_of(&mut self, of: &[&str]) {
        let i = self.pick(of.len());
        self.out.push_str(of[i]);
    }

    fn element(&mut self, depth: usize, prefixes: &mut Vec<&'static str>) {
        const PREFIXES: [&str; 4] = ["p", "q", "h", "ö"];
        const NAMESPACES: [&str; 9] = [
            "urn:p",
            "urn:q",
            "jabber:client",
            "jabber:server",
            "jabber:component:accept",
            "urn:a&amp;b",
            "urn:&#112;",
            "",
            "urn:header",
        ];
        let before = prefixes.len();
        let mut declarations = String::new();
        for _ in 0..self.pick(3) {
            let ns = NAMESPACES[self.pick(NAMESPACES.len())];
            match PREFIXES.get(self.pick(6)) {
                Some(p) if declarations.contains(&format!(":{p}=")) && !self.sloppy => {}
                // A prefix is not undeclared.
                Some(p) if !ns.is_empty() || self.sloppy => {
                    prefixes.push(p);
                    declarations += &format!(" xmlns:{p}='{ns}'");
                }
                None if self.sloppy || !declarations.contains(" xmlns=") => declarations += &format!(" xmlns=\"{ns}\""),
                _ => {}
            }
        }
        let name = match self.pick(4) {
            0 if !prefixes.is_empty() => {
                let i = self.pick(prefixes.len());
                format!("{}:x", prefixes[i])
            }
            1 if self.sloppy => "q:y".into(),
            _ => ["body", "x", "message", "ä"][self.pick(4)].to_owned(),
        };
        let name = match depth {
            0 if self.pick(8) < 7 => "message".to_owned(),
            _ => name,
        };
        self.out.push('<');
        self.out.push_str(&name);
        let mut attributes: Vec<String> = vec![declarations];
        for i in 0..self.pick(4) {
            let value =
                ["1", "a&lt;b", "it&apos;s", "tab\there", "line\r\nend", "&#10;", ">", "]]>", "ü"][self.pick(9)];
            attributes.push(match self.pick(4) {
                0 if !prefixes.is_empty() => {
                    let p = prefixes[self.pick(prefixes.len())];
                    format!(" {p}:a{i}='{value}'")
                }
                1 => format!(" xml:lang{}=\"{value}\"", ["", "x"][self.pick(2)]),
                2 => format!(" id='{value}'"),
                _ => format!(" a{i} = '{value}'"),
            });
        }
        if !self.sloppy {
            attributes.sort();
            attributes.dedup_by_key(|a| a.split('=').next().unwrap_or_default().trim().to_owned());
        }
        self.out.extend(attributes);
        if self.pick(4) == 0 {
            self.one_of(&["/>", " />", "\n/>"]);
        } else {
            self.one_of(&[">", " >", "\r\n>"]);
            for _ in 0..self.pick(5) {
                match self.pick(6) {
                    0..=2 if depth < 5 => self.element(depth + 1, prefixes),
                    3 => self.one_of(&["<![CDATA[a<b&c]]]]>", "<![CDATA[]]>", "<![CDATA[\r]]>", "<![CDATA[ä]>]]>"]),
                    _ => self.one_of(&[
                        "text",
                        " ",
                        "\n",
                        "\r\n",
                        "\r",
                        "&amp;",
                        "&#13;",
                        ">",
                        "]]",
                        "]",
                        "ä😀",
                        "&#x1F600;",
                    ]),
                }
            }
            self.out.push_str("</");
            self.out.push_str(&name);
            self.one_of(&[">", " >"]);
        }
        if self.sloppy && self.pick(16) == 0 {
            self.one_of(&["<", "]]>", "&", "</x>", "<!-- -->", "&foo;", "\u{1}", "<?x?>", "\u{FFFE}"]);
        }
        prefixes.truncate(before);
    }
}

fn document(decisions: &[u8], sloppy: bool, header_prefix: bool) -> String {
    let mut maker = Maker { decisions: decisions.iter(), out: String::new(), sloppy };
    let mut prefixes = if header_prefix { vec!["h"] } else { vec![] };
    maker.element(0, &mut prefixes);
    maker.out
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_made_by_the_rules_means_the_same_on_every_stream(decisions in prop::collection::vec(any::<u8>(), 0..200), stream in 0..STREAMS.len()) {
        let stream = STREAMS[stream];
        let text = document(&decisions, false, !stream.header.is_empty());
        let taken = check(stream, text.as_bytes());
        // By the rules of XML, that is: RFC 6120 §4.8.5 and expanded names are others.
        let refused_for_a_reason = (stream.scan(text.as_bytes()).err() == Some(xmpp::xml::XmlFault::CONTENT_PREFIXED))
            || stream.oracle(text.as_bytes()).is_none();
        prop_assert!(taken || refused_for_a_reason, "{}: {:?}", text, stream.scan(text.as_bytes()));
    }

    #[test]
    fn what_is_made_sloppily_is_refused_or_means_the_same(decisions in prop::collection::vec(any::<u8>(), 0..200), stream in 0..STREAMS.len()) {
        check(STREAMS[stream], document(&decisions, true, true).as_bytes());
    }

    #[test]
    fn what_is_damaged_is_refused_or_means_the_same(
        element in 0..CORPUS.len(),
        stream in 0..STREAMS.len(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), 0..4u8, any::<u8>(), 0..DAMAGE.len()), 1..4),
    ) {
        let mut bytes = CORPUS[element].as_bytes().to_vec();
        for (at, how, byte, piece) in damage {
            let at = at.index(bytes.len() + 1);
            match how {
                0 => bytes.insert(at, byte),
                1 if at < bytes.len() => { bytes.remove(at); }
                2 if at < bytes.len() => bytes[at] = byte,
                _ => { bytes.splice(at..at, DAMAGE[piece].bytes()); }
            }
        }
        check(STREAMS[stream], &bytes);
    }

    #[test]
    fn any_cuts_give_the_same(decisions in prop::collection::vec(any::<u8>(), 0..150), mut at in prop::collection::vec(any::<prop::sample::Index>(), 0..6), sloppy: bool) {
        let bytes = format!("{}{}<end/>", SERVER.header, document(&decisions, sloppy, true));
        let mut at: Vec<usize> = at.drain(..).map(|i| i.index(bytes.len())).collect();
        at.sort_unstable();
        prop_assert_eq!(cut_bytes(bytes.as_bytes(), &at), cut_bytes(bytes.as_bytes(), &[]));
    }
}

fn cut_bytes(bytes: &[u8], at: &[usize]) -> (Vec<xmpp::xml::Frame>, Option<xmpp::xml::XmlFault>) {
    let mut scanner = SERVER.scanner();
    let mut frames = Vec::new();
    let mut from = 0;
    for &to in at.iter().chain([&bytes.len()]) {
        let mut input = &bytes[from..to];
        from = to;
        loop {
            match scanner.next(&mut input) {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(fault) => return (frames, Some(fault)),
            }
        }
    }
    (frames, None)
}

const DAMAGE: &[&str] = &[
    "<",
    ">",
    "/",
    "'",
    "\"",
    "&",
    ";",
    "=",
    ":",
    " ",
    "\r",
    "\n",
    "\0",
    "]]>",
    "<![CDATA[",
    "<!--",
    "<?",
    "</",
    "/>",
    "&amp;",
    "&#13;",
    "&#0;",
    "xmlns",
    " xmlns='urn:x'",
    " xmlns:h=''",
    " xmlns:p='urn:p'",
    "p:",
    "h:",
    "xml:",
    "xmlns:",
    "<x>",
    "</x>",
    "\u{FFFF}",
    "ö",
    "\u{300}",
    "jabber:client",
];
