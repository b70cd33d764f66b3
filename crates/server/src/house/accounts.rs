//! Accounts as the house sees them: who may log in, made, removed, passwords and tokens.

use super::House;
use im::{Item, Ticket};
use std::sync::Arc;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use store::{Change, Credentials, Fence, Key, Outcome, PageQuery, ScramKeys, StoreError};
use stream::Crypto;
use stream::event::{Account, CheckPassword, Lookup, Registration, Secret, Token};
use stream::sasl::Mechanism;
use tokio::sync::{Semaphore, oneshot};
use xmpp::{BareJid, StanzaCondition, StanzaError};

/// How long an operator waits for an account's answer.
const ASK_MAX: Duration = Duration::from_secs(30);
/// Passwords hashed at once (PLAIN, registration); others wait. Each is some milliseconds of one core.
const HASHES_AT_ONCE: usize = 4;
/// … and no more than so many wait.
const HASHES_WAITING_MAX: usize = 256;

static HASHES: LazyLock<Semaphore> = LazyLock::new(|| Semaphore::new(HASHES_AT_ONCE));
static WAITING: LazyLock<Semaphore> = LazyLock::new(|| Semaphore::new(HASHES_WAITING_MAX));

/// Slow work with a password, on a thread where blocking is allowed; `None` when too much of it waits.
async fn hash<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let _waiting = WAITING.try_acquire().ok()?;
    let _turn = HASHES.acquire().await.ok()?;
    tokio::task::spawn_blocking(work).await.ok()
}

/// The local policy of a domain: who is who. The internal store now.
pub trait Authenticator: Send + Sync {
    /// What authentication needs of an account; `None` if there is none of that name.
    fn look_up<'a>(&'a self, lookup: &'a Lookup) -> store::Reply<'a, Option<Account>>;
}

/// Keys in waft's own store.
pub struct Internal(pub Arc<dyn store::Store>);

impl Authenticator for Internal {
    fn look_up<'a>(&'a self, lookup: &'a Lookup) -> store::Reply<'a, Option<Account>> {
        Box::pin(async move {
            let Some(login) = self.0.login(&lookup.account).await? else { return Ok(None) };
            let tokens = match &lookup.client {
                Some(client) => self.0.tokens(&lookup.account, client).await?,
                None => Vec::new(),
            };
            Ok(Some(Account {
                scram_sha1: login.credentials.scram_sha1.map(keys_of_stream),
                scram_sha256: login.credentials.scram_sha256.map(keys_of_stream),
                tokens: tokens.into_iter().filter_map(token_of_stream).collect(),
                disabled: login.disabled,
            }))
        })
    }
}

fn keys_of_stream(keys: ScramKeys) -> stream::password::ScramKeys {
    stream::password::ScramKeys {
        salt: keys.salt,
        iterations: keys.iterations,
        stored_key: keys.stored_key,
        server_key: keys.server_key,
    }
}

fn token_of_stream(token: store::Token) -> Option<Token> {
    let mechanism = [Mechanism::HtSha256Endp, Mechanism::HtSha256Expr, Mechanism::HtSha256None]
        .into_iter()
        .find(|m| m.name() == &*token.mechanism)?;
    Some(Token {
        client: token.client,
        mechanism,
        secret: Secret(token.secret),
        expires: token.expires,
        previous: token.previous.map(|(secret, until)| (Secret(secret), until)),
        count: token.count,
    })
}

/// An error as an account answered it.
fn error_of(element: &xmpp::Element) -> StanzaError {
    let named = element.elements().find_map(|child| StanzaCondition::from_name(&child.name));
    let error = StanzaError::from(named.unwrap_or(StanzaCondition::UndefinedCondition));
    match element.find("text", xmpp::ns::STANZA_ERRORS) {
        Some(text) => error.with_text(text.text_content()),
        None => error,
    }
}

impl House {
    pub async fn look_up(self: &Arc<House>, lookup: &Lookup) -> Result<Option<Account>, StoreError> {
        let mut found = self.authenticator.look_up(lookup).await?;
        if let Some(account) = found.as_mut().filter(|account| !account.disabled) {
            account.disabled = self.has_ended(&lookup.account).await;
        }
        Ok(found)
    }

    /// Is it the password? If so, and the account has keys of one hash alone, those of the other are made of it.
    pub async fn check_password(&self, check: CheckPassword, crypto: &Arc<dyn Crypto>) -> Option<bool> {
        let crypto = crypto.clone();
        let iterations = self.config.read().accounts.scram_iterations;
        let work = move || {
            let good = check.run(&*crypto);
            let missing = check.missing.filter(|_| good);
            let made = missing.and_then(|hash| {
                let keys = crate::crypto::keys(hash, &check.password, iterations)?;
                Some((check.account.clone(), hash, keys, check.keys.stored_key.clone()))
            });
            (good, made)
        };
        let (good, made) = hash(work).await?;
        if let Some((account, hash, keys, beside)) = made {
            self.complete_keys(&account, hash, keys, beside).await;
        }
        Some(good)
    }

    fn fence_of(&self, account: &BareJid) -> Fence {
        let key = Key::Bare(account.clone());
        self.cluster.fence(&key).unwrap_or(Fence { partition: key.partition(), epoch: 0 })
    }

    /// Writes outside an entity's steps (accounts, tokens) and waits for the disk.
    pub async fn commit(&self, account: &BareJid, changes: Vec<Change>) -> Result<Vec<Outcome>, StoreError> {
        let (tell, told) = oneshot::channel();
        let since = std::time::Instant::now();
        self.store.commit(
            self.fence_of(account),
            changes,
            Box::new(move |result| {
                crate::latency::COMMITS.add(since.elapsed());
                // Nobody waits any more: the write stands all the same.
                let _ = tell.send(result);
            }),
        );
        told.await.unwrap_or(Err(StoreError::Fatal("the writer is gone".into())))
    }

    /// # Errors
    /// `conflict` if there is one, `not-acceptable` for a password that RFC 8265 forbids, `item-not-found` for a
    /// domain that is not hosted.
    pub async fn create_account(self: &Arc<House>, account: &BareJid, password: &str) -> Result<(), StanzaError> {
        self.create_account_with(account, password, Vec::new()).await
    }

    /// The same; `more` is written in one with it.
    async fn create_account_with(
        self: &Arc<House>,
        account: &BareJid,
        password: &str,
        more: Vec<Change>,
    ) -> Result<(), StanzaError> {
        if self.host(account.domain()).is_none() || account.local().is_none() {
            return Err(StanzaCondition::ItemNotFound.into());
        }
        let credentials = self.credentials_for(password).await?;
        let created = self.now().utc;
        // Of a name that is taken nothing may be touched; while it is being made nobody else makes it.
        let _turn = self.making.lock().await;
        if !more.is_empty() && self.store.login(account).await.map_err(|error| of_store(&error))?.is_some() {
            return Err(StanzaCondition::Conflict.into());
        }
        let mut changes = vec![Change::AccountCreate { account: account.clone(), credentials, created }];
        changes.extend(more);
        match self.commit(account, changes).await {
            Ok(outcomes) if outcomes.first() == Some(&Outcome::Exists) => Err(StanzaCondition::Conflict.into()),
            Ok(_) => {
                tracing::info!(%account, "account made");
                self.was_made(account);
                Ok(())
            }
            Err(error) => Err(of_store(&error)),
        }
    }

    async fn credentials_for(&self, password: &str) -> Result<Credentials, StanzaError> {
        let iterations = self.config.read().accounts.scram_iterations;
        let password = zeroize::Zeroizing::new(password.to_owned());
        match hash(move || crate::crypto::credentials(&password, iterations)).await {
            Some(Some(credentials)) => Ok(credentials),
            Some(None) => Err(StanzaError::from(StanzaCondition::NotAcceptable)
                .with_text("this cannot be a password: it is empty or has forbidden characters")),
            None => Err(StanzaError::from(StanzaCondition::ResourceConstraint).with_type(xmpp::error::ErrorType::Wait)),
        }
    }

    /// # Errors
    /// `item-not-found` if there is no such account, `not-acceptable` for a forbidden password.
    pub async fn set_password(&self, account: &BareJid, password: &str) -> Result<(), StanzaError> {
        let credentials = self.credentials_for(password).await?;
        match self.commit(account, vec![Change::CredentialsSet { account: account.clone(), credentials }]).await {
            Ok(outcomes) if outcomes.first() == Some(&Outcome::NoAccount) => Err(StanzaCondition::ItemNotFound.into()),
            Ok(_) => {
                self.keys_changed(account);
                tracing::info!(%account, "password changed");
                Ok(())
            }
            Err(error) => Err(of_store(&error)),
        }
    }

    /// Lets nobody in any more, and ends what sessions there are; or lets them in again.
    ///
    /// # Errors
    /// `item-not-found` if there is no such account.
    pub async fn disable_account(self: &Arc<House>, account: &BareJid, disabled: bool) -> Result<(), StanzaError> {
        match self.commit(account, vec![Change::AccountDisable { account: account.clone(), disabled }]).await {
            Ok(outcomes) if outcomes.first() == Some(&Outcome::NoAccount) => Err(StanzaCondition::ItemNotFound.into()),
            Ok(_) => {
                tracing::info!(%account, disabled, "account disabled or enabled");
                // (Who is not in memory reads it from the store.)
                if self.resident(account).is_some() {
                    self.post(account, Item::Disabled(disabled));
                }
                Ok(())
            }
            Err(error) => Err(of_store(&error)),
        }
    }

    /// Removes an account everywhere: contacts are told, sessions end, rows go.
    ///
    /// # Errors
    /// `item-not-found` if there is none.
    pub async fn remove_account(self: &Arc<House>, account: &BareJid) -> Result<(), StanzaError> {
        match self.store.login(account).await {
            Ok(Some(_)) => {}
            Ok(None) => return Err(StanzaCondition::ItemNotFound.into()),
            Err(error) => return Err(of_store(&error)),
        }
        let (tell, told) = oneshot::channel();
        self.post(account, Item::Remove { ticket: Ticket(Some(Arc::new(Told(Some(tell))))) });
        // Comes when the last commit of the removal is on disk.
        let _ = told.await;
        match self.store.login(account).await {
            Ok(None) => {
                self.keys_changed(account);
                tracing::info!(%account, "account removed");
                Ok(())
            }
            Ok(Some(_)) => Err(StanzaCondition::InternalServerError.into()),
            Err(error) => Err(of_store(&error)),
        }
    }

    /// The roles that an account may have; its sessions that have more end.
    ///
    /// # Errors
    /// `item-not-found` if there is no such account, `internal-server-error` if it could not be written.
    pub async fn set_roles(self: &Arc<House>, account: &BareJid, roles: im::roles::Roles) -> Result<(), StanzaError> {
        match self.store.login(account).await {
            Ok(Some(_)) => {}
            Ok(None) => return Err(StanzaCondition::ItemNotFound.into()),
            Err(error) => return Err(of_store(&error)),
        }
        let (tell, told) = oneshot::channel();
        self.post(account, Item::SetRoles { roles, ticket: Ticket(Some(Arc::new(Told(Some(tell))))) });
        // Comes when the commit is on disk, or the account is again as it was.
        let _ = told.await;
        match self.look_at(account, |it| it.roles).await {
            Ok(now) if now == roles => Ok(()),
            _ => Err(StanzaCondition::InternalServerError.into()),
        }
    }

    /// Puts a contact into an account's roster, each subscribed to the other as far as this one knows.
    ///
    /// # Errors
    /// For people: it could not be written.
    pub async fn befriend(self: &Arc<House>, account: &BareJid, contact: &BareJid) -> Result<(), String> {
        let (tell, told) = oneshot::channel();
        let ticket = Ticket(Some(Arc::new(Told(Some(tell)))));
        self.post(account, Item::Befriend { contact: contact.clone(), ticket });
        // Comes when the commit is on disk, or the account is again as it was.
        let _ = told.await;
        let subscription = self.look_at(account, |it| it.roster.subscription(contact)).await?;
        match subscription.to && subscription.from {
            true => Ok(()),
            false => Err(format!("{contact} could not be put into the roster of {account}\nsee the log of the server")),
        }
    }

    /// Looks at an account as it is now, in memory or else as it is stored.
    ///
    /// # Errors
    /// For people: there is none, or it cannot be read.
    pub async fn look_at<T>(&self, jid: &BareJid, look: impl Fn(&im::Account) -> T) -> Result<T, String> {
        if let Some(cell) = self.resident(jid)
            // (One that was removed may be in memory for a while.)
            && let Some(Some(seen)) = cell.cell.peek(|it| (!it.account.removed).then(|| look(&it.account)))
        {
            return Ok(seen);
        }
        let policy = self.policy(jid.domain()).ok_or_else(|| {
            format!("{} is not hosted here\n`waft domain list` shows the domains that are", jid.domain())
        })?;
        let stored = self.store.load_account(jid).await.map_err(|e| format!("the store cannot be read: {e:?}"))?;
        let stored =
            stored.ok_or_else(|| format!("there is no account {jid} here\n`waft user list` shows those there are"))?;
        let mut account = im::Account::new(jid.clone(), policy, self.store.epoch(), stored);
        account.now = self.now();
        Ok(look(&account))
    }

    /// Asks an account as its owner would: an iq get or set with this content; gives the content of the result.
    ///
    /// # Errors
    /// `item-not-found` if there is no such account, what the account answers, `remote-server-timeout` without an answer.
    pub async fn ask_account(
        self: &Arc<House>,
        account: &BareJid,
        kind: xmpp::IqType,
        content: xmpp::Element,
    ) -> Result<Option<xmpp::Element>, StanzaError> {
        static ASKED: AtomicU64 = AtomicU64::new(0);
        match self.store.login(account).await {
            Ok(Some(_)) => {}
            Ok(None) => return Err(StanzaCondition::ItemNotFound.into()),
            Err(error) => return Err(of_store(&error)),
        }
        let id = format!("ask-{}", ASKED.fetch_add(1, Ordering::Relaxed));
        let iq =
            xmpp::Stanza::iq(kind, &id).with_from(account.clone()).with_to(account.clone()).with_children([content]);
        let (tell, told) = oneshot::channel();
        self.asks.insert(id.as_str().into(), tell);
        self.post(account, Item::Ask { iq: Arc::new(iq) });
        let answer = tokio::time::timeout(ASK_MAX, told).await;
        self.asks.remove(id.as_str());
        let Ok(Ok(answer)) = answer else { return Err(StanzaCondition::RemoteServerTimeout.into()) };
        let content = answer.payload.first().map(|child| child.to_element());
        match (answer.is_error(), answer.payload.child("error", xmpp::ns::CLIENT)) {
            (true, Some(error)) => Err(error_of(&error.to_element())),
            _ => Ok(content),
        }
    }

    /// May the token make an account at the host? XEP-0445 §4.
    ///
    /// # Errors
    /// `item-not-found`, whatever is wrong with it.
    pub fn admit(&self, token: &str, host: &str) -> Result<(), StanzaError> {
        if self.invitations.admits(token, host, &*self.crypto, self.now().utc) {
            return Ok(());
        }
        self.count("invitations_refused");
        Err(StanzaError::from(StanzaCondition::ItemNotFound).with_text("The invitation is not valid, or not any more."))
    }

    /// A link by which the user's friends become contacts, and have accounts where that is allowed. XEP-0401 §5.1.
    pub(super) async fn invite(&self, user: &BareJid) -> Result<(String, xmpp::Stamp), StanzaError> {
        let config = self.config.read().clone();
        let host = config.host(user.domain()).filter(|host| host.options.user_invites);
        let host = host.ok_or(StanzaCondition::NotAllowed)?;
        if self.invitations.of_user(user, self.now().utc) >= config.limits.invites_per_account_max {
            self.limit("invites_per_account_max");
            let why = "You have as many invitations out as are allowed.";
            return Err(StanzaError::from(StanzaCondition::ResourceConstraint).with_text(why));
        }
        let wish = crate::invites::Wish {
            domain: user.domain().to_owned(),
            inviter: Some(user.clone()),
            account: host.options.registration != crate::config::Registration::Closed,
            seconds: i64::from(host.options.invite_days) * 86_400,
            uses: 1,
            ..crate::invites::Wish::default()
        };
        match self.invitations.create(wish, &*self.crypto, self.now().utc).await {
            Ok((token, invitation)) => {
                let expires = xmpp::Stamp(invitation.expires.saturating_mul(1_000_000));
                Ok((invitation.uri(&token), expires))
            }
            Err(why) => {
                tracing::warn!(account = %user, why, "no invitation was made");
                Err(StanzaError::from(StanzaCondition::ResourceConstraint).with_type(xmpp::error::ErrorType::Wait))
            }
        }
    }

    /// XEP-0077 §3.1 from a stranger, with an invitation or without; `allowed`: the address has not made too many.
    ///
    /// # Errors
    /// `not-allowed` where neither counts, `conflict` for a name that is taken or kept for somebody, as
    /// [`House::create_account`] else.
    pub async fn register(self: &Arc<House>, registration: Registration, allowed: bool) -> Result<(), StanzaError> {
        let account = &registration.account;
        let claim = match &registration.token {
            Some(token) => {
                let claimed = self.invitations.claim(token, account, &*self.crypto);
                Some(claimed.ok_or_else(|| {
                    StanzaError::from(StanzaCondition::NotAllowed)
                        .with_text("The invitation is not for this, or was used.")
                })?)
            }
            None if !self.policy(account.domain()).is_some_and(|policy| policy.registration_open) => {
                return Err(StanzaCondition::NotAllowed.into());
            }
            None => None,
        };
        let is_named = claim.as_ref().is_some_and(|claim| claim.is_named);
        let made = match !is_named && self.invitations.reserves(account, self.now().utc) {
            true => Err(StanzaCondition::Conflict.into()),
            false => self.register_now(&registration, allowed, claim.as_ref()).await,
        };
        if let Some(claim) = claim {
            match &made {
                Ok(()) => self.invited(account, &claim).await,
                Err(_) => self.invitations.give_back(&claim).await,
            }
        }
        made
    }

    /// The account of somebody who was invited is there: it belongs to the invitation's class, and whoever invited and it
    /// are each other's contacts. XEP-0401 §5.5.
    async fn invited(self: &Arc<House>, account: &BareJid, claim: &crate::invites::Claim) {
        self.count("invitations_used");
        if let Some(inviter) = &claim.inviter {
            self.post(inviter, Item::Introduce { contact: account.clone() });
            self.post(account, Item::Introduce { contact: inviter.clone() });
        }
        self.invitations.keep(claim).await;
    }

    /// What a registration writes with the account: by which invitation it came, and its class.
    fn invited_as(&self, account: &BareJid, claim: &crate::invites::Claim) -> Vec<Change> {
        let (space, key) = crate::invites::MADE_BY;
        let made_by =
            Change::BlobPut { account: account.clone(), space: space.into(), key: key.into(), value: claim.mark() };
        let class = claim.class.as_deref().and_then(|class| self.class_change(account, Some(class)).ok());
        [made_by].into_iter().chain(class).collect()
    }

    /// Uses of invitations that a crash left undecided: those whose accounts are there are spent, the others are good
    /// again.
    ///
    /// # Errors
    /// Those of the store.
    pub(super) async fn decide_claims(self: &Arc<House>) -> Result<(), StoreError> {
        let (space, key) = crate::invites::MADE_BY;
        for (domain, claim) in self.invitations.open_claims() {
            let account = BareJid::parse(&format!("{}@{domain}", claim.name())).ok();
            let mark = match &account {
                Some(account) => self.store.blob(account, space, key).await?,
                None => None,
            };
            match account.filter(|_| mark == Some(claim.mark())) {
                Some(account) => self.invited(&account, &claim).await,
                None => self.invitations.give_back(&claim).await,
            }
        }
        Ok(())
    }

    async fn register_now(
        self: &Arc<House>,
        registration: &Registration,
        allowed: bool,
        claim: Option<&crate::invites::Claim>,
    ) -> Result<(), StanzaError> {
        if !allowed {
            self.count("registrations_refused");
            self.limit(match registration.token {
                Some(_) => "invited_registrations_per_hour",
                None => "registrations_per_hour",
            });
            return Err(StanzaError::from(StanzaCondition::ResourceConstraint)
                .with_type(xmpp::error::ErrorType::Wait)
                .with_text("too many accounts were registered from this address; try again later"));
        }
        let Some(claim) = claim else {
            return self.create_account(&registration.account, &registration.password).await;
        };
        if let Err(error) = self.invitations.write().await {
            tracing::error!(%error, "the use of an invitation could not be written; no account is made");
            return Err(StanzaError::from(StanzaCondition::ResourceConstraint).with_type(xmpp::error::ErrorType::Wait));
        }
        let more = self.invited_as(&registration.account, claim);
        self.create_account_with(&registration.account, &registration.password, more).await
    }

    /// Where the account's archive begins and ends, for a client that binds. `None` if it has none, or if it cannot be
    /// read: the client asks again. XEP-0386 §3.2.
    pub async fn archive_metadata(&self, account: &BareJid) -> Option<xmpp::Element> {
        self.policy(account.domain()).filter(|policy| policy.archive)?;
        let end = |backwards| PageQuery { limit: 1, backwards, ..PageQuery::default() };
        let first = self.store.inbox_page(account, &end(false)).await.ok()?;
        let last = self.store.inbox_page(account, &end(true)).await.ok()?;
        let (first, last) = (first.records.first(), last.records.last());
        let key = self.store.blob(account, store::SETTINGS, im::archive_ids::KEY).await.ok()?;
        match im::archive_ids::ArchiveIds::from_stored(key.as_deref()) {
            Some(ids) => Some(im::modules::archive::metadata_of(first, last, &ids)),
            None if last.is_none() => Some(xmpp::Element::new("metadata", im::modules::archive::NS)),
            None => None,
        }
    }

    pub async fn put_token(&self, account: &BareJid, token: Token) -> bool {
        let token = store::Token {
            client: token.client,
            mechanism: token.mechanism.name().into(),
            secret: token.secret.0.clone(),
            expires: token.expires,
            previous: token.previous.map(|(secret, until)| (secret.0.clone(), until)),
            count: token.count,
        };
        self.commit(account, vec![Change::TokenPut { account: account.clone(), token }]).await.is_ok()
    }
}

/// Tells when its last clone is dropped.
struct Told(Option<oneshot::Sender<()>>);

impl Drop for Told {
    fn drop(&mut self) {
        if let Some(tell) = self.0.take() {
            let _ = tell.send(());
        }
    }
}

/// What a peer hears of the store's trouble.
pub fn of_store(error: &StoreError) -> StanzaError {
    match error {
        StoreError::Busy | StoreError::Full => {
            StanzaError::from(StanzaCondition::ResourceConstraint).with_type(xmpp::error::ErrorType::Wait)
        }
        StoreError::Fenced | StoreError::Fatal(_) | StoreError::Damaged(_) => {
            StanzaCondition::InternalServerError.into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::house::testing::{create, house, juliet, record};
    use im::roles::Roles;

    #[tokio::test]
    async fn what_the_operator_asks_of_an_account_and_cannot_be_written_is_not_so_and_the_operator_hears_of_it() {
        let (house, memory) = house();
        create(&house).await;
        let romeo = BareJid::parse("romeo@montague.example").expect("a bare JID in a test");
        let befriended = async || {
            let look = house.look_at(&juliet(), |it| it.roster.subscription(&romeo).to).await;
            look.expect("there is an account")
        };
        memory.fail_next(StoreError::Full);
        assert!(house.befriend(&juliet(), &romeo).await.is_err() && !befriended().await);
        assert!(house.befriend(&juliet(), &romeo).await.is_ok() && befriended().await);
        memory.fail_next(StoreError::Full);
        assert!(house.set_roles(&juliet(), Roles::NONE).await.is_err());
        assert_eq!(house.look_at(&juliet(), |it| it.roles).await, Ok(Roles::ALL));
        assert!(house.set_roles(&juliet(), Roles::NONE).await.is_ok());
    }

    // XEP-0386 §3.2.
    #[tokio::test]
    async fn a_client_that_binds_hears_where_its_archive_begins_and_ends() {
        let (house, _) = house();
        create(&house).await;
        let metadata = async || house.archive_metadata(&juliet()).await.expect("there is an archive");
        assert_eq!(metadata().await.elements().count(), 0);
        let key = [7; 32];
        let ids = im::archive_ids::ArchiveIds::from_stored(Some(&key)).expect("a key");
        let (space, name) = (store::SETTINGS.into(), im::archive_ids::KEY.into());
        let kept = Change::BlobPut { account: juliet(), space, key: name, value: key.to_vec() };
        house.commit(&juliet(), vec![kept]).await.expect("it is kept");
        for position in [7_000_000, 8_000_000, 9_000_000] {
            let change = Change::Append { account: juliet(), record: record(position) };
            house.commit(&juliet(), vec![change]).await.expect("it grows");
        }
        let text = String::from_utf8(metadata().await.to_bytes("")).expect("UTF-8");
        let start = format!("<start id='{:016x}' timestamp='1970-01-01T00:00:07Z'/>", ids.id(7_000_000));
        let end = format!("<end id='{:016x}' timestamp='1970-01-01T00:00:09Z'/>", ids.id(9_000_000));
        assert_eq!(text, format!("<metadata xmlns='urn:xmpp:mam:2'>{start}{end}</metadata>"));
    }
}
