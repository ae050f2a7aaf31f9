//! Reference tensors of a case, with tolerances, and a record of which were used.

use std::{
    cell::RefCell,
    collections::{BTreeSet, HashMap},
    path::{Path, PathBuf},
};

use candle_core::{DType, Device, Tensor};
use serde_json::Value;

/// The content of a case's `golden.safetensors`.
pub struct Golden {
    pub folder: PathBuf,
    tensors: HashMap<String, Tensor>,
    tolerances: Value,
    used: RefCell<BTreeSet<String>>,
    failures: RefCell<Vec<String>>,
    label: RefCell<String>,
}

impl Golden {
    pub fn load(folder: &Path) -> Self {
        let tensors = candle_core::safetensors::load(folder.join("golden.safetensors"), &Device::Cpu).unwrap();
        let named = |name: &str| -> Option<Value> {
            std::fs::read(folder.join(name)).ok().map(|bytes| serde_json::from_slice(&bytes).unwrap())
        };
        let tolerances = named("tolerances.json").or_else(|| named("golden.json")).unwrap();
        // Per tensor, in an object of its own or at the top.
        let tolerances = if tolerances["tensors"].is_object() { tolerances["tensors"].clone() } else { tolerances };
        Self {
            folder: folder.to_owned(),
            tensors,
            tolerances,
            used: RefCell::default(),
            failures: RefCell::default(),
            label: RefCell::default(),
        }
    }

    /// Put in front of every failure from here on.
    pub fn label(&self, label: &str) {
        *self.label.borrow_mut() = label.to_owned();
    }

    pub fn has(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// Names that begin with `prefix`, sorted.
    pub fn names(&self, prefix: &str) -> Vec<String> {
        let mut names: Vec<String> = self.tensors.keys().filter(|name| name.starts_with(prefix)).cloned().collect();
        names.sort();
        names
    }

    /// A tensor that a computation starts from.
    pub fn input(&self, name: &str) -> Tensor {
        self.used.borrow_mut().insert(name.to_owned());
        self.tensors.get(name).unwrap_or_else(|| panic!("{name} is not in the case")).clone()
    }

    /// The same, as whole numbers.
    pub fn ids(&self, name: &str) -> Vec<u32> {
        let ids: Vec<i64> = self.input(name).to_dtype(DType::I64).unwrap().flatten_all().unwrap().to_vec1().unwrap();
        ids.into_iter().map(|id| u32::try_from(id).unwrap()).collect()
    }

    pub fn dims(&self, name: &str) -> Vec<usize> {
        self.tensors[name].dims().to_vec()
    }

    /// Compares floats of the reference's shape within its tolerance.
    pub fn check(&self, name: &str, found: &Tensor) {
        let expected = self.input(name);
        if expected.dims() != found.dims() {
            return self.fail(format!("{name}: shape {:?}, expected {:?}", found.dims(), expected.dims()));
        }
        self.compare(name, &floats(found), &floats(&expected));
    }

    /// Compares a signal `[.., time]` with the whole of the reference or, where that is long, with
    /// its ends.
    pub fn check_signal(&self, name: &str, found: &Tensor) {
        let mut there = self.has(name);
        if there {
            self.check(name, found);
        }
        for end in [".head", ".tail", "_head", "_tail"] {
            let part = format!("{name}{end}");
            if self.has(&part) {
                there = true;
                let (axis, length) = (found.rank() - 1, found.dims()[found.rank() - 1]);
                let count = self.dims(&part)[axis].min(length);
                let start = if end.ends_with("head") { 0 } else { length - count };
                self.check(&part, &found.narrow(axis, start, count).unwrap());
            }
        }
        assert!(there, "{name} is not in the case");
    }

    /// Marks tensors as seen that nothing here computes.
    pub fn leave_out(&self, prefix: &str) {
        self.used.borrow_mut().extend(self.names(prefix));
    }

    /// A JSON file of the case.
    pub fn json(&self, name: &str) -> Value {
        serde_json::from_slice(&std::fs::read(self.folder.join(name)).unwrap()).unwrap()
    }

    /// Compares the part of a reference for which `keep` (one flag per row of the last dimension)
    /// is true.
    pub fn check_rows(&self, name: &str, found: &Tensor, keep: &[bool]) {
        let expected = self.input(name);
        if expected.dims() != found.dims() {
            return self.fail(format!("{name}: shape {:?}, expected {:?}", found.dims(), expected.dims()));
        }
        let width = *expected.dims().last().unwrap();
        let pick = |x: &Tensor| -> Vec<f32> {
            floats(x).chunks(width).zip(keep).filter(|(_, keep)| **keep).flat_map(|(row, _)| row.to_vec()).collect()
        };
        self.compare(name, &pick(found), &pick(&expected));
    }

    fn compare(&self, name: &str, found: &[f32], expected: &[f32]) {
        let tolerance = &self.tolerances[name];
        let atol = tolerance["atol"].as_f64().unwrap_or_else(|| panic!("{name} has no tolerance"));
        let rtol = tolerance["rtol"].as_f64().unwrap_or(0.0);
        // The reference's own rule; NaN on either side fails.
        let worst = found
            .iter()
            .zip(expected)
            .map(|(a, b)| {
                let (a, b) = (f64::from(*a), f64::from(*b));
                let ratio = (a - b).abs() / (atol + rtol * b.abs()).max(f64::MIN_POSITIVE);
                if ratio.is_nan() { f64::INFINITY } else { ratio }
            })
            .fold(0.0, f64::max);
        if found.len() != expected.len() || worst > 1.0 {
            self.fail(format!("{name}: {worst:.3} times the tolerance of {atol:e}"));
        }
    }

    /// Compares whole numbers exactly.
    pub fn check_ids(&self, name: &str, found: &[u32]) {
        let found: Vec<i64> = found.iter().map(|id| i64::from(*id)).collect();
        self.check_numbers(name, &found);
    }

    pub fn check_numbers(&self, name: &str, found: &[i64]) {
        let expected = self.input(name).to_dtype(DType::I64).unwrap();
        let expected: Vec<i64> = expected.flatten_all().unwrap().to_vec1().unwrap();
        if expected != found {
            let first = expected.iter().zip(found).position(|(a, b)| a != b);
            self.fail(format!(
                "{name}: {} numbers, {} expected, first difference at {first:?}",
                found.len(),
                expected.len()
            ));
        }
    }

    pub fn expect(&self, right: bool, what: impl Into<String>) {
        if !right {
            self.fail(what.into());
        }
    }

    fn fail(&self, what: String) {
        self.failures.borrow_mut().push(format!("[{}] {what}", self.label.borrow()));
    }

    /// Panics unless every comparison held and every tensor of the case was used.
    pub fn finish(&self) {
        let unused: Vec<&String> = self.tensors.keys().filter(|name| !self.used.borrow().contains(*name)).collect();
        let failures = self.failures.borrow();
        assert!(failures.is_empty(), "{}:\n{}", self.folder.display(), failures.join("\n"));
        assert!(unused.is_empty(), "{}: no test used {unused:?}", self.folder.display());
    }
}

pub fn floats(x: &Tensor) -> Vec<f32> {
    x.to_dtype(DType::F32).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}
