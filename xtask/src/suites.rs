//! The server columns of the compliance suites, XEP-0479 §2, version 0.1.0.

use crate::xeps::Spec::{self, Rfc, Xep};

#[derive(Debug, Clone, Copy)]
pub enum Level {
    Server,
    Advanced,
}

impl Level {
    pub fn name(self) -> &'static str {
        match self {
            Level::Server => "server",
            Level::Advanced => "advanced server",
        }
    }
}

pub struct Suite {
    pub name: &'static str,
    pub features: &'static [Feature],
}

pub struct Feature {
    pub name: &'static str,
    /// The first level that wants it; the advanced one wants all.
    pub level: Level,
    /// All of these; inside, one of the alternatives.
    pub wants: &'static [&'static [Spec]],
}

const fn wants(name: &'static str, level: Level, wants: &'static [&'static [Spec]]) -> Feature {
    Feature { name, level, wants }
}

use Level::{Advanced, Server};

pub static SUITES: &[Suite] = &[
    Suite {
        name: "Core (§2.1)",
        features: &[
            wants("Core features", Server, &[&[Rfc(6120)]]),
            wants("TLS", Server, &[&[Rfc(7590)]]),
            wants("Direct TLS", Advanced, &[&[Xep(368)]]),
            wants("Feature discovery", Server, &[&[Xep(30)]]),
            wants("Feature broadcasts", Advanced, &[&[Xep(115)]]),
            wants("Server extensibility", Server, &[&[Xep(114)]]),
            wants("Event publishing", Advanced, &[&[Xep(163)]]),
        ],
    },
    Suite {
        name: "Web (§2.2)", features: &[wants("Web connection mechanisms", Server, &[&[Rfc(7395)], &[Xep(206)]])]
    },
    Suite {
        name: "IM (§2.3)",
        features: &[
            wants("Core features", Server, &[&[Rfc(6121)]]),
            wants("User avatar compatibility", Advanced, &[&[Xep(398)], &[Xep(153)]]),
            wants("vcard-temp", Server, &[&[Xep(54)]]),
            wants("Outbound message synchronization", Server, &[&[Xep(280)]]),
            wants("User blocking", Advanced, &[&[Xep(191)]]),
            wants("Group chat", Server, &[&[Xep(45)], &[Xep(249)]]),
            // And XEP-0313 of a room, which comes with the rooms: the account's own archive is another feature.
            wants("Advanced group chat", Advanced, &[&[Xep(48)], &[Xep(402)], &[Xep(410)]]),
            wants("Persistent storage of private data via PubSub", Advanced, &[&[Xep(223)]]),
            wants("Private XML storage", Advanced, &[&[Xep(49)]]),
            wants("Stream management", Advanced, &[&[Xep(198)]]),
            wants("History storage and retrieval", Advanced, &[&[Xep(313)]]),
            wants("File upload", Server, &[&[Xep(363)]]),
        ],
    },
    Suite {
        name: "Mobile (§2.4)",
        features: &[
            wants("Stream management", Server, &[&[Xep(198)]]),
            wants("Client state indication", Server, &[&[Xep(352)]]),
            wants("Third party push notifications", Advanced, &[&[Xep(357)]]),
        ],
    },
    Suite { name: "A/V calling (§2.5)", features: &[wants("STUN/TURN server discovery", Server, &[&[Xep(215)]])] },
];
