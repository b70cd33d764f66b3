use super::*;

/// What is wrong with a file: the titles with their remedies.
fn wrong(text: &str) -> Vec<String> {
    match parse(text, Some("/etc/waft/waft.toml".into()), &Sources::default()) {
        Ok(_) => Vec::new(),
        Err(problems) => {
            problems.list.into_iter().map(|problem| format!("{}; {}", problem.title, problem.remedy)).collect()
        }
    }
}

/// The only thing that is wrong, as it is printed.
fn told(text: &str) -> String {
    let problems =
        parse(text, Some("/etc/waft/waft.toml".into()), &Sources::default()).expect_err("something is wrong");
    assert_eq!(problems.list.len(), 1, "{problems}");
    problems.render(false)
}

fn good(text: &str) -> Config {
    parse(text, Some("/etc/waft/waft.toml".into()), &Sources::default()).unwrap_or_else(|problems| panic!("{problems}"))
}

fn with(overrides: Overrides, text: &str) -> Config {
    let sources = Sources { file: None, overrides };
    parse(text, None, &sources).unwrap_or_else(|problems| panic!("{problems}"))
}

#[test]
fn an_empty_file_is_the_defaults() {
    let config = good("");
    assert_eq!(config.hosts.iter().map(|host| &*host.domain).collect::<Vec<_>>(), ["localhost"]);
    assert_eq!(config.listeners, default_listeners());
    assert_eq!(config.limits, Limits::default());
    assert!(config.data.is_absolute());
}

#[test]
fn an_error_is_told_with_file_line_caret_and_remedy() {
    let text = told("[limits]\nstanza_bytes_max = \"big\"\n");
    assert!(text.contains("/etc/waft/waft.toml:2:20"), "{text}");
    assert!(text.contains("stanza_bytes_max = \"big\""), "{text}");
    assert!(text.contains("^^^^^"), "{text}");
    assert!(text.contains("help: write a whole number"), "{text}");
}

#[test]
fn all_errors_are_told_at_once_in_the_order_of_the_file() {
    let wrong =
        wrong("dta = \"x\"\n[log]\nlevel = \"lots\"\n[limits]\nrates = 1\nunheard = 2\n[[listen]]\ntls = \"yes\"\n");
    let found: Vec<bool> = [
        "unknown option dta",
        "\"lots\" is no log level",
        "limits.rates",
        "unknown option limits.unheard",
        "listen[0]",
    ]
    .iter()
    .zip(&wrong)
    .map(|(expected, told)| told.contains(expected))
    .collect();
    assert!(wrong.len() >= 5 && found.iter().all(|it| *it), "{wrong:#?}");
}

#[test]
fn bad_toml_is_told_with_its_place() {
    let text = told("data = /var/lib/waft\n");
    assert!(text.contains("this is no TOML") && text.contains("waft.toml:1:8"), "{text}");
}

#[test]
fn an_unknown_option_gets_a_suggestion() {
    assert!(told("[limits]\ndepht_max = 3\nrates = false\n").contains("unknown option limits.depht_max"));
    assert!(told("[limits]\nstanza_byte_max = 20000\n").contains("did you mean stanza_bytes_max?"));
    assert!(told("[logs]\n").contains("did you mean log?"));
}

#[test]
fn an_option_in_the_wrong_table_is_sent_to_the_right_one() {
    assert!(told("durability = \"os\"\n").contains("durability belongs in [store]"));
    assert!(told("[store]\nlevel = \"debug\"\n").contains("level belongs in [log]"));
}

#[test]
fn an_unknown_option_of_a_host_is_told() {
    assert!(told("[host.\"a.example\"]\ncertifcate = \"x\"\n").contains("did you mean certificate?"));
}

#[test]
fn a_wrong_word_gets_the_right_ones_and_a_suggestion() {
    let text = told("[store]\ndurability = \"fulll\"\n");
    assert!(text.contains("one of \"full\" | \"os\"; did you mean \"full\"?"), "{text}");
}

#[test]
fn a_wrong_type_is_told() {
    assert!(told("[limits]\nrates = \"no\"\n").contains("write true or false, without quotes"));
    assert!(told("data = 5\n").contains("write a path in quotes"));
    assert!(told("[admin]\nuids = 5\n").contains("write a list in brackets"));
    assert!(told("limits = 5\n").contains("write [limits] on a line of its own"));
}

#[test]
fn a_number_out_of_range_is_told_with_the_range() {
    let text = told("[limits]\nbefore_auth_bytes_max = 512\n");
    assert!(text.contains("write a number from 10_000 to 1_048_576"), "{text}");
}

#[test]
fn a_negative_or_huge_number_is_told() {
    assert!(told("[limits]\nroster_items_max = -1\n").contains("a whole number from 0"));
    assert!(told("[limits]\nstanza_depth_max = 99999\n").contains("a whole number from 0 to 65535"));
}

#[test]
fn limits_that_contradict_each_other_are_told() {
    let text = told("[limits]\nresume_seconds_default = 1000\n");
    assert!(text.contains("resume_seconds_default is greater than limits.resume_seconds_max"), "{text}");
}

#[test]
fn a_listener_without_tls_on_the_network_is_refused() {
    let text = told("[[listen]]\naddress = \"0.0.0.0:5222\"\ntls = \"optional\"\n");
    assert!(text.contains("would let clients log in without TLS") && text.contains("force = true"), "{text}");
}

#[test]
fn a_listener_without_tls_on_loopback_or_by_force_is_taken() {
    good("[[listen]]\naddress = \"127.0.0.1:5222\"\ntls = \"optional\"\n");
    good("[[listen]]\naddress = \"[::1]:5222\"\ntls = \"optional\"\n");
    good("[[listen]]\naddress = \"*:5222\"\ntls = \"optional\"\nforce = true\n");
}

#[test]
fn a_listener_without_an_address_is_told() {
    assert!(told("[[listen]]\ntls = \"direct\"\n").contains("listen[0] has no address"));
}

#[test]
fn a_listener_with_a_bad_address_is_told() {
    assert!(told("[[listen]]\naddress = \"example.org\"\n").contains("an address and a port in quotes"));
}

#[test]
fn two_listeners_with_one_address_are_told() {
    assert!(
        told("[[listen]]\naddress = \"*:5222\"\n[[listen]]\naddress = \"*:5222\"\n")
            .contains("two listeners have the address *:5222")
    );
}

#[test]
fn listen_as_one_table_is_told() {
    assert!(told("[listen]\naddress = \"*:5222\"\n").contains("write [[listen]]"));
}

#[test]
fn a_host_without_quotes_is_explained() {
    assert!(told("[host.example.org]\npresence = true\n").contains("write [host.\"example.org\"]"));
}

#[test]
fn a_host_that_is_no_domain_is_told() {
    assert!(told("[host.\"a b\"]\n").contains("\"a b\" is no domain"));
}

#[test]
fn a_certificate_without_a_key_is_told() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let file = folder.path().join("c.pem");
    std::fs::write(&file, "").expect("can be written");
    let text = told(&format!("[host.\"a.example\"]\ncertificate = \"{}\"\n", file.display()));
    assert!(text.contains("has a certificate and no key"), "{text}");
}

#[test]
fn a_certificate_that_is_not_there_is_told() {
    let wrong = wrong("[host.\"a.example\"]\ncertificate = \"/nowhere/c.pem\"\nkey = \"/nowhere/k.pem\"\n");
    assert!(wrong.len() == 2 && wrong[0].contains("/nowhere/c.pem cannot be read"), "{wrong:?}");
}

#[test]
fn a_host_where_nobody_can_log_in_is_told() {
    assert!(told("[host.\"a.example\"]\nmechanisms = []\n").contains("lets nobody log in"));
    good("[host.\"a.example\"]\nmechanisms = []\nanonymous = true\n");
}

#[test]
fn a_contact_address_that_is_no_uri_is_told() {
    let text = told("[host.\"a.example\".contact]\nabuse = [\"abuse@a.example\"]\n");
    assert!(text.contains("is no URI") && text.contains("mailto:"), "{text}");
}

#[test]
fn a_log_level_of_one_part_is_taken_and_a_wrong_one_told() {
    good("[log]\nlevel = \"info,waft::edge=debug\"\n");
    assert!(told("[log]\nlevel = \"inf\"\n").contains("did you mean info?"));
}

#[test]
fn a_file_that_is_not_there_is_told() {
    let sources = Sources { file: Some("/nowhere/waft.toml".into()), overrides: Overrides::default() };
    let text = sources.load().expect_err("there is none").render(false);
    assert!(text.contains("/nowhere/waft.toml cannot be read") && text.contains("--config FILE"), "{text}");
}

#[test]
fn hosts_keep_the_order_of_the_file() {
    let config = good("[host.\"z.example\"]\n[host.\"a.example\"]\npresence = false\n");
    assert_eq!(config.hosts.iter().map(|host| &*host.domain).collect::<Vec<_>>(), ["z.example", "a.example"]);
    assert!(!config.hosts[1].options.presence);
}

#[test]
fn domains_are_prepared() {
    assert_eq!(&*good("[host.\"Example.ORG\"]\n").hosts[0].domain, "example.org");
}

#[test]
fn relative_paths_are_relative_to_the_file() {
    assert_eq!(good("data = \"store\"\n").data, Path::new("/etc/waft/store"));
}

#[test]
fn the_command_line_wins_over_the_file() {
    let config = with(
        Overrides {
            data: Some("/elsewhere".into()),
            domains: vec!["b.example".into(), "c.example".into()],
            c2s: vec![Some(ListenAddress::Any(6222))],
            direct_tls: vec![None],
            s2s: Vec::new(),
            ad_hoc: false,
        },
        "data = \"/here\"\n[host.\"a.example\"]\n[host.\"b.example\"]\nanonymous = true\n",
    );
    assert_eq!(config.data, Path::new("/elsewhere"));
    assert_eq!(config.hosts.iter().map(|host| &*host.domain).collect::<Vec<_>>(), ["b.example", "c.example"]);
    assert!(config.hosts[0].options.anonymous, "the file's options of a named domain count");
    assert_eq!(config.listeners.len(), 1);
    assert_eq!(config.listeners[0].address, ListenAddress::Any(6222));
}

#[test]
fn a_domain_that_others_can_find_is_federated_without_configuration() {
    let of = |domain: &str| with(Overrides { domains: vec![domain.into()], ..Overrides::default() }, "");
    let ports =
        |config: &Config| -> Vec<u16> { config.listeners.iter().map(|listener| listener.address.port()).collect() };
    assert_eq!(ports(&of("example.org")), [5222, 5223, 5269, 5270]);
    for domain in ["localhost", "kitchen", "kitchen.local", "a.localhost", "192.0.2.1", "[2001:db8::1]"] {
        assert_eq!(ports(&of(domain)), [5222, 5223], "{domain}");
    }
}

#[test]
fn whoever_chooses_listeners_chooses_whether_to_federate() {
    let one = Some(ListenAddress::Any(6222));
    let domains = || vec!["example.org".into()];
    let config = with(Overrides { domains: domains(), c2s: vec![one], ..Overrides::default() }, "");
    assert!(!config.federates());
    let config = with(
        Overrides {
            domains: domains(),
            c2s: vec![one],
            s2s: vec![Some(ListenAddress::Any(6269))],
            ..Overrides::default()
        },
        "",
    );
    assert!(config.federates());
    let config = with(Overrides { domains: domains(), s2s: vec![None], ..Overrides::default() }, "");
    assert!(!config.federates());
    assert!(!good("[host.\"example.org\"]\n[[listen]]\naddress = \"*:5222\"\n").federates());
}

#[test]
fn no_listener_at_all_is_told() {
    let overrides = Overrides { c2s: vec![None], direct_tls: vec![None], ..Overrides::default() };
    let problems = parse("", None, &Sources { file: None, overrides }).expect_err("nobody could connect");
    assert!(problems.to_string().contains("there is no listener"), "{problems}");
}

#[test]
fn addresses_are_read_in_every_form() {
    let read = |text: &str| text.parse::<ListenAddress>().map(|it| it.to_string());
    assert_eq!(read("*:5222"), Ok("*:5222".into()));
    assert_eq!(read(":5222"), Ok("*:5222".into()));
    assert_eq!(read("5222"), Ok("*:5222".into()));
    assert_eq!(read("127.0.0.1:5222"), Ok("127.0.0.1:5222".into()));
    assert_eq!(read("[::1]:5222"), Ok("[::1]:5222".into()));
    assert_eq!(read("localhost:5222"), Ok("127.0.0.1:5222".into()));
    assert_eq!(read("example.org:5222"), Err(()));
    assert_eq!(read("127.0.0.1"), Err(()));
}

#[test]
fn the_effective_configuration_gives_itself_again() {
    let text = "data = \"/d\"\n[host.\"a.example\"]\nregistration = \"open\"\n[host.\"a.example\".contact]\nabuse = \
                [\"mailto:a@a.example\"]\n[[listen]]\naddress = \"127.0.0.1:1\"\ntls = \"direct\"\n[limits]\nrates = \
                false\n[admin]\nuids = [7]\n";
    let config = good(text);
    let shown = show::effective(&config);
    let mut again = good(&shown);
    again.admin.socket = config.admin.socket.clone();
    assert_eq!(again, config, "{shown}");
}

#[test]
fn every_default_is_a_value_that_can_be_written() {
    for section in options::all() {
        for option in section.options.iter().filter(|option| !option.default.is_empty()) {
            let heading = match section.heading {
                "" => String::new(),
                "[[listen]]" if option.key != "address" => "[[listen]]\naddress = \"127.0.0.1:9\"\n".into(),
                "[[component]]" => "[[component]]\ndomain = \"irc.example\"\nSECRET\n".into(),
                heading => format!("{heading}\n"),
            };
            let (_folder, heading) = with_secret(&heading);
            good(&format!("{heading}{} = {}\n", option.key, option.default));
        }
    }
}

#[test]
fn defaults_are_within_their_ranges() {
    for section in options::all() {
        for option in section.options {
            if let Some((low, high)) = option.range {
                let default: u64 = option.default.replace('_', "").parse().expect("a number");
                assert!((low..=high).contains(&default), "{}", option.key);
            }
        }
    }
}

#[test]
fn every_option_has_a_meaning() {
    for section in options::all() {
        for option in section.options {
            assert!(
                option.meaning.len() > 10 && option.meaning.ends_with(['.', '?', '`']),
                "{}: {}",
                option.key,
                option.meaning
            );
        }
    }
}

#[test]
fn the_reference_in_the_documentation_is_that_of_the_code() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/configuration.md");
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == show::reference(),
        "docs/configuration.md is not what the code says: print it anew with `waft config show --defaults --markdown`"
    );
}

#[test]
fn limits_reach_the_scanner_and_the_accounts() {
    let config = good("[limits]\nstanza_depth_max = 20\nbefore_auth_elements_max = 40\nroster_items_max = 7\n");
    assert_eq!(config.limits.after_auth().depth_max, 20);
    assert_eq!(config.limits.before_auth().elements_max, 40);
    assert_eq!(config.limits.of_accounts().roster_items_max, 7);
}

#[test]
fn default_limits_are_those_of_the_crates_that_count() {
    let limits = Limits::default();
    assert_eq!(limits.before_auth(), xmpp::xml::Limits::BEFORE_AUTH);
    assert_eq!(limits.after_auth(), xmpp::xml::Limits::CLIENT);
    assert_eq!(limits.of_accounts(), im::Limits::default());
}

#[test]
fn a_host_s_options_reach_its_policy() {
    let config = good(
        "[host.\"a.example\"]\nmessages = false\nregistration = \"open\"\nresource_conflict = \"rename\"\n[host.\"a.example\".contact]\nabuse = [\"mailto:a@a.example\"]\n",
    );
    let policy = config.policy(&config.hosts[0]).expect("the domain is prepared");
    assert!(!policy.messages && policy.presence && policy.registration_open);
    assert_eq!(policy.resource_conflict, im::policy::ResourceConflict::Rename);
    assert_eq!(policy.contact_addresses, [("abuse-addresses".to_string(), vec!["mailto:a@a.example".to_string()])]);
}

#[test]
fn limits_reach_the_accounts_and_rates_may_be_off() {
    let limits = |text: &str| good(&format!("[limits]\n{text}")).limits.of_accounts();
    let some =
        limits("strangers_per_minute = 7\narchive_days_max = 8\narchive_bytes_max = 100000\noffline_days_max = 9\n");
    assert_eq!((some.strangers_per_minute, some.archive_days_max), (Some(7), 8));
    assert_eq!((some.archive_bytes_max, some.offline_days_max), (100_000, 9));
    assert_eq!(limits("rates = false\n").strangers_per_minute, None);
}

// XEP-0215; RFC 7064 §3.1, RFC 7065 §3.1.
#[test]
fn external_services_are_uris_with_a_secret_in_a_file() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let secret = folder.path().join("secret");
    std::fs::write(&secret, "hush\n").expect("the folder can be written to");
    let config = good(&format!(
        "[host.\"a.example\"]\nexternal_services = [\"stun:a.example\", \"turn:[::1]:99?transport=tcp\", \"turns:b.example\"]\n\
         turn_secret = \"{}\"\nturn_seconds = 600\n",
        secret.display()
    ));
    let policy = config.policy(&config.hosts[0]).expect("the domain is prepared");
    let services: Vec<_> =
        policy.external_services.iter().map(|s| (&*s.kind, &*s.host, s.port, &*s.transport)).collect();
    let expected =
        [("stun", "a.example", 3478, "udp"), ("turn", "::1", 99, "tcp"), ("turns", "b.example", 5349, "tcp")];
    assert_eq!(services, expected);
    let turn = policy.turn.expect("there is a secret");
    assert_eq!((turn.seconds, (turn.sign.0)("1767229200").as_str()), (600, "iGJh7aFvdq4P0u7yzHrYx2fCC7o="));
    for bad in ["http:a.example", "stun:", "stun:a.example:0", "stun:a?transport=udp", "turn:a b", "turn:[::1"] {
        let wrong = wrong(&format!("[host.\"a.example\"]\nexternal_services = [\"{bad}\"]\n"));
        assert_eq!(wrong.len(), 1, "{bad}: {wrong:?}");
    }
}

// XEP-0198 §3, RFC 6120 §4.9.3.19.
#[test]
fn the_place_to_resume_at_is_a_host_and_a_port() {
    let of = |location: &str| format!("[host.\"a.example\"]\nresume_location = \"{location}\"\n");
    for location in ["node1.a.example:5222", "[2001:db8::1]:9222", "192.0.2.1:1"] {
        let config = good(&of(location));
        let policy = config.policy(&config.hosts[0]).expect("the domain is prepared");
        assert_eq!(policy.resume_location.as_deref(), Some(location));
    }
    for bad in
        ["node1.a.example", "a.example:0", "a.example:70000", "2001:db8::1:5222", "[2001:db8::1]", ":5222", "a b:1"]
    {
        assert_eq!(wrong(&of(bad)).len(), 1, "{bad}");
    }
}

#[test]
fn what_cannot_be_reloaded_is_named() {
    let old = good("");
    let new =
        good("data = \"/other\"\n[store]\ndurability = \"os\"\n[limits]\nrates = false\n[log]\nlevel = \"debug\"\n");
    let notes = old.unreloadable(&new);
    assert!(notes.iter().any(|note| note.starts_with("data")) && notes.iter().any(|note| note.starts_with("[store]")));
    assert!(!notes.iter().any(|note| note.contains("limits") || note.contains("log")), "{notes:?}");
}

fn with_secret(text: &str) -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("secret");
    std::fs::write(&file, "a secret\n").expect("it can be written");
    let text = text.replace("SECRET", &format!("secret = \"{}\"", file.display()));
    (folder, text)
}

#[test]
fn a_component_has_a_prepared_domain_and_is_listed_by_the_hosts_above_it() {
    let (_folder, text) = with_secret(
        "[host.\"a.example\"]\n[host.\"b.example\"]\n[[component]]\ndomain = \"IRC.a.example\"\nlabel = \"IRC\"\nSECRET\n\
         [[component]]\ndomain = \"other.example\"\nSECRET\n",
    );
    let config = good(&text);
    assert_eq!(config.components[0].domain(), "irc.a.example");
    assert_eq!(config.component_addresses().len(), 1);
    let listed = |at: usize| {
        let policy = config.policy(&config.hosts[at]).expect("the hosts are right");
        policy.services.iter().map(|(jid, _)| jid.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(listed(0), ["irc.a.example", "other.example"]);
    assert_eq!(listed(1), ["other.example"]);
}

#[test]
fn what_is_wrong_with_a_component_is_told() {
    assert!(told("[[component]]\nlabel = \"IRC\"\n").contains("names no domain"));
    assert!(told("[[component]]\ndomain = \"irc.example\"\n").contains("has no secret"));
    assert!(told("[[component]]\ndomain = \"irc.example\"\nsecret = \"/nowhere/at/all\"\n").contains("cannot be read"));
    let told_of = |text: &str| told(&with_secret_kept(text));
    assert!(told_of("[[component]]\ndomain = \"localhost\"\nSECRET\n[host.localhost]\n").contains("is a host already"));
    assert!(told_of("[[component]]\ndomain = \"irc.example\"\nSECRET\naddress = \"*:5347\"\n").contains("in clear"));
    let (_folder, text) =
        with_secret("[[component]]\ndomain = \"irc.example\"\nSECRET\naddress = \"*:5347\"\nforce = true\n");
    good(&text);
}

/// The folder stays: the file is read when the text is.
fn with_secret_kept(text: &str) -> String {
    let (folder, text) = with_secret(text);
    let _ = folder.keep();
    text
}

#[test]
fn on_the_ad_hoc_network_servers_are_welcome_and_trusted_on_first_use() {
    let over = || Overrides { ad_hoc: true, domains: vec!["laptop.local".into()], ..Overrides::default() };
    let config = with(over(), "");
    assert!(config.ad_hoc && config.federates() && config.federation.allow_private);
    assert_eq!(config.federation.trust, Trust::FirstUse);
    assert_eq!(&*config.hosts[0].domain, "laptop.local");
    let strict = with(over(), "[s2s]\ntrust = \"certificate\"\n");
    assert_eq!(strict.federation.trust, Trust::Certificate);
}
