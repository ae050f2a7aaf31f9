//! Streams that go on at another node: what was sent by one and by the next is one sound.

use std::collections::BTreeMap;
use std::io;
use std::sync::Mutex;

use super::*;
use crate::station::abroad;

const SECOND: u64 = 48_000;

/// What a dead process has written.
#[derive(Default)]
struct Copies(Mutex<BTreeMap<u64, Vec<u8>>>);

impl Shelf for Copies {
    fn append(&self, _stream: &str, piece: u64, bytes: Vec<u8>) {
        self.0.lock().unwrap().entry(piece).or_default().extend(bytes);
    }

    fn read(&self, _stream: &str, _piece: u64) -> io::Result<Vec<u8>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn remove(&self, _stream: &str, _piece: u64) {}

    fn forget(&self, _stream: &str) {}
}

impl Copies {
    fn pieces(&self) -> Vec<(u64, Vec<u8>)> {
        self.0.lock().unwrap().clone().into_iter().collect()
    }
}

/// A node whose directory is of no interest.
struct Nowhere;

impl Directory for Nowhere {
    fn is_elsewhere(&self, _id: &str) -> bool {
        false
    }

    fn claim<'a>(
        &'a self,
        _name: &'a str,
        _id: &'a str,
    ) -> futures_util::future::BoxFuture<'a, Result<(), StationError>> {
        Box::pin(async { Ok(()) })
    }

    fn release<'a>(&'a self, _name: &'a str, _id: &'a str) -> futures_util::future::BoxFuture<'a, ()> {
        Box::pin(async {})
    }

    fn begun<'a>(&'a self, _stream: &'a Stream) -> futures_util::future::BoxFuture<'a, ()> {
        Box::pin(async {})
    }

    fn ended<'a>(&'a self, _stream: &'a Stream) -> futures_util::future::BoxFuture<'a, ()> {
        Box::pin(async {})
    }
}

fn node(burst: f64) -> (Arc<Station>, Arc<Copies>) {
    let engine = Engine::start(Box::new(Standin::default().with_whole_waves()), EngineConfig::default()).unwrap();
    let station = Station::new(engine, StationConfig { burst, room: false, ..StationConfig::default() });
    let copies = Arc::new(Copies::default());
    station.copy_journals_to(Arc::clone(&copies) as Arc<dyn Shelf>);
    station.share(Arc::new(Nowhere));
    (station, copies)
}

/// A listener of other nodes, who is sent pages.
struct Ear {
    listen: Listen,
    end: u64,
    bytes: Vec<u8>,
    received: crate::audio::Received,
}

impl Ear {
    fn new(listen: Listen) -> Self {
        Self { listen, end: 0, bytes: Vec::new(), received: crate::audio::Received::nothing(7) }
    }

    /// Takes pages until media time `until`.
    async fn hear(&mut self, sent: &mut Sent, until: u64) {
        while self.end < until {
            let page = tokio::time::timeout(Duration::from_secs(60), sent.next()).await;
            let page = page.expect("pages in time").expect("the stream goes on");
            let Some(page) = abroad::read(self.listen.format, page, self.end) else { continue };
            assert!(self.end == 0 || page.at.start == self.end, "{} follows {}", page.at.start, self.end);
            if self.bytes.is_empty() {
                let about = crate::audio::About {
                    channels: 1,
                    input_rate: crate::units::SampleRate(32_000),
                    title: String::new(),
                    length: None,
                };
                self.bytes.extend(page.body.head(page.at, &self.received, &about).unwrap_or_default());
            }
            let (first, rest) = page.body.bytes(page.at, &self.received);
            self.bytes.extend(first);
            self.bytes.extend(rest.unwrap_or_default());
            self.received.count(page.at);
            self.end = page.at.end;
        }
    }
}

/// All hear at the same time, as listeners do.
async fn hear(ears: &mut [Ear], sent: &mut [Sent], until: u64) {
    futures_util::future::join_all(ears.iter_mut().zip(sent).map(|(ear, sent)| ear.hear(sent, until))).await;
}

async fn replayed(stream: &Stream, to: u64) -> Vec<i16> {
    let mut grown = stream.journal().grown();
    grown.wait_for(|grown| grown.end >= to).await.unwrap();
    let mut replay = Replay::open(stream, 0..to).unwrap();
    let mut pcm = Vec::new();
    while let Some(block) = replay.next().await.unwrap() {
        pcm.extend(block.iter().map(|sample| (sample * 32_767.0).round() as i16));
    }
    pcm
}

#[tokio::test(flavor = "multi_thread")]
async fn what_two_nodes_send_one_after_the_other_is_one_sound() {
    for seconds in [1, 7] {
        let ((first, copies), (second, _)) = (node(8.0), node(8.0));
        let made = first.create(StreamSpec { seconds: Some(20.0), ..spec() }).await.unwrap();
        let mut ears = [WAV, OGG, MP3].map(Ear::new);
        let mut sent = [WAV, OGG, MP3].map(|listen| made.send_abroad(listen, None).unwrap());
        hear(&mut ears, &mut sent, seconds * SECOND).await;
        // It dies. What it has written by now was sent but for the last second, however fast this
        // machine is, and what it goes on with is heard by nobody.
        let end = made.journal().kept().end;
        let pieces = copies.pieces();
        hear(&mut ears, &mut sent, end.saturating_sub(SECOND)).await;
        drop(sent);
        let stream = second.take_over(pieces, Some(0)).await.unwrap();
        assert_eq!(stream.id(), made.id());
        let to = ears[0].end + 2 * SECOND;
        let mut sent = ears.each_ref().map(|ear| stream.send_abroad(ear.listen, Some(ear.end)).unwrap());
        hear(&mut ears, &mut sent, to).await;
        let heard: Vec<i16> =
            ears[0].bytes[44..].chunks_exact(2).map(|pair| i16::from_le_bytes([pair[0], pair[1]])).collect();
        let again = replayed(&stream, ears[0].end).await;
        assert_eq!(again.len(), heard.len());
        let differs = |(n, (one, other)): (usize, (&i16, &i16))| ((one - other).abs() > 400).then_some(n);
        let wrong: Vec<usize> = again.iter().zip(&heard).enumerate().filter_map(differs).collect();
        assert!(wrong.is_empty(), "{seconds}: {} samples from {} on", wrong.len(), wrong[0]);
        // The others are the same sound: what a codec makes of it differs nowhere by more than at
        // the seam of two encoders.
        for (ear, delay) in [(&ears[1], 0), (&ears[2], 1105)] {
            let pcm = decode(&ear.bytes);
            let off = |from: usize| {
                let pairs = || pcm[from + delay..].iter().zip(&heard[from..]).take(4800);
                let error: f32 = pairs().map(|(one, other)| (one - f32::from(*other) / 32_767.0).powi(2)).sum();
                error / pairs().map(|(one, _)| one.powi(2)).sum::<f32>()
            };
            let length = heard.len().min(pcm.len() - delay) - 9600;
            let worst = (4800..length).step_by(2400).map(off).fold(0.0, f32::max);
            assert!(worst < 0.05, "{}, {seconds} s: {worst}", ear.listen.format);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn other_nodes_are_not_told_of_an_end_that_is_none() {
    for (handed_over, told) in [(true, false), (false, true)] {
        let (station, _) = node(2.0);
        let made = station.create(spec()).await.unwrap();
        let (mut sent, mut events) = (made.send_abroad(WAV, None).unwrap(), made.events());
        Ear::new(WAV).hear(&mut sent, SECOND).await;
        let end = async {
            match handed_over {
                true => station.let_go(made.id()).await,
                false => station.delete(made.id()).await.unwrap(),
            }
        };
        let pages = async {
            let mut is_last = false;
            while let Some(page) = sent.next().await {
                is_last |= abroad::read(WAV.format, page, 0).is_some_and(|page| page.at.last);
            }
            is_last
        };
        let words = async {
            let mut says_end = false;
            while let Some(event) = made.next_event_abroad(&mut events).await {
                says_end |= matches!(event, Event::End { .. });
            }
            says_end
        };
        let ((), is_last, says_end) = tokio::join!(end, pages, words);
        assert_eq!((is_last, says_end), (told, told), "handed over: {handed_over}");
    }
}
