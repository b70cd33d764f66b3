//! The configuration as text: the effective one, the defaults, the reference.

use super::options::{
    self, Accounts, Acme, Admin, Contact, Federation, HostOptions, Limits, Listener, Log, Metrics, StoreOptions, Top,
};
use super::value::{grouped, quoted};
use super::{Config, default_listeners, default_server_listeners};
use std::fmt::Write;

/// The effective configuration as a file that would give the same.
pub fn effective(config: &Config) -> String {
    let mut out = String::new();
    options_of(&mut out, Top { data: Some(config.data.clone()) }.show());
    for host in &config.hosts {
        table(&mut out, &format!("[host.{}]", quoted(&host.domain)), host.options.show());
        let contact = &host.options.contact;
        if *contact != Contact::default() {
            table(&mut out, &format!("[host.{}.contact]", quoted(&host.domain)), contact.show());
        }
    }
    for listener in &config.listeners {
        table(&mut out, "[[listen]]", listener.show());
    }
    table(&mut out, "[s2s]", config.federation.show());
    for remote in &config.remotes {
        table(&mut out, &format!("[s2s.domain.{}]", quoted(&remote.domain)), remote.options.show());
    }
    for component in &config.components {
        table(&mut out, "[[component]]", component.show());
    }
    if config.uses_acme() || config.acme != Acme::default() {
        table(&mut out, "[acme]", config.acme.show());
    }
    table(&mut out, "[accounts]", config.accounts.show());
    for class in &config.classes {
        table(&mut out, &format!("[account_class.{}]", quoted(&class.name)), class.options.show());
    }
    table(&mut out, "[store]", config.store.show());
    table(&mut out, "[log]", config.log.show());
    let admin = Admin { socket: Some(config.admin_socket()), ..config.admin.clone() };
    table(&mut out, "[admin]", admin.show());
    table(&mut out, "[metrics]", config.metrics.show());
    table(&mut out, "[limits]", config.limits.show());
    out
}

fn table(out: &mut String, heading: &str, options: Vec<(&'static str, String)>) {
    let _ = writeln!(out, "\n{heading}");
    options_of(out, options);
}

fn options_of(out: &mut String, options: Vec<(&'static str, String)>) {
    for (key, value) in options.into_iter().filter(|(_, value)| !value.is_empty()) {
        let _ = writeln!(out, "{key} = {value}");
    }
}

/// Every option with its meaning and its default, as a file in which all lines are comments.
pub fn defaults() -> String {
    let mut out = String::from("# Every option of waft with its default. Remove the # of what you change.\n");
    for section in options::all() {
        out.push('\n');
        comment(&mut out, &section.about);
        if !section.heading.is_empty() {
            let _ = writeln!(out, "#{}", section.heading);
        }
        for option in section.options.iter().filter(|option| option.key != "contact") {
            out.push('\n');
            comment(&mut out, &format!("{} ({})", option.meaning, kind(option)));
            let value = if option.default.is_empty() { "…" } else { &option.default };
            let _ = writeln!(out, "#{} = {value}", option.key);
        }
    }
    out
}

fn comment(out: &mut String, text: &str) {
    let mut width = 0;
    for word in text.split_whitespace() {
        if width == 0 || width + word.chars().count() > 100 {
            if width > 0 {
                out.push('\n');
            }
            out.push_str("##");
            width = 2;
        }
        out.push(' ');
        out.push_str(word);
        width += word.chars().count() + 1;
    }
    out.push('\n');
}

fn kind(option: &super::read::Documented) -> String {
    match option.range {
        Some((low, high)) => format!("{}, {} to {}", option.kind, grouped(low), grouped(high)),
        None => option.kind.clone(),
    }
}

/// The configuration reference, docs/configuration.md.
pub fn reference() -> String {
    let mut out = String::from(INTRODUCTION);
    for section in options::all() {
        let _ = writeln!(
            out,
            "\n## {}\n\n{}\n",
            if section.heading.is_empty() { "Top of the file".to_string() } else { format!("`{}`", section.heading) },
            section.about
        );
        out.push_str("| option | type | default | meaning |\n|---|---|---|---|\n");
        for option in &section.options {
            let default = if option.default.is_empty() { "unset".to_string() } else { code(&option.default) };
            let _ =
                writeln!(out, "| `{}` | {} | {default} | {} |", option.key, cell(&kind(option)), cell(&option.meaning));
        }
        if section.at == Listener::AT {
            out.push_str("\nWithout any `[[listen]]`, the listeners are:\n\n```toml\n");
            for listener in default_listeners() {
                let tls = listener.tls.word();
                let _ = writeln!(out, "[[listen]]\naddress = \"{}\"\ntls = \"{tls}\"", listener.address);
            }
            out.push_str(SERVERS);
            for listener in default_server_listeners() {
                let tls = listener.tls.word();
                let address = listener.address;
                let _ = writeln!(out, "[[listen]]\nkind = \"s2s\"\naddress = \"{address}\"\ntls = \"{tls}\"");
            }
            out.push_str("```\n");
        }
    }
    out
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

fn code(text: &str) -> String {
    format!("`{}`", cell(text))
}

const SERVERS: &str = "\
```

and, where a hosted domain can be found by others (it is not `localhost`, has a dot, does not end in `.local`), those of
servers of other domains; DNS should then name this server (`_xmpp-server._tcp` and `_xmpps-server._tcp`, or an address
for the domain itself):

```toml
";

const INTRODUCTION: &str = "\
<!-- Printed by `waft config show --defaults --markdown`; a test compares it with the code. -->

# Configuration

waft serves without any configuration. What differs from the defaults stands in one TOML file, named by
`--config FILE` or `$WAFT_CONFIG`; else `/etc/waft/waft.toml` is read if it is there. Every option has a default, an
unknown one is an error. Paths are relative to the folder of the file.

- `waft config check` says everything that is wrong, with file, line and remedy.
- `waft config show` prints the effective configuration, `waft config show --defaults` every option with its default.
- On the command line, `waft serve --data DIR --domain D --c2s ADDR:PORT --direct-tls ADDR:PORT` win over the file.
  `--domain`, `--c2s` and `--direct-tls` may be given several times; `--direct-tls none` listens on none.
- SIGHUP (`systemctl reload waft`) reads the file again. Hosts, certificates, limits and the log level change at once, for
  connections from then on; of the rest the log says that it waits for a restart. A file with an error changes nothing.

A server for one domain needs this:

```toml
[host.\"example.org\"]
certificate = \"/etc/waft/example.org.pem\"
key = \"/etc/waft/example.org.key\"
```
";

// Every section is shown; a new one must be added above.
const _: fn(&Config) = |config| {
    let Config {
        data: _,
        hosts: _,
        listeners: _,
        federation: Federation { .. },
        remotes: _,
        components: _,
        accounts: Accounts { .. },
        store: StoreOptions { .. },
        log: Log { .. },
        limits: Limits { .. },
        admin: Admin { .. },
        // Of the command line alone.
        ad_hoc: _,
        metrics: Metrics { .. },
        sources: _,
        acme: _,
        classes: _,
    } = config;
    let _: Option<HostOptions> = None;
};
