//! `waft config`: check and show.

use super::{Failure, say};
use crate::certificates;
use crate::cli::ConfigCommand;
use crate::config::{Config, Sources, show};

pub fn config(command: &ConfigCommand) -> Result<(), Failure> {
    match command {
        ConfigCommand::Check(arguments) => check(&arguments.sources()),
        ConfigCommand::Show { defaults: true, markdown: true, .. } => {
            print(&show::reference());
            Ok(())
        }
        ConfigCommand::Show { defaults: true, .. } => {
            print(&show::defaults());
            Ok(())
        }
        ConfigCommand::Show { serve, .. } => {
            print(&show::effective(&serve.sources().load()?));
            Ok(())
        }
    }
}

fn check(sources: &Sources) -> Result<(), Failure> {
    let config = sources.load()?;
    let wrong = certificates::check(&config);
    if !wrong.is_empty() {
        return Err(Failure::Said(wrong.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")));
    }
    say(summary(&config));
    Ok(())
}

fn summary(config: &Config) -> String {
    let hosts: Vec<&str> = config.hosts.iter().map(|host| &*host.domain).collect();
    let listeners: Vec<String> =
        config.listeners.iter().map(|listener| format!("{} ({})", listener.address, listener.how())).collect();
    format!(
        "the configuration is good: {} on {}, data in {}",
        hosts.join(", "),
        listeners.join(", "),
        config.data.display()
    )
}

fn print(text: &str) {
    use std::io::Write;
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
}
