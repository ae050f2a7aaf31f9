//! A player of playlists at a node without a model, while the node that makes them dies.

use std::collections::BTreeMap;

use serde_json::json;

use crate::nats::Nats;
use crate::node::Node;
use crate::sound;
use crate::takeover::{Listener, assert_part, playhead, recording};

/// What a player has fetched of a rendition, by the numbers of segments.
struct Player<'a> {
    node: &'a Node,
    /// Address of the rendition, and of its playlist behind that.
    folder: String,
    playlist: String,
    segments: BTreeMap<u64, Vec<u8>>,
}

impl<'a> Player<'a> {
    async fn open(node: &'a Node, place: &str, rendition: &str) -> Self {
        let text = node.get(&format!("{place}/hls/master.m3u8")).await.text().await;
        let address = text.lines().find(|line| line.contains(&format!("/{rendition}/"))).expect("it is listed");
        let (folder, playlist) = address.rsplit_once('/').unwrap();
        let path = folder.find("/v1/").unwrap();
        Self { node, folder: folder[path..].into(), playlist: playlist.into(), segments: BTreeMap::new() }
    }

    async fn file(&self, name: &str) -> Result<Vec<u8>, u16> {
        let mut answer = self.node.get(&format!("{}/{name}", self.folder)).await;
        if answer.status == 200 { Ok(answer.body().await) } else { Err(answer.status) }
    }

    /// Looks for what is new, as players do now and then; gives the status that kept it from that.
    async fn look(&mut self) -> Result<(), u16> {
        let text = String::from_utf8(self.file(&self.playlist).await?).unwrap();
        assert!(!text.contains("#EXT-X-ENDLIST"), "{text}");
        let lasting = text.lines().zip(text.lines().skip(1)).filter(|(line, _)| line.starts_with("#EXTINF:"));
        for (duration, name) in lasting {
            assert_eq!(duration, "#EXTINF:3,", "{text}");
            let number = name.split('.').next().unwrap().parse().unwrap();
            if self.segments.last_key_value().is_none_or(|(newest, _)| number > *newest) {
                let segment = self.file(name).await?;
                self.segments.insert(number, segment);
            }
        }
        Ok(())
    }
}

/// A segment of packed audio without the ID3 tag that says when it plays.
fn behind_tag(segment: &[u8]) -> &[u8] {
    assert_eq!(&segment[..3], b"ID3");
    let length = segment[6..10].iter().fold(0, |length, seven| length << 7 | usize::from(*seven));
    &segment[10 + length..]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_player_of_playlists_misses_nothing_when_the_owner_is_killed() {
    let nats = Nats::start().await;
    let mut edge = Node::start_with("edge", &nats.url(), &json!({ "edge": true }));
    let mut owner = Node::start("owner", &nats.url());
    for node in [&mut edge, &mut owner] {
        node.ready().await;
    }
    edge.sees_room_at("owner").await;
    let place = format!("/v1/streams/{}", edge.create(r#"{"prompts": ["x"]}"#).await);
    let mut next = Node::start("next", &nats.url());
    next.ready().await;
    edge.sees_room_at("next").await;
    owner.sees_room_at("next").await;
    // Keeps time: the sound of a second lasts a second.
    let mut clock = Listener::join(&edge, &place, "wav").await;
    let mut players = [Player::open(&edge, &place, "opus").await, Player::open(&edge, &place, "mp3").await];
    clock.hear(7).await;
    for second in 0..24 {
        if second == 8 {
            owner.kill();
        }
        for player in &mut players {
            let looked = player.look().await;
            // For as long as it takes to miss the owner.
            assert!(looked.is_ok() || (8..11).contains(&second), "{looked:?} in second {second}");
        }
        clock.hear(1).await;
    }
    let heard = playhead(&next, &place).await as u64;
    let played = recording(&next, &place, 0..heard as usize - 1).await;
    for player in &players {
        let numbers: Vec<u64> = player.segments.keys().copied().collect();
        let (first, last) = (numbers[0], numbers[numbers.len() - 1]);
        assert_eq!(numbers, (first..=last).collect::<Vec<_>>());
        assert!(3 * (last + 1) + 5 > heard, "segment {last} is the newest after {heard} s");
        let mut segments = player.segments.values();
        let (format, bytes) = if player.folder.ends_with("opus") {
            let init = player.file("init.mp4").await.unwrap();
            ("mp4", segments.fold(init, |all, segment| [all, segment.clone()].concat()))
        } else {
            ("mp3", segments.by_ref().flat_map(|segment| behind_tag(segment)).copied().collect())
        };
        assert_part(format, &sound::decoded(&bytes, format), &played);
    }
}
