//! `waft certificates`: what is shown to clients and servers, until when, and what DNS may say of it.

use super::{Failure, say};
use crate::admin::client::AdminConnection;
use crate::admin::{Answer, Certificate, Request};
use crate::cli::{self, Place};
use std::time::Duration;

/// The authority may look, and sign, for so long.
const PATIENCE: Duration = Duration::from_secs(320);

pub fn certificates(arguments: &cli::Certificates) -> Result<(), Failure> {
    match arguments {
        cli::Certificates::List { json, place } => {
            for certificate in listed(place)? {
                if *json {
                    say(serde_json::to_string(&certificate).map_err(Failure::said)?);
                } else {
                    show(&certificate);
                }
            }
            Ok(())
        }
        cli::Certificates::Renew { domain, place } => {
            let mut server = super::status::connect(place)?;
            server.wait(PATIENCE)?;
            server.ask(&Request::CertificateRenew { domain: domain.clone() })?;
            say(format_args!("{domain} has a new certificate"));
            Ok(())
        }
    }
}

/// Of the running server, else as the files are.
fn listed(place: &Place) -> Result<Vec<Certificate>, Failure> {
    let config = place.sources().load()?;
    let Some(mut server) = AdminConnection::open(&config.admin_socket())? else {
        return Ok(crate::certificates::shown::list(&config, &[]));
    };
    match server.ask(&Request::Certificates)? {
        Answer::Certificates { certificates } => Ok(certificates),
        _ => Err(Failure::Said("the server gave another answer than was asked for".into())),
    }
}

fn show(it: &Certificate) {
    let source = match it.source.as_str() {
        "acme" => "from an authority, by ACME",
        "file" => "from a file",
        _ => "self-signed: clients warn of it, other servers do not trust it",
    };
    say(format_args!("{}: {source}", it.domain));
    say(format_args!("  file     {}", it.file));
    if let Some(wrong) = &it.wrong {
        say(format_args!("  WRONG    {}", wrong.replace('\n', "; ")));
    }
    if let Some(until) = &it.until {
        let days = match it.days {
            days if days < 0 => "it has EXPIRED".to_owned(),
            days => format!("{days} days from now"),
        };
        say(format_args!("  names    {}", it.names.join(" ")));
        say(format_args!("  issuer   {}", it.issuer));
        say(format_args!("  until    {until}, {days}"));
        say(format_args!("  TLSA     {}", it.tlsa));
    }
    if let Some(caa) = &it.caa {
        say(format_args!("  CAA      {caa}"));
    }
    if let Some(failure) = &it.failure {
        say(format_args!("  FAILED   {} times, last: {failure}", it.failures));
    }
    if let Some(renewal) = &it.renewal {
        say(format_args!("  renewal  {renewal}"));
    }
}
