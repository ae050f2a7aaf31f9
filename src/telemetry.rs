//! Names, meanings and buckets of every metric, in one place.
//!
//! Rooms record through the functions and constants here; `http` installs the exporter with
//! [`BUCKETS`] and calls [`describe`].

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};

/// Connected listeners.
pub const LISTENERS: &str = "continuo_listeners";
/// How long listeners have listened, by `format`, when they leave.
pub const SESSION_SECONDS: &str = "continuo_session_seconds";
/// Streams that have not ended.
pub const STREAMS: &str = "continuo_streams";
/// Seconds generated ahead of the playhead, once a second for every playing stream.
pub const BUFFERED_SECONDS: &str = "continuo_buffered_seconds";
/// Times that a stream had nothing to play.
pub const UNDERRUNS: &str = "continuo_underruns_total";
/// Bytes of all journals.
pub const JOURNAL_BYTES: &str = "continuo_journal_bytes";
/// From the request for a stream to its first packet.
pub const TIME_TO_FIRST_AUDIO: &str = "continuo_time_to_first_audio_seconds";
/// From asking for a place in the past to the first packet from there.
pub const SEEK_TO_SOUND: &str = "continuo_seek_to_sound_seconds";
/// From a steer to the moment its first sample leaves.
pub const STEER_TO_SOUND: &str = "continuo_steer_to_sound_seconds";
/// Bytes handed to listeners' connections.
pub const BYTES_SENT: &str = "continuo_bytes_sent_total";
/// Packets made by encoders, however many listeners share them.
pub const PACKETS_ENCODED: &str = "continuo_packets_encoded_total";
/// Times that a slow listener was moved to the live edge.
pub const LISTENER_SKIPS: &str = "continuo_listener_skips_total";
/// Listeners given up because they took nothing for too long.
pub const LISTENERS_GIVEN_UP: &str = "continuo_listeners_given_up_total";
/// One decoder pass for all rows.
pub const STEP_SECONDS: &str = "continuo_step_seconds";
/// Rows of the last decoder pass.
pub const ROWS: &str = "continuo_rows";
/// Voices that the engine has admitted, paused ones included.
pub const VOICES: &str = "continuo_voices";
/// Voices that were dropped while others went on.
pub const VOICE_FAULTS: &str = "continuo_voice_faults_total";
/// Times that a voice stood still and was taken back before it was heard, by `remedy`.
pub const FREEZES: &str = "continuo_freezes_total";
/// Seconds of audio generated per second of work, over all voices.
pub const REALTIME_FACTOR: &str = "continuo_realtime_factor";
/// Clips that wait, by `lane`.
pub const CLIPS_WAITING: &str = "continuo_clips_waiting";
/// Clips that are being made, by `lane`.
pub const CLIPS_RUNNING: &str = "continuo_clips_running";
/// Clips that have ended, by `verb` and `status`.
pub const CLIPS: &str = "continuo_clips_total";
/// Stations that an Icecast server takes now.
pub const PUSHES: &str = "continuo_pushes";
/// Times that a station could not be sent to an Icecast server, or no longer.
pub const PUSH_FAILURES: &str = "continuo_push_failures_total";
/// 1 while a NATS server answers.
pub const CLUSTER_CONNECTED: &str = "continuo_cluster_connected";
/// Nodes of the cluster that this one sees, itself included.
pub const CLUSTER_NODES: &str = "continuo_cluster_nodes";
/// Requests that were passed on to other nodes, by `outcome`.
pub const CLUSTER_CALLS: &str = "continuo_cluster_calls_total";
/// Pages of other nodes' streams that did not arrive.
pub const CLUSTER_PAGES_MISSED: &str = "continuo_cluster_pages_missed_total";
/// Streams of other nodes that go on at this one.
pub const CLUSTER_TAKEOVERS: &str = "continuo_cluster_takeovers_total";
/// How long that took, in seconds.
pub const CLUSTER_TAKEOVER_SECONDS: &str = "continuo_cluster_takeover_seconds";
/// Times that this node's journals were begun anew in NATS.
pub const CLUSTER_JOURNALS_BEGUN: &str = "continuo_cluster_journals_begun_total";
/// Sessions of other nodes that go on at this one.
pub const CLUSTER_SESSIONS_TAKEN: &str = "continuo_cluster_sessions_taken_total";
/// Requests answered, by `method` and `status`.
pub const HTTP_REQUESTS: &str = "continuo_http_requests_total";

/// Histograms and their upper bounds, in seconds.
pub const BUCKETS: &[(&str, &[f64])] = &[
    // A frame lasts 20 ms: the bounds are dense around it.
    (STEP_SECONDS, &[0.001, 0.002, 0.004, 0.007, 0.010, 0.013, 0.016, 0.018, 0.020, 0.022, 0.025, 0.030, 0.040, 0.080]),
    (TIME_TO_FIRST_AUDIO, &[0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 5.0, 10.0]),
    (SEEK_TO_SOUND, &[0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0, 2.0, 5.0]),
    (STEER_TO_SOUND, &[0.05, 0.1, 0.2, 0.3, 0.4, 0.6, 0.8, 1.0, 1.5, 2.0, 5.0, 10.0]),
    (SESSION_SECONDS, &[1.0, 10.0, 60.0, 300.0, 900.0, 1800.0, 3600.0, 7200.0, 14_400.0, 28_800.0, 86_400.0]),
    (BUFFERED_SECONDS, &[0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 6.0, 8.0, 12.0]),
];

/// Registers the meaning of every metric with the installed recorder.
pub fn describe() {
    describe_gauge!(LISTENERS, "Connected listeners");
    describe_histogram!(SESSION_SECONDS, Unit::Seconds, "How long listeners have listened, by format, when they leave");
    describe_gauge!(STREAMS, "Streams that have not ended");
    describe_histogram!(
        BUFFERED_SECONDS,
        Unit::Seconds,
        "Seconds generated ahead of the playhead, sampled once a second for every playing stream"
    );
    describe_counter!(UNDERRUNS, "Times that a stream had nothing to play");
    describe_gauge!(JOURNAL_BYTES, Unit::Bytes, "Bytes of the journals of all streams");
    describe_histogram!(TIME_TO_FIRST_AUDIO, Unit::Seconds, "From the request for a stream to its first packet");
    describe_histogram!(
        SEEK_TO_SOUND,
        Unit::Seconds,
        "From asking for a place in the past of a stream to the first packet from there"
    );
    describe_histogram!(STEER_TO_SOUND, Unit::Seconds, "From a steer to the moment its first sample leaves");
    describe_counter!(BYTES_SENT, Unit::Bytes, "Bytes handed to listeners' connections");
    describe_counter!(PACKETS_ENCODED, "Packets made by encoders, however many listeners share them");
    describe_counter!(LISTENER_SKIPS, "Times that a slow listener was moved to the live edge");
    describe_counter!(LISTENERS_GIVEN_UP, "Listeners given up because they took nothing for too long");
    describe_histogram!(STEP_SECONDS, Unit::Seconds, "One decoder pass for all rows");
    describe_gauge!(ROWS, "Rows of the last decoder pass");
    describe_gauge!(VOICES, "Voices that the engine has admitted, paused ones included");
    describe_counter!(VOICE_FAULTS, "Voices that were dropped while others went on");
    describe_counter!(FREEZES, "Times that a voice stood still and was taken back before it was heard, by remedy");
    describe_gauge!(REALTIME_FACTOR, "Seconds of audio generated per second of work, over all voices");
    describe_gauge!(CLIPS_WAITING, "Clips that wait, by lane");
    describe_gauge!(CLIPS_RUNNING, "Clips that are being made, by lane");
    describe_counter!(CLIPS, "Clips that have ended, by verb and status");
    describe_gauge!(PUSHES, "Stations that an Icecast server takes now");
    describe_counter!(PUSH_FAILURES, "Times that a station could not be sent to an Icecast server, or no longer");
    describe_gauge!(CLUSTER_CONNECTED, "1 while a NATS server answers this node");
    describe_gauge!(CLUSTER_NODES, "Nodes of the cluster that this one sees, itself included");
    describe_counter!(CLUSTER_CALLS, "Requests that were passed on to other nodes, by outcome");
    describe_counter!(CLUSTER_PAGES_MISSED, "Times that pages of another node's stream did not arrive");
    describe_counter!(CLUSTER_TAKEOVERS, "Streams of other nodes that go on at this one");
    describe_histogram!(CLUSTER_TAKEOVER_SECONDS, "From when a node is asked to go on with a stream until it does");
    describe_counter!(
        CLUSTER_JOURNALS_BEGUN,
        "Times that this node's journals were begun anew in NATS: as it joins, and when pieces may be lost there"
    );
    describe_counter!(CLUSTER_SESSIONS_TAKEN, "Sessions of other nodes that go on at this one");
    describe_counter!(HTTP_REQUESTS, "Requests answered, by method and status");
}

#[cfg(test)]
mod tests {
    /// What is behind a metric's name in an expression of Prometheus.
    const SUFFIXES: [&str; 3] = ["_bucket", "_sum", "_count"];

    #[test]
    fn the_dashboard_asks_for_metrics_that_there_are() {
        let (known, dashboard) = (include_str!("telemetry.rs"), include_str!("../deploy/grafana-dashboard.json"));
        let words = dashboard.split(|letter: char| !letter.is_ascii_lowercase() && letter != '_');
        let asked: Vec<_> = words.filter(|word| word.starts_with("continuo_")).collect();
        assert!(asked.len() > 12);
        for name in asked {
            let name = SUFFIXES.iter().find_map(|suffix| name.strip_suffix(suffix)).unwrap_or(name);
            assert!(known.contains(&format!("\"{name}\"")), "{name}");
        }
    }
}
