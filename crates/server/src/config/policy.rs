//! What the deciding crates are given of the configuration.

use super::check::contact_lists;
use super::{Config, Host, HostOptions, Limits, Registration, ResourceConflict};
use crate::crypto::AwsLc;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::sync::Arc;
use stream::{Crypto, Hash};
use xmpp::BareJid;

impl Limits {
    /// What the scanner counts before authentication.
    pub fn before_auth(&self) -> xmpp::xml::Limits {
        xmpp::xml::Limits {
            element_bytes_max: self.before_auth_bytes_max,
            elements_max: self.before_auth_elements_max,
            depth_max: self.before_auth_depth_max,
            attributes_max: self.before_auth_attributes_max,
            declarations_max: self.before_auth_declarations_max,
            name_bytes_max: self.name_bytes_max,
            attribute_bytes_max: self.attribute_bytes_max,
        }
    }

    /// What it counts on an authenticated client's stream.
    pub fn after_auth(&self) -> xmpp::xml::Limits {
        xmpp::xml::Limits {
            element_bytes_max: self.stanza_bytes_max,
            elements_max: self.stanza_elements_max,
            depth_max: self.stanza_depth_max,
            attributes_max: self.stanza_attributes_max,
            declarations_max: self.stanza_declarations_max,
            name_bytes_max: self.name_bytes_max,
            attribute_bytes_max: self.attribute_bytes_max,
        }
    }

    /// What it counts on an authenticated server's stream.
    pub fn after_auth_of_servers(&self) -> xmpp::xml::Limits {
        xmpp::xml::Limits { element_bytes_max: self.s2s_stanza_bytes_max, ..self.after_auth() }
    }

    /// What it counts on a component's stream that has proved its secret.
    pub fn after_auth_of_components(&self) -> xmpp::xml::Limits {
        xmpp::xml::Limits { element_bytes_max: self.component_stanza_bytes_max, ..self.after_auth() }
    }

    /// What an account's entity is bound by.
    pub fn of_accounts(&self) -> im::Limits {
        im::Limits {
            sessions_per_account_max: self.sessions_per_account_max,
            roster_items_max: self.roster_items_max,
            roster_bytes_max: self.roster_bytes_max,
            groups_per_item_max: self.groups_per_item_max,
            block_items_max: self.block_items_max,
            offline_messages_max: self.offline_messages_max,
            offline_bytes_max: self.offline_bytes_max,
            offline_days_max: self.offline_days_max,
            unacked_stanzas_max: self.unacked_stanzas_max,
            unacked_bytes_max: self.unacked_bytes_max,
            resume_seconds_default: self.resume_seconds_default,
            resume_seconds_max: self.resume_seconds_max,
            hibernated_per_account_max: self.hibernated_per_account_max,
            directed_max: self.directed_presence_max,
            private_bytes_max: self.private_bytes_max,
            vcard_bytes_max: self.vcard_bytes_max,
            pep_nodes_max: self.pep_nodes_max,
            pep_items_max: self.pep_items_max,
            pep_item_bytes_max: self.pep_item_bytes_max,
            pep_bytes_max: self.pep_bytes_max,
            requests_max: self.requests_max,
            strangers_per_minute: self.rates.then_some(self.strangers_per_minute),
            stranger_messages_per_minute: self.rates.then_some(self.stranger_messages_per_minute),
            archive_days_max: self.archive_days_max,
            archive_records_max: Some(self.archive_messages_max).filter(|max| *max > 0),
            archive_bytes_max: self.archive_bytes_max,
            archive_page_default: self.archive_page_default,
            archive_page_max: self.archive_page_max,
            watchers_max: self.watchers_max,
            watchers_days_max: self.watchers_days_max,
            fetches_per_minute: self.fetches_per_minute,
            fetches_per_domain_per_minute: self.fetches_per_domain_per_minute,
        }
    }
}

impl Config {
    /// Sorted; a name that is none stands for nobody.
    fn anonymous_domains(&self, options: &HostOptions) -> Vec<Box<str>> {
        let here = self.hosts.iter().filter(|host| host.options.anonymous).map(|host| host.domain.clone());
        let elsewhere = options.anonymous_domains.iter().filter_map(|name| BareJid::of_domain(name).ok());
        let mut all: Vec<Box<str>> = here.chain(elsewhere.map(|jid| jid.as_str().into())).collect();
        all.sort();
        all.dedup();
        all
    }

    /// What `im` is told of a host. The domain was prepared when the configuration was read.
    ///
    /// # Errors
    /// Only for a [`Host`] that was not made by reading a configuration.
    pub fn policy(&self, host: &Host) -> Result<im::HostPolicy, xmpp::JidError> {
        let options = &host.options;
        Ok(im::HostPolicy {
            limits: self.limits.of_accounts(),
            archive: options.archive,
            fulltext: self.store.fulltext,
            presence: options.presence,
            messages: options.messages,
            client_presence: options.client_presence,
            client_messages: options.client_messages,
            server_presence: options.server_presence,
            server_messages: options.server_messages,
            solicited_presence: options.solicited_presence,
            anonymous_domains: self.anonymous_domains(options),
            resource_conflict: match options.resource_conflict {
                ResourceConflict::Replace => im::policy::ResourceConflict::ReplaceOld,
                ResourceConflict::Rename => im::policy::ResourceConflict::Rename,
                ResourceConflict::Refuse => im::policy::ResourceConflict::RefuseNew,
            },
            contact_addresses: contact_lists(options)
                .into_iter()
                .filter(|(_, list)| !list.is_empty())
                .map(|(purpose, list)| (format!("{purpose}-addresses"), list.clone()))
                .collect(),
            vcards_public: options.vcards_public,
            password_change: options.password_change,
            account_removal: options.account_removal,
            external_services: options.external_services.iter().map(|uri| uri.service.clone()).collect(),
            turn: turn(options),
            resume_location: options.resume_location.as_deref().map(Into::into),
            services: self.services_of(&host.domain),
            registration_open: options.registration == Registration::Open,
            registration_by_invitation: options.registration == Registration::Invite,
            user_invites: options.user_invites,
            ..im::HostPolicy::of(BareJid::of_domain(&host.domain)?)
        })
    }
}

impl super::ClassOptions {
    /// What differs for the accounts of the class.
    pub fn apply(&self, policy: &mut im::HostPolicy) {
        fn put<T: Copy>(of_class: Option<T>, limit: &mut T) {
            if let Some(value) = of_class {
                *limit = value;
            }
        }
        policy.user_invites &= self.invites;
        let limits = &mut policy.limits;
        put(self.sessions_per_account_max, &mut limits.sessions_per_account_max);
        put(self.roster_items_max, &mut limits.roster_items_max);
        put(self.offline_messages_max, &mut limits.offline_messages_max);
        put(self.offline_bytes_max, &mut limits.offline_bytes_max);
        put(self.archive_bytes_max, &mut limits.archive_bytes_max);
        put(self.archive_days_max, &mut limits.archive_days_max);
        put(self.pep_bytes_max, &mut limits.pep_bytes_max);
        put(self.strangers_per_minute.map(Some), &mut limits.strangers_per_minute);
    }
}

impl Config {
    /// The components that a host lists, XEP-0030 §4: those of domains below its own, and those that are below none.
    fn services_of(&self, host: &str) -> Vec<(xmpp::Jid, String)> {
        let is_below = |domain: &str, host: &str| domain.strip_suffix(host).is_some_and(|rest| rest.ends_with('.'));
        let listed = self.components.iter().filter(|component| {
            is_below(component.domain(), host) || !self.hosts.iter().any(|it| is_below(component.domain(), &it.domain))
        });
        listed.filter_map(|it| Some((BareJid::of_domain(it.domain()).ok()?.into(), it.label.clone()))).collect()
    }
}

/// The first line of a file.
///
/// # Errors
/// For people: it cannot be read, or is empty.
pub fn read_secret(file: &std::path::Path) -> Result<zeroize::Zeroizing<String>, String> {
    let text = std::fs::read_to_string(file).map_err(|error| format!("{} cannot be read: {error}", file.display()))?;
    let text = zeroize::Zeroizing::new(text);
    match text.lines().next().map(str::trim) {
        Some(line) if !line.is_empty() => Ok(zeroize::Zeroizing::new(line.to_owned())),
        Some(_) | None => Err(format!("{} holds no secret", file.display())),
    }
}

/// How credentials for the host's TURN servers are made. A file that cannot be read any more was readable when the
/// configuration was checked: no credentials are better than bad ones.
fn turn(options: &HostOptions) -> Option<im::policy::Turn> {
    let path = options.turn_secret.as_ref()?;
    let secret = match std::fs::read_to_string(path) {
        Ok(text) => text.trim().as_bytes().to_vec(),
        Err(error) => {
            tracing::error!(file = %path.display(), %error, "the secret of the TURN servers cannot be read");
            return None;
        }
    };
    let sign = move |name: &str| STANDARD.encode(AwsLc.hmac(Hash::Sha1, &secret, name.as_bytes()));
    Some(im::policy::Turn { seconds: options.turn_seconds, sign: im::policy::Signer(Arc::new(sign)) })
}
