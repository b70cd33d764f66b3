//! `waft init`: a configuration for a domain of one's own, and what DNS must say of it. On a terminal it asks for what
//! the command line does not say.

use super::{Failure, dns, say};
use crate::cli;
use crate::config::{self, Config, Sources};
use std::fmt::Write as _;
use std::io::{BufRead, IsTerminal, Write as _};
use std::path::{Path, PathBuf};

/// Where certbot leaves the certificates of a domain.
const CERTBOT: &str = "/etc/letsencrypt/live";
/// The terms that are agreed to with the authority that is asked when none is named.
const TERMS: &str = "https://letsencrypt.org/repository/";
/// Times that a question is asked again.
const QUESTIONS_MAX: usize = 5;

pub fn init(arguments: &cli::Init) -> Result<(), Failure> {
    let input = std::io::stdin();
    let asks = input.is_terminal() && std::io::stdout().is_terminal() && !arguments.yes;
    let mut person = Person { input: input.lock(), asks };
    let wishes = wishes(arguments, &mut person)?;
    let file = arguments.config.clone().unwrap_or_else(|| PathBuf::from(config::DEFAULT_FILE));
    let text = text(&wishes);
    // What is written must be what the server takes.
    let config = config::parse(&text, Some(file.clone()), &Sources::default())?;
    let force = arguments.force
        || (file.exists() && person.says_yes(&format!("{} is there already. Replace it?", file.display()), false)?);
    write(&file, &text, force)?;
    say(format_args!("wrote {}", file.display()));
    tell_dns(&wishes, &config, arguments)?;
    let place = if arguments.config.is_some() { format!(" --config {}", file.display()) } else { String::new() };
    say("\nnext:");
    say(format_args!("  waft{place}                                  serve; or: systemctl enable --now waft"));
    say(format_args!("  waft user add NAME@{}{place}     an account; or: waft invite create{place}", wishes.domain));
    say(format_args!("  waft dns{place}                              what DNS says by now"));
    say(format_args!("  waft check {}{place}             how others see this server", wishes.domain));
    Ok(())
}

/// How the certificate comes.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Certified {
    Files(PathBuf, PathBuf),
    Acme { challenge: cli::Challenge, contact: Option<String> },
    SelfSigned,
}

/// What is to be written.
#[derive(Debug)]
struct Wishes {
    /// Prepared, and in ASCII.
    domain: String,
    ascii: String,
    /// The machine, in DNS.
    host: String,
    data: Option<PathBuf>,
    certified: Certified,
    /// The authority's directory and its own authority, where they are not the usual.
    directory: Option<String>,
    ca: Option<PathBuf>,
    address: Option<String>,
    /// Users may invite others.
    invites: bool,
}

/// Who sits at the terminal; without one, all answers are the usual ones.
struct Person<R> {
    input: R,
    asks: bool,
}

impl<R: BufRead> Person<R> {
    /// A line; an empty one, or nobody there: `usual`.
    fn says(&mut self, question: &str, usual: &str) -> Result<String, Failure> {
        if !self.asks {
            return Ok(usual.to_owned());
        }
        let shown = if usual.is_empty() { String::new() } else { format!(" [{usual}]") };
        let mut out = std::io::stdout().lock();
        let _ = write!(out, "{question}{shown} ").and_then(|()| out.flush());
        let mut line = String::new();
        let read = self.input.read_line(&mut line).map_err(Failure::said)?;
        if read == 0 {
            return Err(Failure::Said("there was no answer; nothing was written".into()));
        }
        let line = line.trim();
        Ok(if line.is_empty() { usual.to_owned() } else { line.to_owned() })
    }

    fn says_yes(&mut self, question: &str, usual: bool) -> Result<bool, Failure> {
        let answer = self.says(&format!("{question} (yes or no)"), if usual { "yes" } else { "no" })?;
        Ok(matches!(answer.to_lowercase().as_str(), "y" | "yes" | "j" | "ja"))
    }

    /// Asks until `take` takes it.
    fn says_one<T>(
        &mut self,
        question: &str,
        usual: &str,
        take: impl Fn(&str) -> Result<T, String>,
    ) -> Result<T, Failure> {
        let mut why = String::new();
        for _ in 0..QUESTIONS_MAX {
            match take(&self.says(question, usual)?) {
                Ok(it) => return Ok(it),
                Err(refusal) if self.asks => {
                    say(refusal.lines().next().unwrap_or_default());
                    why = refusal;
                }
                Err(refusal) => return Err(Failure::Said(refusal)),
            }
        }
        Err(Failure::Said(why))
    }
}

fn wishes<R: BufRead>(arguments: &cli::Init, person: &mut Person<R>) -> Result<Wishes, Failure> {
    let prepared = |name: &str| -> Result<(String, String), String> {
        let wrong = || format!("\"{name}\" is no domain\nwrite a name such as example.org: waft init example.org");
        let domain = xmpp::jid::prepare_domain(name).map_err(|_| wrong())?;
        let ascii = crate::s2s::trust::ascii(&domain).ok_or_else(wrong)?;
        Ok((domain, ascii))
    };
    let (domain, ascii) = match &arguments.domain {
        Some(domain) => prepared(domain).map_err(Failure::Said)?,
        None if !person.asks => {
            return Err(Failure::Said("which domain is not said\nsay it: waft init example.org".into()));
        }
        None => person.says_one("The domain of the addresses, such as example.org:", "", prepared)?,
    };
    let host = match &arguments.host {
        Some(host) => host.clone(),
        None => person.says("The name of this machine in DNS:", &ascii)?,
    };
    let certified = certified(arguments, person, &domain)?;
    let invites = arguments.invites || person.says_yes("May users invite others?", false)?;
    Ok(Wishes {
        domain,
        ascii,
        host: host.trim_end_matches('.').to_owned(),
        data: arguments.data.clone(),
        certified,
        directory: arguments.acme_directory.clone(),
        ca: arguments.acme_ca.clone(),
        address: arguments.acme_address.map(|address| address.to_string()),
        invites,
    })
}

fn certified<R: BufRead>(arguments: &cli::Init, person: &mut Person<R>, domain: &str) -> Result<Certified, Failure> {
    if let (Some(chain), Some(key)) = (&arguments.certificate, &arguments.key) {
        let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
        return Ok(Certified::Files(absolute(chain), absolute(key)));
    }
    let found = certbot(Path::new(CERTBOT), domain);
    let challenge = match arguments.acme {
        Some(challenge) => Some(challenge),
        None => {
            let usual = if found.is_some() {
                "files"
            } else if person.asks {
                "http-01"
            } else {
                "none"
            };
            let question = "How does the certificate come: http-01 or tls-alpn-01 (by ACME, from Let's Encrypt), files (as \
                certbot leaves them), or none yet?";
            let take = |answer: &str| match answer {
                "http-01" => Ok(Some(Some(cli::Challenge::Http01))),
                "tls-alpn-01" => Ok(Some(Some(cli::Challenge::TlsAlpn01))),
                "files" => Ok(None),
                "none" => Ok(Some(None)),
                _ => Err("write http-01, tls-alpn-01, files or none".to_owned()),
            };
            match person.says_one(question, usual, take)? {
                Some(challenge) => challenge,
                None => {
                    return match found {
                        Some((chain, key)) => Ok(Certified::Files(chain, key)),
                        None => Err(Failure::Said(format!(
                            "certbot has left no certificate of {domain} in {CERTBOT}\nname the files with --certificate FILE --key FILE"
                        ))),
                    };
                }
            }
        }
    };
    let Some(challenge) = challenge else { return Ok(Certified::SelfSigned) };
    let contact = match &arguments.email {
        Some(email) => Some(email.clone()),
        None => Some(person.says("Where may the authority write to (an e-mail address, or nothing)?", "")?),
    };
    let agrees = arguments.agree
        || person.says_yes(&format!("Do you agree to the authority's terms of service ({TERMS})?"), false)?;
    if !agrees {
        return Err(Failure::Said(format!(
            "without consent to its terms ({TERMS}) the authority gives no certificate\nadd --agree, or leave out --acme"
        )));
    }
    let contact = contact.filter(|it| !it.is_empty()).map(|it| it.trim_start_matches("mailto:").to_owned());
    Ok(Certified::Acme { challenge, contact })
}

/// Chain and key, if certbot has made them.
fn certbot(folder: &Path, domain: &str) -> Option<(PathBuf, PathBuf)> {
    let of = |name: &str| folder.join(domain).join(name);
    let (chain, key) = (of("fullchain.pem"), of("privkey.pem"));
    (chain.exists() && key.exists()).then_some((chain, key))
}

fn text(wishes: &Wishes) -> String {
    let quoted = |path: &Path| config::value::quoted(&path.to_string_lossy());
    let mut out = String::from("# Written by waft init. `waft config show --defaults` lists every option.\n");
    if let Some(data) = &wishes.data {
        let data = std::path::absolute(data).unwrap_or_else(|_| data.clone());
        let _ = writeln!(out, "data = {}", quoted(&data));
    }
    let _ = writeln!(out, "\n[host.{}]", config::value::quoted(&wishes.domain));
    match &wishes.certified {
        Certified::Files(chain, key) => {
            let _ = writeln!(out, "certificate = {}\nkey = {}", quoted(chain), quoted(key));
        }
        Certified::Acme { .. } => out.push_str("acme = true\n"),
        Certified::SelfSigned => out.push_str(
            "# Until these name files, or acme is true, a self-signed certificate is shown, and clients warn of it.\n\
             #certificate = \"/etc/letsencrypt/live/DOMAIN/fullchain.pem\"\n\
             #key = \"/etc/letsencrypt/live/DOMAIN/privkey.pem\"\n",
        ),
    }
    if wishes.invites {
        out.push_str("# Users may invite others.\nuser_invites = true\n");
    }
    out.push_str("# Accounts are made by waft user add, and by those who are invited (waft invite create).\nregistration = \"invite\"\n");
    for (about, listener) in [
        ("Clients.", "address = \"*:5222\""),
        ("Clients with TLS from the first byte.", "address = \"*:5223\"\ntls = \"direct\""),
        ("Servers of other domains.", "address = \"*:5269\"\nkind = \"s2s\""),
        ("Those of them that begin with TLS.", "address = \"*:5270\"\nkind = \"s2s\"\ntls = \"direct\""),
    ] {
        let _ = write!(out, "\n# {about}\n[[listen]]\n{listener}\n");
    }
    if let Certified::Acme { challenge, contact } = &wishes.certified {
        acme(&mut out, wishes, *challenge, contact.as_deref());
    }
    out
}

fn acme(out: &mut String, wishes: &Wishes, challenge: cli::Challenge, contact: Option<&str>) {
    let text = config::value::quoted;
    let _ = write!(
        out,
        "\n# Certificates, got and renewed.\n[acme]\nagree = true\nchallenge = {}\n",
        text(challenge.word())
    );
    // TLS-ALPN-01 is asked for on port 443, where no listener is; see the reference.
    let address = match (&wishes.address, challenge) {
        (Some(address), _) => Some(address.clone()),
        (None, cli::Challenge::TlsAlpn01) => Some("*:443".into()),
        (None, cli::Challenge::Http01) => None,
    };
    if let Some(address) = address {
        let _ = writeln!(out, "address = {}", text(&address));
    }
    if let Some(contact) = contact {
        let _ = writeln!(out, "contact = [{}]", text(&format!("mailto:{contact}")));
    }
    if let Some(directory) = &wishes.directory {
        let _ = writeln!(out, "directory = {}", text(directory));
    }
    if let Some(ca) = &wishes.ca {
        let ca = std::path::absolute(ca).unwrap_or_else(|_| ca.clone());
        let _ = writeln!(out, "ca = {}", text(&ca.to_string_lossy()));
    }
}

/// Makes the file, and its folder; one that is there stays unless `force`.
fn write(file: &Path, text: &str, force: bool) -> Result<(), Failure> {
    if file.exists() && !force {
        return Err(Failure::Said(format!(
            "{} is there already\nname another file with --config FILE, or let this one be replaced with --force",
            file.display()
        )));
    }
    let fails = |error: std::io::Error| {
        Failure::Said(format!(
            "cannot write {}: {error}\nrun this as root, or name a file of your own with --config FILE",
            file.display()
        ))
    };
    if let Some(folder) = file.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder).map_err(fails)?;
    }
    std::fs::write(file, text).map_err(fails)?;
    // Of root's file the server's user must read what it serves by; there is no secret in it.
    if crate::data::effective_uid() == Some(0) {
        std::fs::set_permissions(file, std::os::unix::fs::PermissionsExt::from_mode(0o644)).map_err(fails)?;
    }
    Ok(())
}

/// What DNS must say, and what it says now.
fn tell_dns(wishes: &Wishes, config: &Config, arguments: &cli::Init) -> Result<(), Failure> {
    let certificate = config.hosts.first().map(|host| crate::certificates::shown::of(config, host, &[]));
    let mut records = dns::plan(config, &wishes.ascii, &wishes.host, certificate.as_ref());
    say(format_args!("\nDNS must say of {}:", wishes.domain));
    if !arguments.offline {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::said)?;
        match runtime.block_on(async { dns::resolver(arguments.dns) }) {
            Ok(resolver) => {
                let authority = config.uses_acme().then(|| crate::acme::caa_name(&config.acme.directory)).flatten();
                runtime.block_on(dns::look(&mut records, &resolver, authority));
            }
            Err(why) => say(format_args!("(DNS was not asked: {why})")),
        }
    }
    dns::show(&records);
    if !records.iter().any(|record| record.kind == "TLSA") {
        say("  TLSA, if your zone is signed: `waft dns` says them when there is a certificate");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ListenKind;
    use clap::Parser;

    fn arguments(line: &str) -> cli::Init {
        let cli = cli::Cli::try_parse_from(format!("waft init {line}").split_whitespace()).expect("a command");
        match cli.command {
            Some(cli::Command::Init(arguments)) => arguments,
            other => panic!("{other:?}"),
        }
    }

    fn written(line: &str, answers: Option<&str>) -> Result<(String, Config), Failure> {
        let mut person = Person { input: answers.unwrap_or_default().as_bytes(), asks: answers.is_some() };
        let text = text(&wishes(&arguments(line), &mut person)?);
        let config = config::parse(&text, None, &Sources::default()).unwrap_or_else(|problems| panic!("{problems}"));
        Ok((text, config))
    }

    #[test]
    fn what_is_written_is_a_configuration_that_serves_the_domain_and_federates() {
        let (_, config) = written("example.org --data /srv/waft", None).expect("all is said");
        assert_eq!(config.data, Path::new("/srv/waft"));
        assert!(config.host("example.org").is_some() && config.federates() && !config.uses_acme());
        assert_eq!(config.listeners.iter().filter(|it| it.kind == ListenKind::C2s).count(), 2);
    }

    #[test]
    fn flags_say_all_that_a_certificate_by_acme_needs() {
        let line = "example.org --acme http-01 --email me@example.org --agree --invites";
        let (text, config) = written(line, None).expect("all is said");
        assert!(config.uses_acme() && config.acme.agree, "{text}");
        assert_eq!(config.acme.contact, ["mailto:me@example.org"]);
        assert!(config.hosts[0].options.user_invites);
    }

    #[test]
    fn nobody_agrees_to_terms_unasked() {
        let refused = written("example.org --acme http-01", None);
        assert!(matches!(refused, Err(Failure::Said(why)) if why.contains("--agree")));
    }

    #[test]
    fn who_sits_at_the_terminal_is_asked_for_what_is_not_said() {
        let answers = "not a domain\nexample.org\nxmpp.example.org\ntls-alpn-01\nme@example.org\nyes\nno\n";
        let (text, config) = written("", Some(answers)).expect("all is answered");
        assert!(config.host("example.org").is_some_and(|host| host.options.acme), "{text}");
        assert_eq!(config.acme_address(), "*:443".parse().ok());
        assert_eq!(config.acme.contact, ["mailto:me@example.org"]);
        assert!(!config.hosts[0].options.user_invites);
    }

    #[test]
    fn without_a_terminal_the_domain_must_be_said() {
        assert!(matches!(written("", None), Err(Failure::Said(why)) if why.contains("waft init example.org")));
    }

    #[test]
    fn an_end_of_input_writes_nothing() {
        assert!(written("", Some("example.org\n")).is_err());
    }

    #[test]
    fn certificates_that_certbot_made_are_named() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        assert_eq!(certbot(folder.path(), "example.org"), None);
        let of_domain = folder.path().join("example.org");
        std::fs::create_dir(&of_domain).expect("it is ours");
        for name in ["fullchain.pem", "privkey.pem"] {
            std::fs::write(of_domain.join(name), "").expect("it is ours");
        }
        assert_eq!(
            certbot(folder.path(), "example.org"),
            Some((of_domain.join("fullchain.pem"), of_domain.join("privkey.pem")))
        );
        let line = "example.org --certificate /x/fullchain.pem --key /x/privkey.pem";
        let mut person = Person { input: &b""[..], asks: false };
        let wishes = wishes(&arguments(line), &mut person).unwrap_or_else(|_| panic!("all is said"));
        let text = text(&wishes);
        assert!(text.contains("/x/fullchain.pem\"") && text.contains("/x/privkey.pem\""), "{text}");
    }

    #[test]
    fn a_file_that_is_there_stays_unless_it_may_be_replaced() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = folder.path().join("etc/waft.toml");
        write(&file, "one", false).expect("it was not there");
        assert!(write(&file, "two", false).is_err());
        write(&file, "three", true).expect("it may be replaced");
        assert_eq!(std::fs::read_to_string(&file).expect("it is there"), "three");
    }
}
