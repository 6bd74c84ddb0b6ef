//! The four sources, strongest first: flags, variables, the file, defaults.

use std::{collections::BTreeMap, ffi::OsString, fs, path::Path};

use toml::de::{DeTable, DeValue};

use super::{
    Error, Kind, Origin, SETTINGS, Setting, Value,
    retention::{self, GivenRule},
};

const PREFIX: &str = "MARINA_";

/// Names that are still understood, and what they are called now.
const OLDER_NAMES: [(&str, &str); 1] = [("data_dir", "store")];

/// The name, without prefix, of the variable that names the file. It is no setting: a file cannot name itself.
const CONFIG: &str = "config";

/// A value as it was written, and where.
#[derive(Clone, Debug)]
pub(super) struct Given {
    pub(super) text: String,
    pub(super) origin: Origin,
}

/// What one source says, by the name of the setting.
pub(super) type Layer = BTreeMap<&'static str, Given>;

/// All that was given.
pub(super) struct Sources {
    /// The strongest first.
    pub(super) layers: Vec<Layer>,
    pub(super) retention: Vec<GivenRule>,
}

/// What a file says.
#[derive(Default)]
pub(super) struct File {
    pub(super) layer: Layer,
    pub(super) retention: Vec<GivenRule>,
}

impl Sources {
    /// The strongest value given for a setting.
    pub(super) fn given(&self, setting: &Setting) -> Given {
        let strongest = self.layers.iter().find_map(|layer| layer.get(setting.name));
        strongest.cloned().unwrap_or_else(|| Given { text: setting.default.to_owned(), origin: Origin::Default })
    }

    /// The same, parsed.
    pub(super) fn read<T: Value>(&self, setting: &Setting) -> Result<T, Error> {
        let Given { text, origin } = self.given(setting);
        T::parse(&text).map_err(|expected| Error::Value { origin, message: format!("{expected}, found {text:?}") })
    }
}

/// What the environment says, and the file that it names.
pub(super) fn environment(
    variables: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<(Layer, Option<OsString>), Error> {
    let mut layer = Layer::new();
    let mut file = None;
    for (variable, value) in variables {
        let Some((variable, name)) = variable.to_str().and_then(|v| Some((v, v.strip_prefix(PREFIX)?))) else {
            continue;
        };
        if is_service_link(name) {
            continue;
        }
        let origin = Origin::Variable(variable.to_owned());
        let name = name.to_ascii_lowercase();
        if name == CONFIG {
            file = Some(value);
            continue;
        }
        let setting = setting(&name).ok_or_else(|| unknown(&name, origin.clone()))?;
        let text = value
            .into_string()
            .map_err(|_| Error::Value { origin: origin.clone(), message: "expected UTF-8".to_owned() })?;
        layer.insert(setting.name, Given { text, origin });
    }
    Ok((layer, file))
}

pub(super) fn file(path: &Path) -> Result<File, Error> {
    let text = fs::read_to_string(path).map_err(|source| Error::File { path: path.to_owned(), source })?;
    parse(path, &text)
}

pub(super) fn parse(path: &Path, text: &str) -> Result<File, Error> {
    let origin = |at: usize| Origin::File { path: path.to_owned(), line: line(text, at) };
    let table = DeTable::parse(text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start);
        Error::Syntax { origin: origin(at), message: format!("{}{}", error.message(), hint(text, at)) }
    })?;
    let mut file = File::default();
    for (key, value) in table.get_ref() {
        let name = key.get_ref().as_ref();
        if name == retention::NAME {
            file.retention = retention::parse(value, origin)?;
            continue;
        }
        let origin = origin(key.span().start);
        let setting = setting(name).ok_or_else(|| unknown(name, origin.clone()))?;
        let text =
            as_text(setting, value.get_ref()).map_err(|message| Error::Value { origin: origin.clone(), message })?;
        file.layer.insert(setting.name, Given { text, origin });
    }
    Ok(file)
}

/// The likeliest mistake, if it is that.
fn hint(text: &str, at: usize) -> String {
    let line = text.lines().nth(line(text, at) - 1).and_then(|line| line.split_once('='));
    let line = line.map(|(key, value)| (key.trim(), value.split(" #").next().unwrap_or_default().trim()));
    match line {
        Some((key, value)) if !key.is_empty() && !value.starts_with(['"', '\'', '[', '{']) => {
            format!("; texts are quoted: {key} = {}", toml::Value::from(value))
        }
        _ => String::new(),
    }
}

fn setting(name: &str) -> Option<&'static Setting> {
    let name = OLDER_NAMES.iter().find(|(older, _)| *older == name).map_or(name, |(_, now)| *now);
    SETTINGS.iter().copied().find(|setting| setting.name == name)
}

/// By what names a setting was known before.
pub(super) fn older_names(setting: &'static Setting) -> impl Iterator<Item = &'static str> {
    OLDER_NAMES.iter().filter(|(_, now)| *now == setting.name).map(|(older, _)| *older)
}

/// Kubernetes describes a service called `marina`, or `marina-…`, to every pod beside it by variables such as
/// `MARINA_SERVICE_HOST` and `MARINA_PORT_5000_TCP`. They are not meant for us, and no setting is named like them.
fn is_service_link(name: &str) -> bool {
    let name = format!("_{name}_");
    name.contains("_SERVICE_HOST_") || name.contains("_SERVICE_PORT_") || name.contains("_PORT_")
}

fn unknown(name: &str, origin: Origin) -> Error {
    let in_environment = matches!(origin, Origin::Variable(_));
    let older = OLDER_NAMES.iter().map(|(older, _)| *older);
    let names = SETTINGS.iter().map(|setting| setting.name).chain(older).chain([if in_environment {
        CONFIG
    } else {
        retention::NAME
    }]);
    let distance = |known: &&str| strsim::damerau_levenshtein(known, name);
    let nearest = names.min_by_key(distance).filter(|known| distance(known) <= 1 + known.len() / 3);
    let spell = |known: &str| {
        if in_environment { format!("{PREFIX}{}", known.to_ascii_uppercase()) } else { known.to_owned() }
    };
    Error::Unknown { origin, name: name.to_owned(), nearest: nearest.map(spell) }
}

/// The text of a value that has the form which the setting wants.
fn as_text(setting: &Setting, value: &DeValue<'_>) -> Result<String, String> {
    match (setting.kind, value) {
        (Kind::Text, DeValue::String(text)) => Ok(text.to_string()),
        (Kind::Boolean, DeValue::Boolean(yes)) => Ok(yes.to_string()),
        (Kind::Integer, DeValue::Integer(number)) => i64::from_str_radix(number.as_str(), number.radix())
            .map(|number| number.to_string())
            .map_err(|_| format!("{number} is too large")),
        (Kind::Text, _) => Err(format!("expected a string such as {:?}, found {}", setting.default, form(value))),
        (Kind::Integer | Kind::Boolean, _) => Err(format!("expected {}, found {}", setting.default, form(value))),
    }
}

fn form(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a float",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    }
}

/// The number of the line that holds this byte, counted from 1.
fn line(text: &str, at: usize) -> usize {
    1 + text.bytes().take(at).filter(|byte| *byte == b'\n').count()
}
