//! `torch.save` archives as audiocraft's exports are: tensors below `best_state`, the training
//! run's configuration in `xp.cfg`, as YAML text or as a pickled OmegaConf object.

use std::collections::HashMap;
use std::io::{BufReader, Cursor};
use std::path::Path;

use candle_core::pickle::{Object, PthTensors, Stack};
use candle_core::{DType, Device, Tensor};
use yaml_rust2::parser::{Event, Parser};
use yaml_rust2::{Yaml, YamlLoader, yaml::Hash};

use super::weights::TensorSource;
use super::{Files, ModelError, Result, pickle};

/// One `torch.save` archive.
pub(crate) struct Archive<'a> {
    files: &'a Files,
    name: &'static str,
    path: std::path::PathBuf,
    entries: Vec<(String, Object)>,
}

impl<'a> Archive<'a> {
    pub(crate) fn open(files: &'a Files, folder: &Path, name: &'static str) -> Result<Self> {
        let mut archive = Self { files, name, path: folder.join(name), entries: Vec::new() };
        if !archive.path.is_file() {
            return Err(files.missing(name));
        }
        let file = std::fs::File::open(&archive.path).map_err(|error| archive.wrong(error))?;
        let mut zip = zip::ZipArchive::new(BufReader::new(file)).map_err(|error| archive.wrong(error))?;
        // The prefix is the file's name at saving time, or `archive`.
        let index = (0..zip.len())
            .find(|&index| {
                zip.by_index(index).is_ok_and(|entry| entry.name().is_ok_and(|name| name.ends_with("data.pkl")))
            })
            .ok_or_else(|| archive.wrong("there is no data.pkl in it"))?;
        let entry = zip.by_index(index).map_err(|error| archive.wrong(error))?;
        let pickle = pickle::read_within(entry).map_err(|reason| archive.wrong(reason))?;
        pickle::check(&pickle).map_err(|reason| archive.wrong(reason))?;
        let mut stack = Stack::empty();
        let read = stack.read_loop(&mut Cursor::new(pickle)).and_then(|()| stack.finalize());
        let object = read.map_err(|error| archive.wrong(error))?;
        let dict = object.dict().map_err(|_| archive.wrong("its pickle is no dictionary"))?;
        archive.entries = dict.into_iter().filter_map(|(key, value)| Some((key.unicode().ok()?, value))).collect();
        Ok(archive)
    }

    fn entry(&self, key: &str) -> Option<&Object> {
        self.entries.iter().find(|(name, _)| name == key).map(|(_, value)| value)
    }

    pub(crate) fn text(&self, key: &str) -> Option<String> {
        self.entry(key)?.clone().unicode().ok()
    }

    pub(crate) fn settings(&self) -> Result<Settings> {
        match self.entry("xp.cfg") {
            Some(Object::Unicode(text)) => Settings::parse(text).map_err(|reason| self.wrong(reason)),
            Some(object) => Ok(Settings(plain(object).unwrap_or(Yaml::Hash(Hash::new())))),
            None => Err(self.wrong("it has no configuration text (xp.cfg)")),
        }
    }

    /// Tensors that are read when they are asked for, by the names that they are stored under.
    pub(crate) fn source(&self) -> Result<PthSource> {
        if self.entry("best_state").is_none() {
            return Err(self.wrong("it has no best_state"));
        }
        pickle::check_archive(&self.path).map_err(|reason| self.wrong(reason))?;
        Ok(PthSource(PthTensors::new(&self.path, Some("best_state"))?))
    }

    pub(crate) fn tensors(&self, dtype: DType, device: &Device) -> Result<Vec<(String, Tensor)>> {
        let PthSource(all) = self.source()?;
        let mut tensors = Vec::new();
        for name in all.tensor_infos().keys() {
            if let Some(tensor) = all.get(name)? {
                tensors.push((name.clone(), tensor.to_device(device)?.to_dtype(dtype)?));
            }
        }
        Ok(tensors)
    }

    pub(crate) fn wrong(&self, reason: impl ToString) -> ModelError {
        self.files.wrong(self.name, reason)
    }

    pub(crate) fn unknown(&self, parameter: &str) -> ModelError {
        self.wrong(format!("its parameter `{parameter}` belongs to no MusicGen that is known here"))
    }
}

/// The tensors of an archive.
pub(crate) struct PthSource(PthTensors);

impl PthSource {
    /// Those of a file, below `key` if there is one.
    pub(crate) fn open(path: &Path, key: Option<&str>) -> Result<Self> {
        pickle::check_archive(path).map_err(|reason| ModelError::Wrong {
            place: path.parent().unwrap_or(Path::new("")).display().to_string(),
            file: path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            reason,
        })?;
        Ok(Self(PthTensors::new(path, key)?))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.tensor_infos().is_empty()
    }
}

impl TensorSource for PthSource {
    fn has(&self, name: &str) -> bool {
        self.0.tensor_infos().contains_key(name)
    }

    fn read(&self, name: &str, _: &[usize]) -> Result<Tensor> {
        let absent = || ModelError::Weight { name: name.into(), reason: "it is absent".into() };
        self.0.get(name)?.ok_or_else(absent)
    }
}

/// What an OmegaConf object holds: containers keep it in `_content`, leaves in `_val`. Anything
/// else is no value.
fn plain(object: &Object) -> Option<Yaml> {
    let member = |members: &[(Object, Object)], wanted: &str| {
        let found = members.iter().find(|(key, _)| matches!(key, Object::Unicode(key) if key == wanted));
        found.map(|(_, value)| value.clone())
    };
    Some(match object {
        Object::Build { args, .. } => {
            let Object::Dict(members) = &**args else { return None };
            return plain(&member(members, "_content").or_else(|| member(members, "_val"))?);
        }
        Object::Dict(entries) => {
            let entries = entries.iter().filter_map(|(key, value)| match key {
                Object::Unicode(key) => Some((Yaml::String(key.clone()), plain(value)?)),
                _ => None,
            });
            Yaml::Hash(entries.collect())
        }
        Object::List(items) => Yaml::Array(items.iter().filter_map(plain).collect()),
        Object::Unicode(text) => Yaml::String(text.clone()),
        Object::Int(value) => Yaml::Integer((*value).into()),
        Object::Long(value) => Yaml::Integer(*value),
        Object::Float(value) => Yaml::Real(value.to_string()),
        Object::Bool(value) => Yaml::Boolean(*value),
        Object::None => Yaml::Null,
        _ => return None,
    })
}

/// Bytes of a configuration text, nodes that it may unfold to, and nodes in nodes.
const MOST_TEXT: usize = 1 << 20;
const MOST_NODES: usize = 100_000;
const MOST_DEPTH: usize = 64;

/// Counts what a YAML text unfolds to before it is built: an alias is a copy of what it stands for,
/// and copies of copies make gigabytes of a few hundred bytes.
fn check_yaml(text: &str) -> std::result::Result<(), String> {
    if text.len() > MOST_TEXT {
        return Err(format!("xp.cfg has more than {} MB", MOST_TEXT >> 20));
    }
    let mut parser = Parser::new_from_str(text);
    let mut anchors: HashMap<usize, usize> = HashMap::new();
    // Of every open container its anchor and its nodes.
    let mut open: Vec<(usize, usize)> = vec![(0, 0)];
    let mut total = 0usize;
    loop {
        let (event, _) = parser.next_token().map_err(|error| format!("xp.cfg is no YAML: {error}"))?;
        let (anchor, nodes) = match event {
            Event::StreamEnd => return Ok(()),
            Event::SequenceStart(anchor, _) | Event::MappingStart(anchor, _) => {
                open.push((anchor, 1));
                if open.len() > MOST_DEPTH {
                    return Err(format!("xp.cfg nests more than {MOST_DEPTH} nodes"));
                }
                continue;
            }
            Event::SequenceEnd | Event::MappingEnd => open.pop().unwrap_or_default(),
            Event::Scalar(text, _, anchor, _) => (anchor, 1 + text.len() / 32),
            Event::Alias(anchor) => {
                let nodes = anchors.get(&anchor).copied().unwrap_or(1);
                total = total.saturating_add(nodes);
                (0, nodes)
            }
            _ => continue,
        };
        anchors.insert(anchor, nodes);
        if let Some((_, outer)) = open.last_mut() {
            *outer = outer.saturating_add(nodes);
            total = total.max(*outer);
        }
        if total > MOST_NODES {
            return Err(format!("xp.cfg unfolds to more than {MOST_NODES} nodes"));
        }
    }
}

/// The configuration text of a training run: YAML whose `${...}` references are resolved when asked
/// for.
pub(crate) struct Settings(Yaml);

impl Settings {
    fn parse(text: &str) -> std::result::Result<Self, String> {
        check_yaml(text)?;
        let mut documents = YamlLoader::load_from_str(text).map_err(|error| format!("xp.cfg is no YAML: {error}"))?;
        if documents.is_empty() {
            return Err("xp.cfg is empty".into());
        }
        Ok(Self(documents.swap_remove(0)))
    }

    fn find(&self, path: &str) -> Option<&Yaml> {
        let mut path = path.to_owned();
        // References may point to references, but not for ever.
        for _ in 0..8 {
            let mut node = &self.0;
            for key in path.split('.') {
                node = node.as_hash()?.get(&Yaml::String(key.into()))?;
            }
            match node.as_str().and_then(|text| text.strip_prefix("${")?.strip_suffix('}')) {
                Some(reference) => path = reference.to_owned(),
                None => return (!node.is_null()).then_some(node),
            }
        }
        None
    }

    pub(crate) fn number(&self, path: &str) -> Option<f64> {
        let node = self.find(path)?;
        node.as_f64().or_else(|| node.as_i64().map(|value| value as f64))
    }

    pub(crate) fn numbers(&self, path: &str) -> Option<Vec<f64>> {
        let items = self.find(path)?.as_vec()?;
        items.iter().map(|item| item.as_f64().or_else(|| item.as_i64().map(|value| value as f64))).collect()
    }

    pub(crate) fn text(&self, path: &str) -> Option<String> {
        self.find(path)?.as_str().map(str::to_owned)
    }

    pub(crate) fn flag(&self, path: &str) -> Option<bool> {
        self.find(path)?.as_bool()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn aliases_of_aliases_and_nests_are_refused_and_one_alias_is_not() {
        let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
        for n in 1..12 {
            bomb += &format!("a{n}: &a{n} [{}]\n", vec![format!("*a{}", n - 1); 9].join(", "));
        }
        let refused = |text: &str| Settings::parse(text).err().unwrap();
        assert!(refused(&bomb).contains("unfolds"));
        assert!(refused(&format!("a: {}", "[".repeat(200))).contains("nests"));
        assert!(refused(&format!("a: {}", " ".repeat(2 << 20))).contains("1 MB"));
        let shared = Settings::parse("adam: &id001 [0.9, 0.95]\nother: *id001\n").unwrap();
        assert_eq!(shared.numbers("other"), Some(vec![0.9, 0.95]));
    }

    #[test]
    fn references_are_resolved_when_asked_for_and_only_then() {
        let settings = Settings::parse(
            "sample_rate: 32000\ndora: {dir: '/x/${oc.env:USER}/y'}\nencodec: {sample_rate: '${sample_rate}', causal: false}\n\
             seanet: {causal: '${encodec.causal}', ratios: [8, 5], loop: '${seanet.loop}'}\n",
        )
        .unwrap();
        assert_eq!(settings.number("encodec.sample_rate"), Some(32_000.0));
        assert_eq!(settings.flag("seanet.causal"), Some(false));
        assert_eq!(settings.numbers("seanet.ratios"), Some(vec![8.0, 5.0]));
        assert_eq!(settings.number("seanet.loop"), None);
        assert_eq!(settings.number("no.such.key"), None);
    }
}
