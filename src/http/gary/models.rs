//! The list of models as the plug-in shows it: by size, checkpoints of one training in a group.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::engine::ModelInfo;

/// The fine-tunes that the original lists; any other Hugging Face id or folder works by its name.
const SMALL: [&str; 6] = [
    "thepatch/vanya_ai_dnb_0.1",
    "thepatch/keygen-gary-v2-small-8",
    "thepatch/keygen-gary-v2-small-12",
    "thepatch/keygen-gary-small-6",
    "thepatch/keygen-gary-small-12",
    "thepatch/keygen-gary-small-20",
];
const MEDIUM: [&str; 2] = ["thepatch/bleeps-medium", "thepatch/keygen-gary-medium-12"];
const LARGE: [&str; 11] = [
    "thepatch/hoenn_lofi",
    "thepatch/bleeps-large-6",
    "thepatch/bleeps-large-8",
    "thepatch/bleeps-large-10",
    "thepatch/bleeps-large-14",
    "thepatch/bleeps-large-20",
    "thepatch/keygen-gary-large-6",
    "thepatch/keygen-gary-large-12",
    "thepatch/keygen-gary-large-20",
    "thepatch/keygen-gary-v2-large-12",
    "thepatch/keygen-gary-v2-large-16",
];

/// `{small, medium, large}`: the loaded models first, then those that are offered or on disk, then
/// those that can be downloaded and that the client may name.
pub(super) fn grouped(
    loaded: &[Arc<ModelInfo>],
    here: impl IntoIterator<Item = String>,
    may_name: impl Fn(&str) -> bool,
) -> Value {
    let mut sizes: [Vec<String>; 3] = Default::default();
    let here = loaded.iter().map(|model| model.id.0.clone()).chain(here);
    for name in here {
        let size = if name.contains("large") || LARGE.contains(&name.as_str()) {
            2
        } else if name.contains("medium") || MEDIUM.contains(&name.as_str()) {
            1
        } else {
            0
        };
        if !sizes[size].contains(&name) {
            sizes[size].push(name);
        }
    }
    for (size, known) in sizes.iter_mut().zip([&SMALL[..], &MEDIUM, &LARGE]) {
        let more: Vec<String> =
            known.iter().map(|name| (*name).to_owned()).filter(|name| !size.contains(name) && may_name(name)).collect();
        size.extend(more);
    }
    let [small, medium, large] = sizes.map(|names| entries(&names));
    json!({ "small": small, "medium": medium, "large": large })
}

/// Names that end in a dash and a number belong together, lowest first; the others stand alone.
fn entries(names: &[String]) -> Vec<Value> {
    let mut order: Vec<&str> = Vec::new();
    let mut groups: BTreeMap<&str, Vec<(u64, &str)>> = BTreeMap::new();
    for path in names {
        let group = path.rsplit_once('-').and_then(|(prefix, epoch)| Some((prefix, epoch.parse().ok()?)));
        let (key, epoch) = group.unwrap_or((path, u64::MAX));
        if !groups.contains_key(key) {
            order.push(key);
        }
        groups.entry(key).or_default().push((epoch, path));
    }
    let short = |path: &str| path.rsplit('/').next().unwrap_or(path).to_owned();
    let entry = |key: &str| {
        let mut members = groups.get(key).cloned().unwrap_or_default();
        members.sort_unstable();
        if members.first().is_some_and(|(epoch, _)| *epoch == u64::MAX) {
            return json!({ "name": short(key), "path": key, "type": "single" });
        }
        let checkpoints: Vec<Value> = members
            .into_iter()
            .map(|(epoch, path)| json!({ "name": short(path), "path": path, "epoch": epoch }))
            .collect();
        json!({ "name": short(key), "type": "group", "checkpoints": checkpoints })
    };
    order.into_iter().map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checkpoints_of_one_training_are_a_group_in_order() {
        let models = grouped(&[], vec!["me/my-large".into(), "thepatch/hoenn_lofi".into()], |_| true);
        let large = &models["large"];
        assert_eq!(large[0], json!({"name": "my-large", "path": "me/my-large", "type": "single"}));
        assert_eq!(large[1], json!({"name": "hoenn_lofi", "path": "thepatch/hoenn_lofi", "type": "single"}));
        assert_eq!((&large[2]["name"], &large[2]["type"]), (&json!("bleeps-large"), &json!("group")));
        let epochs: Vec<u64> = large[2]["checkpoints"]
            .as_array()
            .map_or(Vec::new(), |all| all.iter().filter_map(|checkpoint| checkpoint["epoch"].as_u64()).collect());
        assert_eq!(epochs, [6, 8, 10, 14, 20]);
        // One of a kind is a group as well.
        assert_eq!(models["medium"][1]["checkpoints"][0]["path"], "thepatch/keygen-gary-medium-12");
        assert_eq!(models["small"][0]["path"], "thepatch/vanya_ai_dnb_0.1");
    }
}
