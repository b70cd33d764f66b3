//! Two servers with a user each, who see each other: for what is to be looked at step by step rather than in a storm.

use crate::network::Net;
use crate::node::{self, Names, Node};
use crate::random::Random;
use crate::scene;
use crate::stream::Stream;
use server::s2s::Federation;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;
use store::{Change, RosterItem, Subscription};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};
use xmpp::{BareJid, Element};

/// What does not come within this time does not come.
const PATIENCE: Duration = Duration::from_secs(600);

pub struct Pair {
    pub net: Net,
    pub nodes: Vec<Node>,
    random: Random,
}

/// The user of the n-th server.
pub fn jid(n: usize) -> String {
    format!("u0@{}", node::domain(n))
}

impl Pair {
    /// Both run. `prepare` is given the names and the servers before.
    pub async fn start(seed: u64, prepare: impl FnOnce(&mut Names, &mut [Node], &Net)) -> Pair {
        let mut random = Random::new(seed, 0);
        let net = Net::new(Random::new(random.draw(), 1));
        let mut names = Names { servers: 2, ..Names::default() };
        let mut nodes = Vec::new();
        let empty = Arc::new(Names::default());
        for n in 0..2 {
            let mut node = Node::new(n, &net, &empty, Random::new(random.draw(), 2));
            scene::prepare(&mut node, &[(n, jid(n))]);
            let account = BareJid::parse(&jid(n)).expect("its JIDs are good");
            let item = RosterItem {
                jid: BareJid::parse(&jid(1 - n)).expect("its JIDs are good"),
                name: None,
                groups: Vec::new(),
                subscription: Subscription { to: true, from: true, ..Subscription::default() },
                listed: true,
                version: 1,
            };
            scene::write(&node, &account, Change::RosterPut { account: account.clone(), item, version: 1 });
            nodes.push(node);
        }
        prepare(&mut names, &mut nodes, &net);
        let names = Arc::new(names);
        for node in &mut nodes {
            node.ask(&names);
            node.start().await;
        }
        Pair { net, nodes, random }
    }

    /// The user of the n-th server comes, and is available.
    pub async fn client(&mut self, n: usize) -> Client {
        self.client_of(n, "u0").await
    }

    pub async fn client_of(&mut self, n: usize, user: &str) -> Client {
        let host = self.net.host(IpAddr::V4(Ipv4Addr::new(8, 8, 8, n as u8 + 1)));
        let login = Stream::login(&host, node::address(n), &node::domain(n), user, &mut self.random).await;
        let ((says, said), (came, comes)) = (mpsc::channel(1), mpsc::channel(10_000));
        tokio::spawn(carry(login.expect("it can log in"), said, came));
        let mut client = Client { says, comes, heard: Vec::new() };
        client
            .send(
                "<iq type='set' id='bind'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'>\
                 <resource>here</resource></bind></iq>\
                 <iq type='get' id='roster'><query xmlns='jabber:iq:roster'/></iq><presence/>",
            )
            .await;
        client.hears(|it| it.attribute("id") == Some("roster")).await;
        client
    }

    pub fn federation(&self, n: usize) -> Arc<Federation> {
        let running = self.nodes[n].running.as_ref().expect("it runs");
        running.house.federation.get().expect("it federates").clone()
    }

    /// Nothing passes between the servers, in either direction, and nobody is told.
    pub fn wall(&self) {
        self.net.wall(node::address(0), node::address(1));
        self.net.wall(node::address(1), node::address(0));
    }

    pub fn open(&self) {
        self.net.open_all();
    }
}

/// A user's client. A task of its own answers the server's pings (XEP-0199).
pub struct Client {
    says: mpsc::Sender<String>,
    comes: mpsc::Receiver<Element>,
    /// What came and was not waited for.
    heard: Vec<Element>,
}

async fn carry(mut stream: Stream, mut says: mpsc::Receiver<String>, comes: mpsc::Sender<Element>) {
    loop {
        tokio::select! {
            biased;
            text = says.recv() => {
                let Some(text) = text else { return };
                stream.send(&text).await.expect("the server takes it");
            }
            next = stream.next() => {
                let Ok(Some(element)) = next else { return };
                if element.find("ping", "urn:xmpp:ping").is_some() {
                    let id = element.attribute("id").unwrap_or_default();
                    stream.send(&format!("<iq type='result' id='{id}'/>")).await.expect("the server takes it");
                } else if comes.send(element).await.is_err() {
                    return;
                }
            }
        }
    }
}

impl Client {
    pub async fn send(&mut self, text: &str) {
        self.says.send(text.into()).await.expect("the stream goes on");
    }

    pub async fn writes(&mut self, to: &str, text: &str) {
        self.send(&format!("<message type='chat' to='{to}' id='{text}'><body>{text}</body></message>")).await;
    }

    /// Waits for the first element that fits, also among what came before; gives it, and how long that took.
    pub async fn hears(&mut self, fits: impl Fn(&Element) -> bool) -> (Element, Duration) {
        self.hears_within(PATIENCE, fits).await.expect("it comes")
    }

    /// `None`: it does not come in that time.
    pub async fn hears_within(
        &mut self,
        length: Duration,
        fits: impl Fn(&Element) -> bool,
    ) -> Option<(Element, Duration)> {
        let began = Instant::now();
        if let Some(at) = self.heard.iter().position(&fits) {
            return Some((self.heard.remove(at), Duration::ZERO));
        }
        loop {
            let next = timeout_at(began + length, self.comes.recv()).await.ok()?;
            let element = next.expect("the stream goes on");
            if fits(&element) {
                return Some((element, began.elapsed()));
            }
            self.heard.push(element);
        }
    }

    /// Takes in what there is, for a while, and gives all that was not waited for.
    pub async fn rest(&mut self, length: Duration) -> Vec<Element> {
        self.hears_within(length, |_| false).await;
        std::mem::take(&mut self.heard)
    }
}

/// Presence of the n-th server's user: of this type, `None` is available.
pub fn presence(n: usize, kind: Option<&'static str>) -> impl Fn(&Element) -> bool {
    let from = format!("{}/here", jid(n));
    move |it| *it.name == *"presence" && it.attribute("from") == Some(&from) && it.attribute("type") == kind
}

/// A message with this text.
pub fn text(body: &str) -> impl Fn(&Element) -> bool {
    let body = body.to_owned();
    move |it| *it.name == *"message" && it.find("body", xmpp::ns::CLIENT).is_some_and(|it| it.text_content() == body)
}
