// What goes wrong on a producer's day: everything sent as JSON text, dropped lines, sounds that are none, too much of it.
//   node tricky.mjs URL VERSION(4|2) BOMB   (a file of kilobytes that unfolds to ten hours)
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { ask, connected, library, listener } from './client.mjs';
import { look, wav } from './sound.mjs';

const [url, version, bomb] = process.argv.slice(2);
const io = library(version);
const json = async (path) => (await fetch(url + path)).json();
const model = 'standin', audio = wav(8).toString('base64');

// 2: the times that keep an idle client connected, and room for its largest message.
const open = JSON.parse((await (await fetch(`${url}/socket.io/?EIO=4&transport=polling`)).text()).slice(1));
assert.deepEqual([open.pingInterval, open.pingTimeout, open.upgrades], [120000, 240000, ['websocket']]);
assert.ok(open.maxPayload >= 96 * 2 ** 20);

const socket = io(url, { transports: ['websocket'], forceNew: true, reconnectionDelay: 50, reconnectionDelayMax: 100 });
await connected(socket);
const client = listener(socket);
// Everything is JSON text from here on, as the phone sends it: with slashes escaped.
const text = (payload) => JSON.stringify(payload).replaceAll('/', '\\/');
const say = (event, payload, reply) => ask(client, socket, event, text(payload), reply);

// 5: the parameters of a "tame" bang are used.
const bang = await say('process_audio_request', { audio_data: audio, model_name: model, prompt_duration: '6',
 top_k: 100, cfg_coef: 5, description: 'drums, "percussion"' }, 'audio_processed');
const { clips } = await json(`/v1/sessions/${bang.session_id}`);
const clip = await json(`/v1/clips/${clips[0]}`);
assert.deepEqual([clip.sampling.top_k, clip.sampling.guidance, clip.prompt, clip.prompt_seconds],
 [100, 5, 'drums, "percussion"', 6]);

// 10 and 13, then 11 once more without its parameters: they are not remembered.
await say('continue_music_request', { session_id: bang.session_id, prompt_duration: 6, top_k: 7 }, 'music_continued');
const retried = await say('retry_music_request', { session_id: bang.session_id, prompt_duration: 6 }, 'music_retried');
assert.equal(look(retried.audio_data).frames, 54 * 44100);
const latest = (await json(`/v1/sessions/${bang.session_id}`)).clips[0];
assert.equal((await json(`/v1/clips/${latest}`)).sampling.top_k, 250);

// 15, 17 and restoring, all of them as text.
const cropped = await say('update_cropped_audio', { session_id: bang.session_id, audio_data: audio }, 'update_cropped_audio_complete');
assert.equal(cropped.session_id, bang.session_id);
await say('undo_transform_request', { session_id: bang.session_id }, 'transform_undone');
const restored = await say('restore_processed_audio', { audio_data: audio, model_name: model, prompt_duration: 6 }, 'restore_complete');
const ready = await say('begin_restore_audio', 'anything', 'ready_for_chunks');
await say('audio_chunk', { session_id: ready.session_id, chunk: audio, chunk_index: 0, total_chunks: '1' }, 'restore_complete');

// 6: a new bang while the old session is at work: cleaned up first, and nothing of the old is mixed in.
await say('continue_music_request', { session_id: restored.session_id }, 'continue_music_received');
client.seen.length = 0;
socket.emit('cleanup_session_request', text({ session_id: restored.session_id }));
const fresh = await say('process_audio_request', { audio_data: audio, model_name: model, prompt_duration: 6 }, 'audio_processed');
assert.ok(fresh.session_id !== restored.session_id && fresh.session_id !== bang.session_id);
const mixed = client.seen.filter((event) => event.name === 'music_continued' || event.name === 'error');
assert.deepEqual(mixed.filter((event) => !/cancelled/.test(event.data.message ?? '')), []);

// 19: the same continue twice at once.
const both = [client.next('continue_music_received', 'error'), client.next('continue_music_received', 'error')];
for (let n = 0; n < 2; n++) socket.emit('continue_music_request', { session_id: fresh.session_id, audio_data: audio });
const done = client.next('music_continued');
const answers = await Promise.all(both);
assert.equal(answers.filter((answer) => answer.message === 'Generation already in progress').length, 1);
assert.equal((await done).session_id, fresh.session_id);

// 3 and 9: the line drops in mid-generation; the library connects again by itself, and asks for its session.
await say('continue_music_request', { session_id: fresh.session_id }, 'continue_music_received');
const again = new Promise((resolve) => socket.once('connect', resolve));
const missed = client.next('music_continued');
socket.io.engine.close();
await again;
socket.emit('request_progress_status', { session_id: fresh.session_id, last_progress: 0 });
socket.emit('verify_session', { session_id: fresh.session_id });
assert.equal((await missed).session_id, fresh.session_id);

// What is no sound, or too much of one, is refused in words, and nothing of it stays.
const before = (await json('/v1/sessions')).sessions.length;
const silent = wav(0).toString('base64'), endless = wav(601, 4000).toString('base64');
const unfolding = readFileSync(bomb).toString('base64');
assert.ok(unfolding.length < 1e6, 'a bomb is small');
for (const sound of ['', 'abcde', '====', Buffer.from('no music').toString('base64'), silent, endless, unfolding, 5, null, ['x']]) {
 for (const [event, more] of [
  ['process_audio_request', { model_name: model, prompt_duration: 6 }],
  ['continue_music_request', {}],
  ['update_cropped_audio', {}],
  ['restore_processed_audio', { model_name: model, prompt_duration: 6 }],
 ]) {
  const { message, code } = await say(event, { audio_data: sound, ...more }, 'error');
  assert.ok(typeof message === 'string' && message.length > 5 && code === undefined, `${event} ${String(sound).slice(0, 40)}`);
 }
}
const unknown = await say('process_audio_request', { audio_data: audio, model_name: 'nobody/has-it', prompt_duration: 6 }, 'error');
assert.match(unknown.message, /nobody\/has-it/);
assert.ok(unknown.session_id, 'it was taken on');
const nobody = await say('retry_music_request', { session_id: 'nobody' }, 'error');
assert.deepEqual([nobody.session_id, /nobody/.test(nobody.message)], ['nobody', true]);
// Of what was taken on and failed its session is left, which can be used again.
assert.equal((await json('/v1/sessions')).sessions.length, before + 1);
await say('continue_music_request', { session_id: unknown.session_id, audio_data: audio, model_name: model }, 'music_continued');

// One message may carry 96 MiB of text for restoring; more is said to be too much, and the line stays.
const large = 'A'.repeat(97 * 2 ** 20);
const refused = client.next('error');
socket.emit('restore_processed_audio', { audio_data: large, model_name: model, prompt_duration: 6 });
assert.equal((await refused).code, 'DATA_TOO_LARGE');
await new Promise((resolve) => socket.emit('verify_session', { session_id: fresh.session_id }, resolve));
assert.ok(socket.connected);

socket.disconnect();
console.log('all of it');
process.exit(0);
