//! One certificate from the authority: account, order, challenges, request, chain. RFC 8555 §7.

use super::answers::{Answering, Answers};
use super::client::Client;
use super::keeper::{Issue, Issued, Issuing, Kind, Trouble};
use crate::config::{Acme, AcmeChallenge, Config};
use base64::Engine;
use instant_acme::{
    Account, AccountCredentials, AuthorizationStatus, ChallengeType, Error, ExternalAccountKey, Identifier, NewAccount,
    NewOrder, Order, OrderStatus, Problem, RetryPolicy,
};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// For one certificate in all.
const PATIENCE: Duration = Duration::from_secs(300);
/// How long the authority has to look, and to sign.
const LOOKS_WITHIN: Duration = Duration::from_secs(90);
/// How many orders are begun when the authority refuses one nonce after the other (each request is made three times by
/// the library). RFC 8555 §6.5.
const ORDERS_MAX: usize = 3;

pub struct Authority {
    acme: Acme,
    folder: PathBuf,
    answers: Arc<Answers>,
}

impl Authority {
    pub fn new(config: &Config, answers: Arc<Answers>) -> Authority {
        Authority { acme: config.acme.clone(), folder: config.acme_folder(), answers }
    }

    /// The account here, as it was kept or a new one. RFC 8555 §7.3.
    async fn account(&self) -> Result<Account, Trouble> {
        let http = Box::new(Client::new(&self.acme)?);
        let file = self.folder.join(format!("{}.account", file_name(&self.acme.directory)));
        match std::fs::read(&file) {
            Ok(kept) => {
                let credentials: AccountCredentials = serde_json::from_slice(&kept).map_err(|error| {
                    format!(
                        "the account in {} cannot be read: {error}; remove the file to have a new one",
                        file.display()
                    )
                })?;
                return Account::builder_with_http(http).from_credentials(credentials).await.map_err(trouble);
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(format!("{} cannot be read: {error}", file.display()).into()),
        }
        let contact: Vec<&str> = self.acme.contact.iter().map(String::as_str).collect();
        let new =
            NewAccount { contact: &contact, terms_of_service_agreed: self.acme.agree, only_return_existing: false };
        let external = self.external_key()?;
        let (account, credentials) = Account::builder_with_http(http)
            .create(&new, self.acme.directory.clone(), external.as_ref())
            .await
            .map_err(trouble)?;
        let unwritten = |error: &dyn std::fmt::Display| format!("{} cannot be written: {error}", file.display());
        let kept = serde_json::to_vec(&credentials).map_err(|error| unwritten(&error))?;
        crate::data::make_subfolder(&self.folder)
            .and_then(|()| crate::data::write_secret(&file, &kept))
            .map_err(|error| unwritten(&error))?;
        tracing::info!(account = account.id(), "a new account at the authority");
        Ok(account)
    }

    /// RFC 8555 §7.3.4.
    fn external_key(&self) -> Result<Option<ExternalAccountKey>, Trouble> {
        let (Some(id), Some(file)) = (&self.acme.eab_key_id, &self.acme.eab_key) else { return Ok(None) };
        let text =
            std::fs::read_to_string(file).map_err(|error| format!("{} cannot be read: {error}", file.display()))?;
        let key = base64::engine::general_purpose::URL_SAFE_NO_PAD
            .decode(text.trim().trim_end_matches('='))
            .map_err(|_| format!("{} holds no key in base64url", file.display()))?;
        Ok(Some(ExternalAccountKey::new(id.clone(), &key)))
    }

    async fn get(&self, names: &[String], key: Option<String>) -> Result<Issued, Trouble> {
        let account = self.account().await?;
        let identifiers: Vec<Identifier> = names.iter().cloned().map(Identifier::Dns).collect();
        let mut order = account.new_order(&NewOrder::new(&identifiers)).await.map_err(trouble)?;
        let answering = self.answer(&mut order).await?;
        let policy = RetryPolicy::new().timeout(LOOKS_WITHIN);
        match order.poll_ready(&policy).await {
            Ok(OrderStatus::Ready) => {}
            Ok(_) => return Err(refusal(&mut order).await.into()),
            Err(Error::Api(problem)) if kind_of(&problem) == Kind::Other => {
                return Err(format!("{DISBELIEF}: {problem}").into());
            }
            Err(error) => return Err(trouble(error)),
        }
        drop(answering);
        let (request, key) = request(names, key).map_err(|error| format!("no request can be made: {error}"))?;
        order.finalize_csr(&request).await.map_err(trouble)?;
        let chain = order.poll_certificate(&policy).await.map_err(trouble)?;
        Ok(Issued { chain, key })
    }

    /// Has all names looked at that are not proved yet; what is answered is answered until the result is dropped.
    async fn answer(&self, order: &mut Order) -> Result<Vec<Answering>, Trouble> {
        let (kind, called) = match self.acme.challenge {
            AcmeChallenge::Http01 => (ChallengeType::Http01, "http-01"),
            AcmeChallenge::TlsAlpn01 => (ChallengeType::TlsAlpn01, "tls-alpn-01"),
        };
        let mut answering = Vec::new();
        let mut authorizations = order.authorizations();
        while let Some(authorization) = authorizations.next().await {
            let mut authorization = authorization.map_err(trouble)?;
            match authorization.status {
                AuthorizationStatus::Valid => continue,
                AuthorizationStatus::Pending => {}
                other => return Err(format!("the authority says that a name is {other:?}").into()),
            }
            let name = authorization.identifier().to_string();
            let mut challenge = authorization
                .challenge(kind.clone())
                .ok_or_else(|| format!("the authority does not offer {called} for {name}"))?;
            let proof = challenge.key_authorization();
            answering.push(match self.acme.challenge {
                AcmeChallenge::Http01 => self.answers.by_http(&challenge.token, proof.as_str()),
                AcmeChallenge::TlsAlpn01 => self.answers.by_tls(&name, proof.digest().as_ref())?,
            });
            challenge.set_ready().await.map_err(trouble)?;
        }
        Ok(answering)
    }
}

/// The URI of the account at the authority, if there is one. RFC 8657 §3.
pub fn account_uri(config: &Config) -> Option<String> {
    let kept =
        std::fs::read(config.acme_folder().join(format!("{}.account", file_name(&config.acme.directory)))).ok()?;
    let kept: serde_json::Value = serde_json::from_slice(&kept).ok()?;
    kept.get("id")?.as_str().map(str::to_owned)
}

impl Issue for Authority {
    fn issue<'a>(&'a self, names: &'a [String], key: Option<String>) -> Issuing<'a> {
        Box::pin(async move {
            let got = again(ORDERS_MAX, || self.get(names, key.clone()));
            match tokio::time::timeout(PATIENCE, got).await {
                Ok(got) => got,
                Err(_) => Err("the authority takes too long".to_owned().into()),
            }
        })
    }

    fn keeps_keys(&self) -> bool {
        self.acme.reuse_key
    }
}

/// What `get` gives; it begins anew, `times` times at most, when nonces were all that was wrong.
async fn again<T, F>(times: usize, mut get: impl FnMut() -> F) -> Result<T, Trouble>
where
    F: Future<Output = Result<T, Trouble>>,
{
    for _ in 1..times {
        match get().await {
            Err(trouble) if trouble.kind == Kind::Nonce => tracing::debug!(why = trouble.why, "a new order"),
            got => return got,
        }
    }
    get().await
}

const DISBELIEF: &str = "the authority does not believe that a name is ours";

/// What the authority found wrong with the names.
async fn refusal(order: &mut Order) -> String {
    let mut found = Vec::new();
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let Ok(mut authorization) = authorization else { continue };
        if authorization.refresh().await.is_err() {
            continue;
        }
        let name = authorization.identifier().to_string();
        let errors = authorization.challenges.iter().filter_map(|challenge| challenge.error.as_ref());
        found.extend(errors.map(|error| format!("{name}: {error}")));
    }
    match found.is_empty() {
        true => "the authority refuses the order and does not say why".into(),
        false => format!("{DISBELIEF}: {}", found.join("; ")),
    }
}

fn trouble(error: Error) -> Trouble {
    let kind = match &error {
        Error::Api(problem) => kind_of(problem),
        _ => Kind::Other,
    };
    Trouble { why: told(&error), kind }
}

/// RFC 8555 §6.7.
fn kind_of(problem: &Problem) -> Kind {
    match problem.r#type.as_deref() {
        Some("urn:ietf:params:acme:error:rateLimited") => Kind::TooOften,
        Some("urn:ietf:params:acme:error:badNonce") => Kind::Nonce,
        _ => Kind::Other,
    }
}

/// With what it comes from: the outermost alone often says little.
fn told(error: &Error) -> String {
    match error {
        Error::Api(problem) => format!("the authority refuses: {problem}"),
        Error::Other(inner) => {
            let mut text = inner.to_string();
            let mut source = inner.source();
            while let Some(below) = source {
                text = format!("{text}: {below}");
                source = below.source();
            }
            text
        }
        other => other.to_string(),
    }
}

/// A request for a certificate (DER) and its key (PEM). Without a subject: the names alone count.
fn request(names: &[String], key: Option<String>) -> Result<(Vec<u8>, String), rcgen::Error> {
    // A key that cannot be read any more is replaced.
    let key = match key.and_then(|pem| rcgen::KeyPair::from_pem(&pem).ok()) {
        Some(key) => key,
        None => rcgen::KeyPair::generate()?,
    };
    let mut parameters = rcgen::CertificateParams::new(names.to_vec())?;
    parameters.distinguished_name = rcgen::DistinguishedName::new();
    Ok((parameters.serialize_request(&key)?.der().to_vec(), key.serialize_pem()))
}

/// An authority's name as the name of a file: host and port of its directory.
fn file_name(directory: &str) -> String {
    let rest = directory.strip_prefix("https://").unwrap_or(directory);
    let place = rest.split('/').next().unwrap_or_default();
    let kept = |c: char| if c.is_ascii_alphanumeric() || c == '.' || c == '-' { c } else { '_' };
    place.chars().map(kept).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How often an order was begun that fails so each time, and how it ended.
    async fn begun(kind: Kind, fails: usize) -> (usize, Result<(), Trouble>) {
        let mut begun = 0;
        let got = again(ORDERS_MAX, || {
            begun += 1;
            std::future::ready(match begun <= fails {
                true => Err(Trouble { why: "refused".into(), kind }),
                false => Ok(()),
            })
        })
        .await;
        (begun, got)
    }

    #[tokio::test]
    async fn an_order_whose_nonces_are_refused_is_begun_anew_and_not_for_ever() {
        assert_eq!(begun(Kind::Nonce, 2).await, (3, Ok(())));
        let (times, got) = begun(Kind::Nonce, 9).await;
        assert_eq!((times, got.map_err(|it| it.kind)), (ORDERS_MAX, Err(Kind::Nonce)));
    }

    #[tokio::test]
    async fn an_order_that_is_refused_for_anything_else_is_not_begun_anew() {
        assert_eq!(begun(Kind::Other, 1).await.0, 1);
        assert_eq!(begun(Kind::TooOften, 1).await.0, 1);
    }

    #[test]
    fn each_authority_has_a_file_of_its_own() {
        assert_eq!(file_name("https://acme.example/directory"), "acme.example");
        assert_eq!(file_name("https://[::1]:14000/dir"), "___1__14000");
        assert_eq!(file_name("https://../../etc/passwd"), "..");
    }
}
