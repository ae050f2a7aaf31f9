//! Where a checkpoint's files are: a folder, or the program itself.

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use serde_json::Value;

use super::ModelError;

/// A set of files that make up a checkpoint.
#[derive(Clone)]
pub enum Files {
    /// A folder on disk.
    Folder(PathBuf),
    /// Files within the program, by name.
    Embedded(fn(&str) -> Option<Cow<'static, [u8]>>),
}

impl Files {
    /// The place in words.
    pub fn place(&self) -> String {
        match self {
            Self::Folder(path) => path.display().to_string(),
            Self::Embedded(_) => "bundled".into(),
        }
    }

    /// Whether a file is there.
    pub fn has(&self, name: &str) -> bool {
        match self {
            Self::Folder(path) => path.join(name).is_file(),
            Self::Embedded(get) => get(name).is_some(),
        }
    }

    /// A whole file.
    ///
    /// # Errors
    /// [`ModelError::Missing`], [`ModelError::Wrong`].
    pub fn read(&self, name: &str) -> Result<Cow<'static, [u8]>, ModelError> {
        match self {
            Self::Folder(path) => {
                let path = path.join(name);
                if !path.is_file() {
                    return Err(self.missing(name));
                }
                std::fs::read(&path).map(Cow::Owned).map_err(|error| self.wrong(name, error))
            }
            Self::Embedded(get) => get(name).ok_or_else(|| self.missing(name)),
        }
    }

    /// A JSON file.
    ///
    /// # Errors
    /// [`ModelError::Missing`], [`ModelError::Wrong`].
    pub fn json(&self, name: &str) -> Result<Value, ModelError> {
        serde_json::from_slice(&self.read(name)?).map_err(|error| self.wrong(name, error))
    }

    /// All tensors of a checkpoint in safetensors, single or sharded, as `dtype` on `device` when
    /// they are asked for.
    ///
    /// # Errors
    /// [`ModelError::Missing`], [`ModelError::Wrong`].
    pub fn weights(&self, dtype: DType, device: &Device) -> Result<VarBuilder<'static>, ModelError> {
        let shards = self.shards()?;
        match self {
            Self::Folder(folder) => {
                let paths: Vec<PathBuf> = shards.iter().map(|shard| folder.join(shard)).collect();
                for (path, shard) in paths.iter().zip(&shards) {
                    if !path.is_file() {
                        return Err(self.missing(shard));
                    }
                    self.check_header(path, shard)?;
                }
                mapped(&paths, dtype, device).map_err(|error| self.wrong(&shards.join(", "), error))
            }
            Self::Embedded(_) => {
                let [shard] = shards.as_slice() else {
                    return Err(self.wrong("model.safetensors.index.json", "an embedded checkpoint has one shard"));
                };
                let bytes = self.read(shard)?.into_owned();
                VarBuilder::from_buffered_safetensors(bytes, dtype, device).map_err(|error| self.wrong(shard, error))
            }
        }
    }

    /// All tensors at once, with names changed by `rename` (`None` leaves one out).
    ///
    /// # Errors
    /// [`ModelError::Missing`], [`ModelError::Wrong`].
    pub(super) fn tensors(
        &self,
        rename: impl Fn(&str) -> Option<String>,
        dtype: DType,
        device: &Device,
    ) -> Result<HashMap<String, Tensor>, ModelError> {
        let mut all = HashMap::new();
        for shard in self.shards()? {
            let loaded = candle_core::safetensors::load_buffer(&self.read(&shard)?, device)
                .map_err(|error| self.wrong(&shard, error))?;
            for (name, tensor) in loaded {
                if let Some(name) = rename(&name) {
                    all.insert(name, tensor.to_dtype(dtype)?);
                }
            }
        }
        Ok(all)
    }

    fn shards(&self) -> Result<Vec<String>, ModelError> {
        const SINGLE: &str = "model.safetensors";
        const INDEX: &str = "model.safetensors.index.json";
        if self.has(SINGLE) {
            return Ok(vec![SINGLE.into()]);
        }
        if !self.has(INDEX) {
            return Err(self.missing(SINGLE));
        }
        let index = self.json(INDEX)?;
        let map = index["weight_map"].as_object().ok_or_else(|| self.wrong(INDEX, "it has no weight_map"))?;
        let mut shards: Vec<String> = map.values().filter_map(|shard| shard.as_str().map(str::to_owned)).collect();
        shards.sort_unstable();
        shards.dedup();
        // A shard's name comes from a file that anybody may have written: it must not lead out of
        // the folder.
        match shards.iter().find(|shard| Path::new(shard).file_name().is_none_or(|name| *name != ***shard)) {
            Some(shard) => Err(self.wrong(INDEX, format!("the shard name `{shard}` is no plain file name"))),
            None => Ok(shards),
        }
    }

    /// A truncated file would otherwise be noticed only when a page behind its end is touched.
    fn check_header(&self, path: &Path, shard: &str) -> Result<(), ModelError> {
        use std::io::Read;
        let read = || -> std::io::Result<(u64, u64, Vec<u8>)> {
            let mut file = std::fs::File::open(path)?;
            let length = file.metadata()?.len();
            let mut size = [0; 8];
            file.read_exact(&mut size)?;
            let size = u64::from_le_bytes(size);
            let mut header = vec![0; usize::try_from(size.min(length)).unwrap_or(0)];
            file.read_exact(&mut header)?;
            Ok((length, size, header))
        };
        let (length, size, header) = read().map_err(|_| self.wrong(shard, "it is no complete safetensors file"))?;
        let header: Value = serde_json::from_slice(&header).map_err(|error| self.wrong(shard, error))?;
        let end = header.as_object().into_iter().flatten().filter_map(|(_, entry)| entry["data_offsets"][1].as_u64());
        if end.max().unwrap_or(0) + 8 + size > length {
            return Err(self.wrong(shard, "it is shorter than its header says; download it again"));
        }
        Ok(())
    }

    /// Bytes of the files that hold weights; 0 when there are none.
    pub fn weight_bytes(&self) -> u64 {
        match self {
            Self::Folder(folder) => {
                let files = std::fs::read_dir(folder).into_iter().flatten().flatten();
                let weights = files.filter(|file| {
                    Path::new(&file.file_name()).extension().is_some_and(|end| end == "safetensors" || end == "bin")
                });
                // What a hub's cache holds are links.
                weights.filter_map(|file| std::fs::metadata(file.path()).ok()).map(|file| file.len()).sum()
            }
            Self::Embedded(get) => get("model.safetensors").map_or(0, |bytes| bytes.len() as u64),
        }
    }

    pub(super) fn missing(&self, file: &str) -> ModelError {
        let advice = "a checkpoint folder holds config.json, model.safetensors and tokenizer.json (Hugging Face), \
                      or state_dict.bin and compression_state_dict.bin (audiocraft)";
        ModelError::Missing { place: self.place(), file: file.into(), advice }
    }

    pub(super) fn wrong(&self, file: &str, reason: impl ToString) -> ModelError {
        ModelError::Wrong { place: self.place(), file: file.into(), reason: reason.to_string() }
    }
}

#[allow(unsafe_code)]
fn mapped(paths: &[PathBuf], dtype: DType, device: &Device) -> candle_core::Result<VarBuilder<'static>> {
    // SAFETY: The files are mapped read-only and copied into tensors while loading; every offset
    // was checked against the file's length. Somebody who truncates a checkpoint during its loading
    // can still crash the program, as with every mapping; the safe twin is `Files::tensors`, which
    // needs twice the memory.
    unsafe { VarBuilder::from_mmaped_safetensors(paths, dtype, device) }
}
