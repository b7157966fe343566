//! A YAML document as a tree in which every key and value knows its line.

use std::fmt;
use std::io::Read;
use std::path::Path;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use serde_saphyr::{Spanned, Tagged};

use crate::{Error, Result};

/// Where a key or value was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// A line of the pipeline file, from 1.
    Line(u64),
    /// The text of a `--set` override.
    Set(String),
}

impl Place {
    /// `file:line` or `--set text`, the beginning of an error message.
    pub fn of(&self, file: &str) -> String {
        match self {
            Self::Line(line) => format!("{file}:{line}"),
            Self::Set(text) => format!("--set {text}"),
        }
    }
}

#[derive(Debug, Clone)]
pub(super) struct Key {
    pub name: String,
    pub place: Place,
}

#[derive(Debug, Clone)]
pub(super) struct Node {
    pub place: Place,
    pub tree: Tree,
}

#[derive(Debug, Clone)]
pub(super) enum Tree {
    /// Null, a boolean, a number or a string.
    Scalar(Value),
    List(Vec<Node>),
    Map(Vec<(Key, Node)>),
    /// `!file path`, until [`Node::read_files`] puts the file's text here.
    File(String),
}

/// Most bytes of a pipeline file and of the files it names.
const TEXT: u64 = 1 << 20;

/// The text of a file of bounded size.
pub fn read_text(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    std::fs::File::open(path)?.take(TEXT + 1).read_to_string(&mut text)?;
    if text.len() as u64 > TEXT {
        return Err(std::io::Error::other(format!("more than {TEXT} bytes")));
    }
    Ok(text)
}

impl Node {
    /// Reads one document. Errors begin with `file:line`.
    pub fn parse(file: &str, text: &str) -> Result<Self> {
        let options = serde_saphyr::options! { strict_booleans: true, with_snippet: false };
        serde_saphyr::from_str_with_options(text, options).map_err(|e| {
            let message = e.without_snippet().to_string();
            let message = message.lines().next().unwrap_or_default();
            // The line stands in front; the library's own suffix would say it twice.
            let message = message.split(" at line ").next().unwrap_or(message);
            let message = message.split(", set DuplicateKeyPolicy").next().unwrap_or(message);
            match e.location().filter(|_| !file.starts_with("--set")) {
                Some(location) => Error::usage(format!("{file}:{}: {message}", location.line())),
                None => Error::usage(format!("{file}: {message}")),
            }
        })
    }

    /// Puts the text of each `!file path` in its place; `path` is relative to `folder`.
    pub fn read_files(&mut self, file: &str, folder: &Path) -> Result<()> {
        match &mut self.tree {
            Tree::Scalar(_) => Ok(()),
            Tree::List(items) => {
                items.iter_mut().try_for_each(|item| item.read_files(file, folder))
            }
            Tree::Map(entries) => {
                entries.iter_mut().try_for_each(|(_, value)| value.read_files(file, folder))
            }
            Tree::File(path) => {
                let path = folder.join(path);
                let text = read_text(&path).map_err(|e| {
                    Error::usage(format!("{}: file `{}`: {e}", self.place.of(file), path.display()))
                })?;
                self.tree = Tree::Scalar(text.into());
                Ok(())
            }
        }
    }

    /// Reads the value of a `--set`; everything in it is placed at that flag.
    pub fn parse_override(set: &str, text: &str) -> Result<Self> {
        let place = format!("--set {set}");
        let mut node = Self::parse(&place, text)?;
        node.replace_place(&Place::Set(set.into()));
        Ok(node)
    }

    fn replace_place(&mut self, place: &Place) {
        self.place = place.clone();
        match &mut self.tree {
            Tree::Scalar(_) | Tree::File(_) => {}
            Tree::List(items) => items.iter_mut().for_each(|item| item.replace_place(place)),
            Tree::Map(entries) => {
                for (key, value) in entries {
                    key.place = place.clone();
                    value.replace_place(place);
                }
            }
        }
    }

    /// The same values as JSON.
    pub fn to_json(&self) -> Value {
        match &self.tree {
            Tree::Scalar(value) => value.clone(),
            Tree::File(path) => path.clone().into(),
            Tree::List(items) => items.iter().map(Self::to_json).collect(),
            Tree::Map(entries) => Value::Object(
                entries.iter().map(|(key, value)| (key.name.clone(), value.to_json())).collect(),
            ),
        }
    }

    /// A tree of `value` in which everything stands at `place`.
    pub fn from_json(value: &Value, place: &Place) -> Self {
        let tree = match value {
            Value::Array(items) => {
                Tree::List(items.iter().map(|item| Self::from_json(item, place)).collect())
            }
            Value::Object(map) => Tree::Map(
                map.iter()
                    .map(|(name, value)| {
                        let key = Key { name: name.clone(), place: place.clone() };
                        (key, Self::from_json(value, place))
                    })
                    .collect(),
            ),
            scalar => Tree::Scalar(scalar.clone()),
        };
        Self { place: place.clone(), tree }
    }

    pub fn is_null(&self) -> bool {
        matches!(self.tree, Tree::Scalar(Value::Null))
    }

    /// What it is, for messages: `the text "x"`, `a list`.
    pub fn describe(&self) -> String {
        match &self.tree {
            Tree::Scalar(Value::Null) => "nothing".into(),
            Tree::Scalar(value) => format!("`{value}`"),
            Tree::File(path) => format!("the file `{path}`"),
            Tree::List(_) => "a list".into(),
            Tree::Map(_) => "a map".into(),
        }
    }

    /// What lies at a dotted path, through lists by number.
    pub fn at(&self, path: &str) -> Option<&Self> {
        path.split('.').try_fold(self, |node, part| match &node.tree {
            Tree::Map(entries) => {
                entries.iter().find(|(key, _)| key.name == part).map(|(_, value)| value)
            }
            Tree::List(items) => items.get(part.parse::<usize>().ok()?),
            Tree::Scalar(_) | Tree::File(_) => None,
        })
    }

    /// The place of the key `name` anywhere below, in order of the file.
    pub fn find_key(&self, name: &str) -> Option<&Place> {
        match &self.tree {
            Tree::Scalar(_) | Tree::File(_) => None,
            Tree::List(items) => items.iter().find_map(|item| item.find_key(name)),
            Tree::Map(entries) => entries.iter().find_map(|(key, value)| {
                if key.name == name { Some(&key.place) } else { value.find_key(name) }
            }),
        }
    }

    /// Dotted paths and places of all scalars.
    pub fn scalars<'a>(&'a self, path: &str, out: &mut Vec<(String, &'a Value, &'a Place)>) {
        let below = |name: &str| {
            if path.is_empty() { name.to_string() } else { format!("{path}.{name}") }
        };
        match &self.tree {
            Tree::Scalar(value) => out.push((path.to_string(), value, &self.place)),
            Tree::File(_) => {}
            Tree::List(items) => {
                for (i, item) in items.iter().enumerate() {
                    item.scalars(&below(&i.to_string()), out);
                }
            }
            Tree::Map(entries) => {
                entries.iter().for_each(|(key, value)| value.scalars(&below(&key.name), out));
            }
        }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Tagged<Tree>>::deserialize(deserializer)?;
        let place = line_of(&spanned);
        let tree = match spanned.value {
            Tagged(Tree::Scalar(Value::String(path)), Some(tag)) if tag == "!file" => {
                Tree::File(path)
            }
            Tagged(_, Some(tag)) if tag.starts_with('!') => {
                return Err(serde::de::Error::custom(format!(
                    "unknown tag `{tag}`; there is only `!file PATH`, for a file's text"
                )));
            }
            Tagged(tree, _) => tree,
        };
        Ok(Self { place, tree })
    }
}

/// The line where it is used; an alias (`*a`) stands where it is written, not at its anchor.
fn line_of<T>(spanned: &Spanned<T>) -> Place {
    match spanned.referenced.line() {
        0 => Place::Line(spanned.defined.line()),
        line => Place::Line(line),
    }
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TreeVisitor)
    }
}

struct TreeVisitor;

impl<'de> Visitor<'de> for TreeVisitor {
    type Value = Tree;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Tree, E> {
        Ok(Tree::Scalar(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Tree, E> {
        Ok(Tree::Scalar(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Tree, E> {
        Ok(Tree::Scalar(value.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Tree, E> {
        match serde_json::Number::from_f64(value) {
            Some(number) => Ok(Tree::Scalar(Value::Number(number))),
            None => Err(E::custom(format!("`{value}` is no finite number"))),
        }
    }

    fn visit_str<E>(self, value: &str) -> Result<Tree, E> {
        Ok(Tree::Scalar(value.into()))
    }

    fn visit_unit<E>(self) -> Result<Tree, E> {
        Ok(Tree::Scalar(Value::Null))
    }

    fn visit_none<E: serde::de::Error>(self) -> Result<Tree, E> {
        self.visit_unit()
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Tree, D::Error> {
        Tree::deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Tree, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Tree::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Tree, A::Error> {
        let mut entries = Vec::new();
        while let Some((key, value)) = map.next_entry::<Spanned<String>, Node>()? {
            entries.push((Key { place: line_of(&key), name: key.value }, value));
        }
        Ok(Tree::Map(entries))
    }
}
