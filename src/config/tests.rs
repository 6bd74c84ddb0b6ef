use std::{ffi::OsString, fs};

use super::*;

/// The effective configuration of a command line and an environment, or the text of the error.
fn read(arguments: &[&str], variables: &[(&str, &str)]) -> Result<Effective, String> {
    let arguments = ["marina-distribution"].iter().chain(arguments).map(OsString::from);
    let variables = variables.iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
    Invocation::read(arguments, variables).map(|invocation| invocation.effective).map_err(|error| error.to_string())
}

fn file(text: &str) -> (tempfile::TempDir, String) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("marina.toml");
    fs::write(&path, text).unwrap();
    (dir, path.to_str().unwrap().to_owned())
}

#[test]
fn without_anything_the_defaults_hold() {
    let config = read(&[], &[]).unwrap().config;
    assert_eq!(config.listen.to_string(), "127.0.0.1:5000");
    assert_eq!(config.store, StoreLocation::Directory("./registry-data".into()));
    assert_eq!(config.s3_endpoint.0, None);
    assert!(!config.allow_missing_references);
    assert_eq!(config.upload_expiry, Duration::from_hours(24));
    assert_eq!(config.memory, ByteSize::mib(32));
    assert_eq!(config.log_format, LogFormat::Auto);
}

#[test]
fn a_flag_beats_a_variable_beats_the_file_beats_the_default() {
    let (_dir, path) = file("drain = \"3s\"");
    let drain =
        |arguments: &[&str], variables: &[(&str, &str)]| read(arguments, variables).unwrap().config.drain.as_secs();
    assert_eq!(drain(&[], &[]), 30);
    assert_eq!(drain(&["--config", &path], &[]), 3);
    assert_eq!(drain(&["--config", &path], &[("MARINA_DRAIN", "2s")]), 2);
    assert_eq!(drain(&["--config", &path, "--drain", "1s"], &[("MARINA_DRAIN", "2s")]), 1);
}

#[test]
fn the_flag_that_names_the_file_beats_the_variable() {
    let (_one, one) = file("drain = \"1s\"");
    let (_two, two) = file("drain = \"2s\"");
    let drain = |arguments: &[&str]| read(arguments, &[("MARINA_CONFIG", &two)]).unwrap().config.drain.as_secs();
    assert_eq!(drain(&[]), 2);
    assert_eq!(drain(&["--config", &one]), 1);
}

#[test]
fn a_store_is_a_directory_or_a_bucket_with_or_without_a_prefix() {
    let store = |arguments: &[&str]| read(arguments, &[]).unwrap().config.store;
    let bucket = |bucket: &str, prefix: &str| StoreLocation::Bucket { bucket: bucket.into(), prefix: prefix.into() };
    assert_eq!(store(&["--store", "/var/registry"]), StoreLocation::Directory("/var/registry".into()));
    assert_eq!(store(&["--store", "s3://images"]), bucket("images", ""));
    assert_eq!(store(&["--store", "s3://images/a/b/"]), bucket("images", "a/b"));
    for wrong in ["", "s3://", "s3:///a", "http://images", "gs://images"] {
        assert!(read(&["--store", wrong], &[]).is_err(), "{wrong:?}");
    }
}

#[test]
fn the_older_name_of_the_store_is_the_same_setting_in_every_source() {
    let (_dir, path) = file("data_dir = \"a\"");
    let store =
        |arguments: &[&str], variables: &[(&str, &str)]| read(arguments, variables).unwrap().config.store.to_string();
    assert_eq!(store(&["--config", &path], &[]), "a");
    assert_eq!(store(&["--config", &path], &[("MARINA_DATA_DIR", "b")]), "b");
    assert_eq!(store(&["--data-dir", "c"], &[("MARINA_DATA_DIR", "b")]), "c");
}

#[test]
fn flags_stand_before_or_after_the_command() {
    for arguments in [&["--drain", "1s"][..], &["--drain", "1s", "serve"], &["serve", "--drain", "1s"]] {
        assert_eq!(read(arguments, &[]).unwrap().config.drain.as_secs(), 1, "{arguments:?}");
    }
}

#[test]
fn putting_back_can_be_turned_off_and_no_other_time_can_be_zero() {
    assert_eq!(read(&["--undelete", "0s"], &[]).unwrap().config.undelete, OrZero(Duration::ZERO));
    assert_eq!(read(&["--undelete", "2s"], &[]).unwrap().config.undelete, OrZero(Duration::from_secs(2)));
    assert!(read(&["--undelete", "soon"], &[]).is_err());
    assert!(read(&["--grace", "0s"], &[]).is_err());
}

#[test]
fn a_switch_can_be_turned_off_again() {
    let on = [("MARINA_ALLOW_MISSING_REFERENCES", "true")];
    assert!(read(&["--allow-missing-references"], &[]).unwrap().config.allow_missing_references);
    assert!(read(&[], &on).unwrap().config.allow_missing_references);
    assert!(!read(&["--allow-missing-references=false"], &on).unwrap().config.allow_missing_references);
}

#[test]
fn an_unknown_setting_is_refused_with_the_nearest_name() {
    let (_dir, path) = file("# a comment\nlissten = \"127.0.0.1:1\"\n");
    assert_eq!(
        read(&["--config", &path], &[]).unwrap_err(),
        format!("{path}:2: there is no setting lissten; did you mean listen?")
    );
    assert_eq!(
        read(&[], &[("MARINA_DATADIR", "x")]).unwrap_err(),
        "MARINA_DATADIR: there is no setting datadir; did you mean MARINA_DATA_DIR?"
    );
    assert_eq!(
        read(&[], &[("MARINA_CONFG", "x")]).unwrap_err(),
        "MARINA_CONFG: there is no setting confg; did you mean MARINA_CONFIG?"
    );
    assert_eq!(read(&[], &[("MARINA_ZZZZZZ", "x")]).unwrap_err(), "MARINA_ZZZZZZ: there is no setting zzzzzz");
}

#[test]
fn the_variables_by_which_kubernetes_describes_services_are_ignored() {
    let links = ["MARINA_SERVICE_HOST", "MARINA_PORT", "MARINA_PORT_5000_TCP_ADDR", "MARINA_UI_SERVICE_PORT_HTTP"];
    for link in links {
        assert!(read(&[], &[(link, "tcp://10.0.0.1:5000")]).is_ok(), "{link}");
    }
    let clash = |setting: &&&Setting| format!("_{}_", setting.name).contains("_port_");
    assert!(SETTINGS.iter().find(clash).is_none(), "a setting named like a service link would be ignored");
}

#[test]
fn a_wrong_value_says_where_it_stands() {
    let (_dir, path) = file("drain = \"1s\"\nmax_connections = \"many\"\n");
    assert_eq!(read(&["--config", &path], &[]).unwrap_err(), format!("{path}:2: expected 10000, found a string"));
    let (_dir, path) = file("\n\nlisten = \"nowhere\"\n");
    assert!(read(&["--config", &path], &[]).unwrap_err().starts_with(&format!("{path}:3: expected an address")));
    assert!(read(&[], &[("MARINA_DRAIN", "soon")]).unwrap_err().starts_with("MARINA_DRAIN: expected a time"));
    assert!(read(&["--drain", "soon"], &[]).unwrap_err().starts_with("--drain: expected a time"));
}

#[test]
fn a_file_that_is_no_toml_says_which_line() {
    let (_dir, path) = file("drain = \"1s\"\n= 3\n");
    assert!(read(&["--config", &path], &[]).unwrap_err().starts_with(&format!("{path}:2: ")));
}

#[test]
fn a_text_without_quotes_is_told_that_it_needs_them() {
    let (_dir, path) = file("\nlisten = 127.0.0.1:5000\n");
    let why = read(&["--config", &path], &[]).unwrap_err();
    assert!(why.starts_with(&format!("{path}:2: ")), "{why}");
    assert!(why.ends_with("; texts are quoted: listen = \"127.0.0.1:5000\""), "{why}");
    let (_dir, path) = file("listen = \"127.0.0.1:5000\nx");
    assert!(!read(&["--config", &path], &[]).unwrap_err().contains("quoted: "));
}

#[test]
fn a_switch_that_is_followed_by_a_word_is_told_how_it_is_written() {
    for word in ["true", "false"] {
        let why = read(&["serve", "--deletes", word], &[]).unwrap_err();
        assert_eq!(why, format!("--deletes: expected --deletes={word}, found a space"));
    }
}

#[test]
fn what_is_displayed_reads_back_as_the_same_configuration() {
    let odd = ["--data-dir", "a \"quoted\" # dir", "--memory", "1234567", "--max-connections", "7", "--log", "warn"];
    let given = read(&odd, &[("MARINA_ALLOW_MISSING_REFERENCES", "true")]).unwrap();
    let (_dir, path) = file(&given.to_string());
    assert_eq!(read(&["--config", &path], &[]).unwrap().config, given.config);
}

#[test]
fn a_command_logs_what_went_wrong_unless_it_is_told_what_to_log() {
    let level = |variables: &[(&str, &str)]| read(&["gc"], variables).unwrap().log_beside_a_result().default_level();
    assert_eq!(level(&[]), Some(LevelFilter::WARN));
    assert_eq!(level(&[("MARINA_LOG", "info")]), Some(LevelFilter::INFO));
}

#[test]
fn what_is_displayed_says_where_each_value_came_from() {
    let (_dir, path) = file("\nmemory = \"1MiB\"");
    let shown = read(&["--config", &path, "--drain", "1s"], &[("MARINA_LOG", "warn")]).unwrap().to_string();
    assert!(shown.contains(&format!("memory = \"1MiB\"  # {path}:2\n")), "{shown}");
    assert!(shown.contains("drain = \"1s\"  # --drain\n"), "{shown}");
    assert!(shown.contains("log = \"warn\"  # MARINA_LOG\n"), "{shown}");
    assert!(shown.contains("listen = \"127.0.0.1:5000\"  # default\n"), "{shown}");
}
